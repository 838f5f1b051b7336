"""Loggers for MLflow and Weights & Biases, and one that writes a CSV table."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from adafocus.core.files import read_json, write_json

#: Files of a finished run that are uploaded to a tracker if they exist, in addition to the checkpoint.
FILES = ("summary.json", "report.html", "predictions.csv", "patches.png", "config.json")
#: Limits of MLflow: characters of a parameter's value, and number of values in one request.
MLFLOW_LENGTH, MLFLOW_BATCH = 6000, 100


def tag(kind: str, name: str) -> str:
    """What trackers call a number of metrics.jsonl: `train/loss`, `train/lr`, and `val/loss` for kind "evaluate"."""
    return f"{'val' if kind == 'evaluate' else kind}/{name}"


@dataclass(frozen=True)
class Identity:
    """Names and ids by which trackers know a run.

    Attributes:
        folder: the folder of the run, or of a stage before the last, which has a folder of its own.
        name: name of the run, followed by that of the stage if the folder is a stage's.
        group: name of the sweep that the run belongs to, or None.
        known: ids that trackers gave this run when it started, by name of the tracker.
    """

    folder: Path
    name: str
    group: str | None
    known: dict[str, str]

    def remember(self, tracker: str, number: str) -> None:
        """Stores the id that a tracker gave the run, so that a resumed run continues the same record."""
        self.known[tracker] = number
        write_json(self.folder / "trackers.json", self.known)

    def parameters(self) -> dict[str, Any]:
        """Returns the configuration as a flat dict with dotted keys such as `schedule.lr`."""
        return dict(_flat(read_json(self.run_folder / "config.json", dict) or {}))

    @property
    def run_folder(self) -> Path:
        return _run_folder(self.folder)


def identify(folder: Path) -> Identity:
    """Reads the identity of a run, or of one of its stages, from its folder."""
    whole, place = _run_folder(folder), folder.absolute()
    name = whole.absolute().name + ("" if whole == folder else f"/{place.name}")
    sweep = whole.absolute().parent
    known = read_json(folder / "trackers.json", dict) or {}
    group = sweep.name if (sweep / "multirun.yaml").is_file() else None  # Hydra writes it when a sweep starts
    return Identity(folder, name, group, {str(key): str(value) for key, value in known.items()})


def _run_folder(folder: Path) -> Path:
    """Returns the run folder, given it or the folder of one of the run's stages."""
    return folder.parent.parent if folder.parent.name == "stages" else folder


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the values of a record that are numbers, as floats."""
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a summary that trackers show: scores, multiply-adds, seconds of training."""
    found = {f"final/{name}": value for name, value in (summary.get("scores") or {}).items()}
    found |= {"final/score": summary.get("score"), "final/multiply_adds": (summary.get("cost") or {}).get("total")}
    found["final/train_seconds"] = (summary.get("seconds") or {}).get("train")
    return numbers(found)


def files(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """Returns the files of a finished run to upload, with the checkpoint that was evaluated."""
    checkpoints = ("best.pt", "last.pt") if summary.get("selected") == "best" else ("last.pt", "best.pt")
    chosen = next((name for name in checkpoints if (folder / name).is_file()), None)
    return [folder / name for name in (*FILES, chosen) if name is not None and (folder / name).is_file()]


class CSVLogger:
    """Writes `metrics.csv` of the run, a row (kind, step, name, value) for every number.

    Args:
        folder: the run folder.
        step: the step that the run continues from; rows of later steps are removed.
    """

    HEADER = ("kind", "step", "name", "value")

    def __init__(self, folder: Path, *, step: int) -> None:
        path, rows = folder / "metrics.csv", []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in list(csv.reader(file))[1:] if len(row) == 4 and int(row[1]) <= step]
        self.file = path.open("w", newline="", encoding="utf-8")
        self.table = csv.writer(self.file)
        self.table.writerows([self.HEADER, *rows])

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        self.table.writerows((kind, step, name, value) for name, value in numbers(values).items())
        self.file.flush()

    def picture(self, name: str, step: int, image: Any) -> None:
        """Ignores the image, which a CSV file cannot hold."""

    def close(self) -> None:
        self.file.close()


class MLflow:
    """Logs to an MLflow run, on the server or in the file that MLFLOW_TRACKING_URI names (else MLflow's default).

    The experiment is MLFLOW_EXPERIMENT_NAME, or `adafocus`. Runs of a sweep share the tag `sweep`, by which MLflow can
    group them. Requests time out after a few seconds, since training waits for them.

    Args:
        folder: the run folder.
        step: the step that the run continues from. MLflow cannot delete values, so values of later steps are there
            twice after an interruption.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client, self.finished = MlflowClient(), False
        about = identify(folder)
        if known := about.known.get("mlflow"):
            self.run = known
            self.client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "adafocus")
        experiment = self.client.get_experiment_by_name(name)
        number = self.client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"folder": str(folder.absolute()), **({} if about.group is None else {"sweep": about.group})}
        self.run = self.client.create_run(number, run_name=about.name, tags=tags).info.run_id
        about.remember("mlflow", self.run)
        chosen = [Param(key, str(value)[:MLFLOW_LENGTH]) for key, value in about.parameters().items()]
        for first in range(0, len(chosen), MLFLOW_BATCH):
            self.client.log_batch(self.run, params=chosen[first : first + MLFLOW_BATCH])

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        self._log({tag(kind, name): value for name, value in numbers(values).items()}, step)

    def _log(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def picture(self, name: str, step: int, image: Any) -> None:
        self.client.log_image(self.run, image, artifact_file=f"{name}/{step:08d}.png")

    def finish(self, folder: Path, summary: dict[str, Any]) -> None:
        self._log(results(summary), 0)
        for path in files(folder, summary):
            self.client.log_artifact(self.run, str(path))
        self.finished = True

    def close(self) -> None:
        self.client.set_terminated(self.run, "FINISHED" if self.finished else "KILLED")


class WandB:
    """Logs to a run of Weights & Biases; WANDB_MODE=offline keeps it in the run folder, for `wandb sync`.

    The project is WANDB_PROJECT, or `adafocus`; the runs of a sweep form a group.

    Args:
        folder: the run folder.
        step: the step that the run continues from; values of later steps are there twice after an interruption.

    Raises:
        RuntimeError: no account is logged in on this machine; wandb would ask on the terminal and block the run.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
            raise RuntimeError("nobody is logged in to wandb: type `wandb login`, or set WANDB_MODE=offline")
        about = identify(folder)
        number = about.known.get("wandb") or uuid4().hex[:8]
        self.wandb = wandb
        self.run = wandb.init(
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "adafocus"),
            name=about.name,
            group=about.group,
            id=number,
            resume="allow",
            config=about.parameters(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        about.remember("wandb", number)
        self.run.define_metric("*", step_metric="step")

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        self.run.log({"step": step, **{tag(kind, name): value for name, value in numbers(values).items()}})

    def picture(self, name: str, step: int, image: Any) -> None:
        self.run.log({"step": step, name: self.wandb.Image(image)})

    def finish(self, folder: Path, summary: dict[str, Any]) -> None:
        self.run.summary.update(results(summary))
        if (page := folder / "report.html").is_file():
            self.run.log({"report": self.wandb.Html(page.read_text(encoding="utf-8"), inject=False)})
        artifact = self.wandb.Artifact(f"run-{self.run.id}", type="model")
        for path in files(folder, summary):
            artifact.add_file(str(path), name=path.name)
        self.run.log_artifact(artifact)

    def close(self) -> None:
        self.run.finish()
