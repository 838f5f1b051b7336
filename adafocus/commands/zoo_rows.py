"""Makes the rows of the zoo from conf/published.yaml and the networks' costs, for `adafocus zoo --write`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import yaml

from adafocus import build
from adafocus.commands.published import Row
from adafocus.config.compose import compose as compose_overrides
from adafocus.config.compose import conf_folder
from adafocus.methods import method_of

_COUNTED: dict[str, tuple[float, float, int]] = {}


def rows(names: Iterable[str] | None = None) -> Iterator[Row]:
    """Yields the rows for the models in conf/published.yaml; `names` selects experiments, None means all."""
    published = yaml.safe_load((conf_folder() / "published.yaml").read_text(encoding="utf-8"))
    for name in sorted(published["models"] if names is None else names):
        home = next(project for project in published["projects"] if name.startswith(project["starts"]))
        yield from _rows(name, published["models"][name], home)


def compose(name: str, *typed: str) -> Any:
    """Composes the configuration of an experiment, without its data and weights."""
    fixed = ("dataset.root=DATA", "mode=evaluate", "checkpoint=FILE", "backbone.weights=none")
    return compose_overrides([f"experiment={name}", *fixed, *typed])


def _rows(name: str, printed: dict[str, Any], home: dict[str, str]) -> Iterator[Row]:
    plain = compose(name)
    file = printed.get("file")
    address = printed.get("address")
    if address is None and file is not None:
        address = home["address"] + (file if home["address"].endswith("/") else "")
    # An experiment of stage 1 of AdaFocus V1 starts from networks that were trained before, so it needs their files.
    start = " init.glance=GLANCE_FILE init.focus=FOCUS_FILE" if plain.stage.name == "1" else ""
    for extra in ({}, *printed.get("others", ())):
        typed = [word for word in extra.get("typed", []) if not word.startswith("mode=")]
        early = "mode=early_exit" in extra.get("typed", [])
        settings = compose(name, *typed) if typed else plain
        classes = settings.dataset.classes
        _, needed, parameters = _count(settings, classes)
        mode = "early_exit" if early else "evaluate"
        yield Row(
            experiment=name,
            file=file,
            dataset=settings.dataset.name,
            patch=settings.patch.size if method_of(settings).has_glance else None,
            frames=_frames(settings),
            views=build.views(_without_flip(settings), [])[0].views,
            metric={"map": "mAP", "top1": "top-1"}[settings.dataset.metric],
            score=extra.get("score", printed["score"]),
            published=(extra or printed).get("gflops"),
            counted=_count(settings, printed.get("classes") or classes)[0],
            needed=needed,
            digits=not (printed.get("read_off") or early),
            parameters=parameters,
            evaluate=" ".join(
                [f"python run.py mode={mode} experiment={name} checkpoint=FILE dataset.root=DATA", *typed]
            ),
            train=f"python run.py experiment={name} dataset.root=DATA{start}",
            source=extra.get("source", printed.get("source") or ""),
            note=", ".join(filter(None, ["early exit" if early else "", extra.get("note", printed.get("note")) or ""])),
            address=address,
            readme=home["readme"],
        )


def _frames(settings: Any) -> str:
    """Formats the numbers of frames of a test clip as "glance+focus of candidates"."""
    plan = build.frame_plan(replace(settings, mode="evaluate"))
    frames = str(settings.protocol.segments or plan.glance)
    if plan.focus:
        frames += f"+{plan.focus}"
    return frames + (f" of {plan.candidates}" if plan.candidates else "")


def _without_flip(settings: Any) -> Any:
    """Returns the configuration without flip pairs, which would need class names."""
    return replace(settings, dataset=replace(settings.dataset, flip=0.0))


def _count(settings: Any, classes: int) -> tuple[float, float, int]:
    """Returns counted and needed multiply-adds per clip in units of 1e9, and the number of parameters; cached."""
    same = (settings.method, settings.backbone, settings.segments, settings.patch, settings.protocol.segments)
    key = repr((same, settings.dataset.frame_size, settings.dataset.modality, classes))
    if key not in _COUNTED:
        cost = build.cost(settings, classes)
        parameters = sum(parameter.numel() for parameter in build.meta_model(settings, classes).parameters())
        _COUNTED[key] = (cost.published / 1e9, cost.total / 1e9, parameters)
    return _COUNTED[key]
