"""Tests that the stored configuration of an untrusted run folder or checkpoint is data: no part of it becomes an
argument of Hydra or an interpolation, or makes a file of its choice be read."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from adafocus import cli, config, predict
from adafocus.checkpoints import save_safetensors
from adafocus.config import naming, stored
from adafocus.config.schema import Config
from adafocus.core.errors import UserError, printable

#: Stored overrides that would load code, start jobs or read the environment; {0} is the untrusted folder.
HOSTILE = [
    "--experimental-rerun={0}/x.pickle",
    "--config-dir={0}/conf",
    "--config-path={0}/conf",
    "-cd={0}/conf",
    "-cn=evil",
    "--multirun",
    "-m",
    "--cfg=job",
    "--info",
    "--package=hydra",
    "-p=hydra",
    "+evil=x",
    "++evil=x",
    "evil=x",
    "hydra.run.dir={0}/canary",
    "hydra.searchpath=[file://{0}/conf]",
    "+hydra/launcher=joblib",
    "hydra/callbacks=boom",
    "+hydra/callbacks@hydra.callbacks=boom",
    "hydra/job_logging=default",
    "+hydra.callbacks.boom._target_=torch.utils.collect_env.run",
    "+hydra.callbacks={{boom:{{_target_:torch.utils.collect_env.run,command:'touch {0}/canary'}}}}",
    "dataset.root=${{oc.env:HOME}}",
    "dataset.root='a${{oc.env:HOME}}'",
    "schedule.lr_mults={{glance:${{oc.env:HOME}}}}",
    "dataset.mean=[0.1,'${{oc.env:HOME}}']",
    "schedule.milestones=${{run_name:a,b}}",
    "dataset=../../{0}/conf/evil/x",
    "experiment={0}/conf/evil/x",
    "dataset=[glyphs,folder]",
    "dataset={{name:x}}",
    "dataset@hydra=glyphs",
    "schedule@hydra.callbacks=x",
    "~schedule",
    "~dataset.root",
    "seed=range(0,100000)",
    "seed=1,2",
    "seed=glob(*)",
    "seed=choice(1,2)",
    "schedule.stages._target_=os.system",
    "schedule.stages={{'a b':1}}",
    "dataset.root=\x1b[31mx",
    "dataset.root='\x1b]0;title\x07'",
    "\x1b[31mseed=1",
    "dataset.root='\u202egnp.exe'",
    "dataset.root=???",
    "seed=" + "[" * 3000,
    "seed",
    "",
    "=1",
    "seed=1 dataset.root=\n",
]


@pytest.mark.parametrize("said", HOSTILE)
def test_hostile_overrides_are_refused_in_one_line(said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        stored.overrides(["patch='96'", said.format(tmp_path)], [], "FILE")
    assert str(caught.value).startswith("FILE") and printable(caught.value) == str(caught.value)


@pytest.mark.parametrize("said", [3, {"a": 1}, "seed=1", [1], [None], [["seed=1"]], [{"seed": 1}], [b"seed=1"]])
def test_what_is_no_list_of_texts_is_refused(said: object) -> None:
    with pytest.raises(UserError, match="FILE"):
        stored.overrides(said, [], "FILE")


def test_plain_overrides_are_written_anew() -> None:
    said = [
        "patch='96'",
        "patch.size=24",
        "dataset=sthv2",
        "dataset.root='/x y/it\\'s'",
        "+schedule.lr_mults={glance:2,focus:0.5}",
    ]
    said += [
        "segments=8+12",
        "experiment=null",
        "dataset.crop_scales=[1,0.5]",
        "backbone.coordinates=true",
        "method.when='spread'",
    ]
    assert stored.overrides(said, [], "FILE") == [
        "patch='96'",
        "patch.size=24",
        "dataset='sthv2'",
        "dataset.root='/x y/it\\'s'",
        "+schedule.lr_mults={glance:2,focus:0.5}",
        "segments='8+12'",
        "experiment=null",
        "dataset.crop_scales=[1,0.5]",
        "backbone.coordinates=true",
        "method.when='spread'",
    ]


def test_what_is_typed_wins_and_what_was_about_that_run_alone_stays_there() -> None:
    own = [
        "devices=2",
        "name=a",
        "loader.workers=3",
        "mode=evaluate",
        "checkpoint=/x",
        "init.from=/x",
        "init.glance=/y",
    ]
    own += ["early_exit.baseline=/x", "backbone.weights=/x.pth", "output.loggers=[]"]
    assert stored.overrides(["seed=1", "dataset.root=/x", *own], ["dataset.root"], "FILE") == ["seed=1"]


VALUES = [
    {"dataset": {"root": "${oc.env:HOME}"}},
    {"schedule": {"stages": {"a": {"b": ["${oc.env:HOME}"]}}}},
    {"schedule": {"stages": {"${oc.env:HOME}": 1}}},
    {"dataset": {"root": "\x1b[31m"}},
    {"\x1b[31m": 1},
    {"seed": "???"},
    {"seed": torch.zeros(1)},
    {"hydra": {"run": {"dir": "/x"}}},
    {"dataset": {"_target_": "os.system"}},
    "seed: 3",
    [],
    None,
    3,
]


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_a_stored_configuration_is_plain_values_of_known_keys(values: object) -> None:
    with pytest.raises(UserError) as caught:
        config.from_dict(values)
    assert printable(caught.value) == str(caught.value)


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list = []
    endless.append(endless)
    with pytest.raises(UserError, match="more than"):
        config.from_dict({"dataset": {"mean": endless}})


class Boom:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return Path.touch, (self.canary,)


def stranger(folder: Path, kind: str, said: list[str]) -> Path:
    """Makes an untrusted run folder, .pt or .safetensors file with these overrides and the files that they refer to."""
    (folder / "conf/evil").mkdir(parents=True)
    (folder / "x.pickle").write_bytes(pickle.dumps(Boom(folder / "canary")))
    boom = f"boom:\n  _target_: torch.utils.collect_env.run\n  command: touch {folder}/canary\n"
    (folder / "conf/evil/x.yaml").write_text("# @package hydra.callbacks\n" + boom)
    values = config.to_dict(Config())
    content = {"model": {"backbone.a": torch.zeros(1)}, "config": values, "overrides": said, "classes": ["a"]}
    if kind == "folder":
        (folder / "overrides.json").write_text(json.dumps(said))
        return folder
    if kind == "pt":
        torch.save(content, folder / "last.pt")
        return folder / "last.pt"
    save_safetensors(folder / "x.safetensors", content.pop("model"), content)
    return folder / "x.safetensors"


@pytest.mark.parametrize("kind", ["folder", "pt", "safetensors"])
@pytest.mark.parametrize("mode", ["evaluate", "early_exit"])
@pytest.mark.parametrize(
    "said",
    [
        ["--experimental-rerun={0}/x.pickle"],
        ["--config-dir={0}/conf", "+evil=x"],
        ["--multirun", "seed=range(0,100000)"],
        ["hydra.run.dir={0}/canary"],
        ["dataset.root=${{oc.env:HOME}}"],
    ],
    ids=lambda said: said[0][:16],
)
def test_a_stranger_runs_nothing(
    kind: str, mode: str, said: list[str], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stranger(tmp_path / "stranger", kind, [text.format(tmp_path / "stranger") for text in said])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", f"mode={mode}", f"checkpoint={path}"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and re.search("not a plain|must be plain text", error) and error.count("\n") == 1
    assert not (tmp_path / "stranger/canary").exists() and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_files_for_prediction_are_data_too(kind: str, tmp_path: Path) -> None:
    path = stranger(tmp_path / "stranger", kind, [])
    assert predict.stored_overrides(path, []) == []
    values = config.to_dict(Config())
    values["dataset"]["root"] = "${oc.env:HOME}"
    content = {"config": values, "classes": ["a"]}
    if kind == "pt":
        torch.save({"model": {}, **content}, path)
    else:
        save_safetensors(path, {"backbone.a": torch.zeros(1)}, content)
    with pytest.raises(UserError, match="must be plain text|only numbers"):
        predict.load(path)


def test_a_run_folder_for_prediction_is_data_too(tmp_path: Path) -> None:
    values = config.to_dict(Config())
    values["dataset"]["root"] = "${oc.env:HOME}"
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="must be plain text|only numbers"):
        predict.load(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[" * 100000, "\x00", "3"])
def test_damaged_overrides_are_one_line(damage: str, tmp_path: Path) -> None:
    (tmp_path / "overrides.json").write_text(damage)
    with pytest.raises(UserError, match=r"overrides\.json"):
        stored.from_folder(tmp_path, [])


def test_the_overrides_of_every_group_of_ours_are_taken(tmp_path: Path) -> None:
    """No option of the configuration groups of this package is refused when it comes from a stored file."""
    from adafocus.config.compose import conf_folder

    typed = [f"{path.parent.name}={path.stem}" for path in sorted(conf_folder().glob("*/*.yaml"))]
    said = naming.quote_numbers(typed)
    keys = [key for key, _ in map(naming.split_override, stored.overrides(said, [], "FILE"))]
    assert len(typed) > 100 and keys == [text.partition("=")[0] for text in typed]


def test_errors_hold_no_control_codes() -> None:
    assert str(UserError("a\x1b[31m\nb\u202ec\u2028")) == "a\\x1b[31m\\nb\\u202ec\\u2028"
    assert printable("Größe 日本 🙂") == "Größe 日本 🙂"


def test_words_of_the_version_before_are_translated(tmp_path: Path) -> None:
    said = ["method=recogniser", "schedule.rate=0.1", "method.where=centre", "evaluate.batch=3"]
    assert stored.overrides(said, [], "x") == [
        "method='recognizer'",
        "schedule.lr=0.1",
        "method.where='center'",
        "evaluate.batch_size=3",
    ]
