"""Does the learned place beat whole frames of equal cost? One set of videos, several seeds, one table with intervals.

    python examples/evidence.py table_tennis FOLDER WEIGHTS --seeds 5 --epochs 15 --out evidence

FOLDER is the data set (see `SETS` for the lists that it must hold), WEIGHTS a file with ImageNet weights of MobileNetV2
as torchvision names them. All networks have this backbone, the temporal shift, the same clips, epochs and optimizer.
Every row is a run of its own in OUT/SET, which is continued if it was interrupted and reused if it is finished; if one
fails, the others go on. What the runs print is in OUT/SET/logs. The table, `evidence.md` and `evidence.json`, is
written again after every run. Intervals (95 %) are from a bootstrap over videos and seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adafocus.evaluation.bootstrap import Interval, bootstrap
from adafocus.runs.arena import processes
from adafocus.runs.arena.processes import Step
from adafocus.runs.predictions import read_predictions
from adafocus.runs.table import multiply_adds


@dataclass(frozen=True)
class Videos:
    """How a set is trained.

    Attributes:
        frame: side of the frames that patches are cut from.
        patch, glance: sides of the patches and of the frames that the glance network sees.
        equal: side of whole frames that cost about as many multiply-adds as glance and patches together.
        large: side of larger whole frames, at about three times that cost.
        paper_patch: side of the single patch of the papers' policy.
        policy: the policy that is compared with the papers'.
        epochs: number of epochs.
        options: overrides of all rows: lists, augmentation.
        batch: clips of a step.
    """

    frame: int
    patch: int
    glance: int
    equal: int
    large: int
    paper_patch: int
    policy: str
    epochs: int = 15
    options: tuple[str, ...] = ()
    batch: int = 8


SETS = {
    "table_tennis": Videos(
        *(448, 80, 64, 144, 256, 112, "two"),
        options=(
            "dataset.train_list=train_4class.txt",
            "dataset.val_list=val_4class.txt",
            "dataset.class_file=classes_4class.txt",
            "dataset.flip=0.5",
            "dataset.flip_pairs=[[left_backhand,right_backhand],[left_forehand,right_forehand]]",
        ),
    ),
    "yoga": Videos(192, 64, 64, 96, 160, 64, "motion", options=("dataset.flip=0.5",)),
    "gestures": Videos(192, 64, 64, 96, 160, 64, "motion", 8, options=("dataset.flip=0.0",)),
    "surv_fight": Videos(192, 64, 64, 96, 160, 64, "motion", 6, options=("dataset.flip=0.5",)),
}
SEGMENTS = 8
#: The row that the others are compared with: whole frames of about equal multiply-adds.
REFERENCE = "whole_change"
#: The first seven blocks of both networks keep their ImageNet weights, which saves time.
FROZEN = "(glance_net|focus_net|backbone).layers.[0-6][.]"


@dataclass
class Result:
    """A row of the table: for each seed which evaluation videos were right, and the cost of a video."""

    cost: int
    right: list[np.ndarray] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("folder", type=Path, help="folder of the data set")
    parser.add_argument("weights", type=Path, help="ImageNet weights of MobileNetV2, torchvision's names")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--first", type=int, default=0, help="the first seed to train")
    parser.add_argument("--epochs", type=int, help="default: those of the set")
    parser.add_argument("--rows", nargs="+", choices=networks(SETS["yoga"]), help="only these networks (default: all)")
    parser.add_argument("--out", type=Path, default=Path("evidence"))
    parser.add_argument("--jobs", type=int, default=1, help="number of runs beside each other")
    parser.add_argument("--more", nargs="+", default=[], help="further overrides of all runs, such as loader.workers=0")
    options = parser.parse_args()
    videos, out = SETS[options.set], options.out / options.set
    options.epochs = options.epochs or videos.epochs
    chosen = {name: own for name, own in networks(videos).items() if not options.rows or name in options.rows}
    shared = common(options.folder.absolute(), options.weights.absolute(), videos, options.epochs)
    seeds = range(options.first, options.first + options.seeds)
    steps = [  # seed by seed, so that every row has some when it is interrupted
        Step((out / f"{name}_seed{seed}").absolute(), (*shared, *own, *options.more, f"seed={seed}"))
        for seed in seeds
        for name, own in chosen.items()
    ]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    failed = processes.run(
        steps, jobs=options.jobs, say=say, ended=lambda: write(options, table(out, chosen, seeds.stop))
    )
    if failed:
        sys.exit(f"failed: {', '.join(step.folder.name for step in failed)}; the same command tries them again")


def common(folder: Path, weights: Path, videos: Videos, epochs: int) -> list[str]:
    """Overrides of all rows."""
    return [
        *("dataset=folder", f"dataset.root={folder}", "dataset.fit=stretch", "dataset.crop_scales=[1.0,0.9]"),
        *("backbone=mbv2_tsm", f"backbone.weights={weights}", f"segments={SEGMENTS}"),
        *videos.options,
        *(f"schedule.epochs={epochs}", "schedule.lr=0.0005", "schedule.weight_decay=0.01", "schedule.head_dropout=0.5"),
        *(
            f"schedule.batch_size={videos.batch}",
            f"schedule.base_batch_size={videos.batch}",
            "schedule.clip_grad_norm=5",
        ),
        *("schedule.warmup_epochs=2", f"schedule.evaluate_every={epochs}", f"schedule.frozen='{FROZEN}'"),
        *("channels_last=true", "output.loggers=[]"),
    ]


def networks(videos: Videos) -> dict[str, list[str]]:
    """Overrides of every trained network by its name."""
    patches = [f"dataset.frame_size={videos.frame}", f"patch.size={videos.patch}", f"segments.focus={SEGMENTS}"]
    patches += [f"backbone.glance_size={videos.glance}", "backbone.glance_resize=area", "method=adafocus_v2"]
    patches.append(f"dataset.decode_short_side={videos.frame}")
    change = "method.consensus=change"
    new = [*patches, f"policy={videos.policy}", "policy.cells=32", change]
    values = ["policy.learned=true", "policy.through_crop=false", "policy.places_weight=1"]

    def whole(side: int) -> list[str]:
        return ["method=recognizer", f"dataset.frame_size={side}", f"dataset.decode_short_side={2 * side}"]

    return {
        "whole": whole(videos.equal),
        "whole_change": [*whole(videos.equal), change],
        "motion": [*new, "method.diversity=false"],
        "crop": [*new, "policy.learned=true", "schedule.lr_mults.policy=5", "method.diversity=false"],
        "value": [*new, *values],
        "paper": [*patches, f"patch.size={videos.paper_patch}"],
        "paper_change": [*patches, f"patch.size={videos.paper_patch}", change],
        "uni": [*patches, "method=uni_adafocus", f"patch.smallest={videos.patch // 2}"],
        "whole_large": [*whole(videos.large), change],
    }


def table(out: Path, chosen: dict[str, Any], seeds: int) -> dict[str, Result]:
    """The results of all finished runs by row."""
    found: dict[str, Result] = {}
    for name in chosen:
        for seed in range(seeds):
            folder = out / f"{name}_seed{seed}"
            if not (folder / "summary.json").is_file():
                continue
            rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rows"]
            guesses = read_predictions(folder)
            for place, row in enumerate(rows):
                right = [
                    guess.controls.get(row["name"]) == guess.labels[0] if place else guess.right for guess in guesses
                ]
                found.setdefault(f"{name}: {row['name']}", Result(row["cost"])).right.append(np.array(right))
    return found


def write(options: argparse.Namespace, found: dict[str, Result]) -> None:
    """Writes evidence.md and evidence.json."""
    folder = options.out / options.set
    reference = found.get(f"{REFERENCE}: whole frames")
    lines = [
        f"| {options.set} | seeds | top-1 % (95 %) | less whole frames of equal cost | multiply-adds |",
        "|---|---|---|---|---|",
    ]
    rows, notes = [], [""]
    for name, result in found.items():
        right = np.stack(result.right)
        score = bootstrap(right)
        ahead = None if reference is None or name.startswith(REFERENCE) else bootstrap(right, np.stack(reference.right))
        lines.append(f"| {name} | {len(right)} | {_text(score)} | {_text(ahead)} | {multiply_adds(result.cost)} |")
        seeds = [100 * float(seed.mean()) for seed in right]
        rows.append({"name": name, "seeds": seeds, "score": score._asdict(), "cost": result.cost})
        rows[-1]["ahead"] = None if ahead is None else ahead._asdict()
        constant = found.get(f"{name.partition(':')[0]}: constant patch")
        if constant is not None and name.endswith(("learned patch", "motion patch")):
            better = bootstrap(right, np.stack(constant.right))
            rows[-1]["less_constant"] = better._asdict()
            notes.append(f"{name}, less the constant patch: {_text(better)}")
    (folder / "evidence.md").write_text("\n".join(lines + notes) + "\n", encoding="utf-8")
    described = {"set": options.set, "epochs": options.epochs, "seeds": options.seeds, "rows": rows}
    (folder / "evidence.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines + notes), flush=True)


def _text(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.mean:.1f} ({interval.low:.1f} to {interval.high:.1f})"


if __name__ == "__main__":
    main()
