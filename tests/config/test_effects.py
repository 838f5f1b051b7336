"""Tests that a typed option takes effect or is refused (stages, widths, keys that nothing reads, misspelled words),
and that runs of older versions continue."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from helpers.configs import composed

from adafocus import cli, config
from adafocus.config import effects, naming, renamed
from adafocus.core.domains import AtLeast, OneOf
from adafocus.core.errors import UserError
from adafocus.methods import METHODS
from adafocus.methods.options import Options

V1 = "method=adafocus_v1"


def test_a_typed_value_that_equals_a_default_wins_over_the_stages() -> None:
    typed = ("dataset=sthv2", V1, "dataset.root=/data", "schedule.optimizer=sgd", "schedule.weight_decay=1e-4")
    settings = composed(*typed)
    schedules = [config.for_stage(settings, name).schedule for name in config.stages(settings)]
    assert {(schedule.optimizer, schedule.weight_decay) for schedule in schedules} == {("sgd", 1e-4)}
    again = config.from_dict(config.to_dict(settings))  # config.json alone determines the configuration
    assert config.for_stage(again, "2").schedule.optimizer == "sgd"
    untyped = composed(*typed[:3])
    assert config.for_stage(untyped, "2").schedule.optimizer == "adamw"


def test_what_is_said_about_one_stage_wins_over_what_is_said_about_all() -> None:
    settings = composed(V1, "schedule.epochs=3", "schedule.stages.2.epochs=5")
    assert [config.for_stage(settings, name).schedule.epochs for name in ("1", "2", "3")] == [3, 5, 3]


def test_single_multiples_of_a_stage_change_alone() -> None:
    settings = composed("dataset=actnet", V1, "dataset.root=/data", "+schedule.lr_mults.focus=2")
    assert config.for_stage(settings, "1").schedule.lr_mults == {"focus": 2.0, "classifier": 100.0}


def test_debug_recipes_hold_in_every_stage() -> None:
    settings = composed(V1, "debug=overfit")
    for name in config.stages(settings):
        schedule = config.for_stage(settings, name).schedule
        assert (schedule.epochs, schedule.batch_size, schedule.dropout) == (100, 8, 0.0)


@pytest.mark.parametrize(
    ("typed", "widths"),
    [
        ((), (2048, 4096)),
        (("backbone=mbv2_r50_tsm",), (1024, None)),
        (("backbone=mbv2_r50_tsm", "backbone.policy_hidden=1536"), (1536, None)),
        ((V1,), (1024, 1024)),
        ((V1, "backbone.classifier_width=2048"), (1024, 2048)),
        (("method=uni_adafocus",), (None, 4096)),
    ],
)
def test_widths_are_the_methods_own_or_what_is_typed(typed: tuple[str, ...], widths: tuple) -> None:
    settings = composed("dataset=actnet", "dataset.root=/data", "mode=cost", *typed)
    assert (settings.backbone.policy_hidden, settings.backbone.classifier_width) == widths


def test_a_typed_width_is_built() -> None:
    import torch

    from adafocus import build

    settings = composed("dataset=sthv2", "dataset.root=/data", "patch=128", "backbone.policy_hidden=1536")
    with torch.device("meta"):
        network = build.model(settings, 174, weights=False)
    assert any(1536 in parameter.shape for parameter in network.policy.parameters())


def refused(*typed: str) -> str:
    settings = composed(*typed)
    with pytest.raises(UserError) as error:
        effects.check(settings, [naming.key_of(word) for word in typed])
    return str(error.value)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("dataset.root=X",), "dataset.root needs dataset=folder"),
        (("protocol=tsm_10crop",), "protocol needs a data set of files"),
        (("policy.grid=5",), "policy.grid needs method=adafocus_v1 on plain backbones"),
        (("method=recognizer", "backbone.glance=tiny_glance"), "backbone.glance needs a method with a glance network"),
        (("method=recognizer", "patch=32"), "patch needs a method that chooses patches"),
        (("schedule.milestones=[3]",), "schedule.milestones needs schedule.lr_schedule=step"),
        (("schedule.momentum=0.5",), "schedule.momentum needs schedule.optimizer=sgd"),
        (("early_exit.budgets=[1]",), "early_exit.budgets needs mode=early_exit"),
        (("dataset=folder", "dataset.root=.", "dataset.task=when"), "dataset.task needs dataset=glyphs"),
        (("backbone=tiny_tsm", "backbone.classifier_width=99"), "backbone.classifier_width needs"),
        (("method.when=spread",), "method.when needs method=uni_adafocus"),
        (("policy.peaks=2",), "policy.peaks needs policy=heatmap"),
        (("method=uni_adafocus", "policy=two"), "policy needs method=adafocus_v2"),
        (("dataset.randaugment_ops=2",), "dataset.randaugment_ops needs RGB videos of files"),
        (("schedule.class_weights=balanced",), "schedule.class_weights needs a data set of files"),
        (("teacher.weight=2",), "teacher.weight needs teacher=RUN_OR_FILE"),
        (("teacher=x", "mode=evaluate", "checkpoint=y"), "teacher.checkpoint needs mode=train"),
        ((V1, "stage=2", "init.from=none", "teacher=x"), "teacher.checkpoint needs mode=train and a stage that learns"),
        ((V1, "stage=2", "init.from=none", "schedule.mixup_alpha=1"), "schedule.mixup_alpha needs a stage that learns"),
        ((V1, "stage=3", "init.from=none", "schedule.layer_decay=0.5"), "schedule.layer_decay needs a stage that"),
    ],
)
def test_typed_keys_that_nothing_reads_are_refused(typed: tuple[str, ...], says: str) -> None:
    assert says in refused(*typed)


def test_keys_that_are_read_are_not_refused() -> None:
    for typed in (
        ("patch=24", "segments=8", "schedule.epochs=3", "schedule.lr_mults.policy=0.5", "evaluate.controls=false"),
        ("policy=value", "policy.cells=8", "backbone.policy_hidden=16"),
        ("backbone=tiny_tsm", "policy=two", "backbone.glance_size=32"),
        (V1, "policy.grid=5", "policy.gamma=0.5", "schedule.dropout=0.1"),
        ("experiment=glyphs_when", "seed=3"),
        ("dataset=folder", "dataset.root=.", "dataset.reader=pyav", "protocol=single"),
        ("dataset=folder", "dataset.root=.", "dataset.randaugment_ops=2", "dataset.randaugment_magnitude=5"),
        (V1, "teacher=x", "teacher.temperature=3", "schedule.label_smoothing=0.1", "schedule.layer_decay=0.8"),
    ):
        effects.check(composed(*typed), [naming.key_of(word) for word in typed])


def test_every_key_of_the_rules_exists() -> None:
    from adafocus.config.schema import GROUPS, Config
    from adafocus.core import domains

    known = {*domains.leaves(Config), *GROUPS, "early_exit", "teacher"}
    assert {key for readers in effects.READERS for key in readers.keys} <= known


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("lr=0.1", "did you mean schedule.lr?"),
        ("+lr=0.1", "lr is not a key"),
        ("epochs=3", "did you mean schedule.epochs?"),
        ("batch_size=3", "did you mean schedule.batch_size?"),
        ("optimizer=sgd", "did you mean schedule.optimizer?"),
        ("center=1", "did you mean method.where=center?"),
        ("num_workers=1", "did you mean loader.workers?"),
        ("schedule.rate=1", "schedule.rate is now schedule.lr"),
        ("evaluate.batch=1", "evaluate.batch is now evaluate.batch_size"),
        ("patch.sise=3", "did you mean patch.size?"),
        ("method=recogniser", "did you mean recognizer?"),
        ("method.where=centre", "did you mean center?"),
        ("experiment=glyphs_wen", "did you mean glyphs_when?"),
        ("experiment=[glyphs_when,glyphs_wen]", "did you mean glyphs_when?"),
        ("debug=step", "did you mean steps?"),
        ("+init.form=a", "init.form is not a key"),
        ("patch=0", "patch=0 is no option"),
    ],
)
def test_what_is_misspelt_is_an_error_that_says_what_was_meant(typed: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        composed(typed)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert "patch.size=0" not in str(error.value)


def test_a_sweep_over_a_misspelt_experiment_starts_no_job(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("adafocus.runs.sweep.launch", lambda *_: pytest.fail("a process was started"))
    assert cli.run(["-m", "experiment=glyphs_when,glyphs_wen"]) == 2
    assert "did you mean glyphs_when?" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "says"), [("1", "init.glance=FILE"), ("2", "stage 1"), ("3", "stage 2")])
def test_stages_of_v1_ask_for_the_weights_they_start_from(stage: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        composed(V1, f"stage={stage}")
    assert composed(V1, f"stage={stage}", "init.from=none").start() is None
    assert composed(V1, "stage=1", "init.glance=a", "init.focus=b").start("glance") == "a"
    assert composed(V1, f"stage={stage}", "mode=evaluate", "checkpoint=x").stage.name == stage


OLD = {new.partition(".")[2]: old.partition(".")[2] for old, new in renamed.KEYS.items() if new.startswith("schedule")}


def older(values: dict) -> dict:
    """The configuration under the key names that version 0.1 wrote."""
    values = copy.deepcopy(values)
    tables = [values["schedule"], *values["schedule"]["stages"].values()]
    for table in tables:
        for key in list(table):
            table[OLD.get(key, key)] = table.pop(key)
    values["evaluate"]["batch"] = values["evaluate"].pop("batch_size")
    values["init"] = {"from": values["init"]["from"]}
    values["method"]["name"] = values["method"]["name"].replace("recognizer", "recogniser")
    values["method"]["where"] = values["method"]["where"].replace("center", "centre")
    for key, default in (("policy_hidden", 2048), ("classifier_width", 4096)):
        if values["backbone"][key] in (None, 1024):  # defaults that version 0.1 wrote
            values["backbone"][key] = default
    return values


@pytest.mark.parametrize(
    "typed",
    [
        (),
        ("method=recognizer",),
        ("method.where=center",),
        (V1, "schedule.epochs=7"),
        ("dataset=actnet", V1, "dataset.root=/data"),
        ("dataset=sthv2", "dataset.root=/data", "patch=128"),
        ("dataset=actnet", "method=uni_adafocus", "dataset.root=/data"),
        ("dataset=sthv1", "method=uni_adafocus", "dataset.root=/data"),
        ("experiment=tsm_kinetics400_8f", "dataset.root=/data"),
    ],
)
def test_a_run_of_the_version_before_is_the_same_run(typed: tuple[str, ...]) -> None:
    values = config.to_dict(composed(*typed))
    assert config.stored_identity(older(values)) == config.identity(values)


def test_a_stored_file_of_the_version_before_is_the_same_run() -> None:
    """tests/golden/config_before_renaming.json was written by commit 85f4ecc for `method=recogniser seed=3`."""
    import json

    stored = json.loads((Path(__file__).parents[1] / "golden/config_before_renaming.json").read_text())
    assert config.stored_identity(stored) == config.identity(config.to_dict(composed("method=recognizer", "seed=3")))


def test_a_tsm_run_of_the_version_before_keeps_whole_glance_frames() -> None:
    values = config.to_dict(composed("backbone=tiny_tsm"))
    assert values["backbone"]["glance_size"] == 24  # version 0.1 stored this value too, and did not read it
    assert config.from_dict(older(values)).backbone.glance_size is None
    assert config.from_dict(values).backbone.glance_size == 24


def test_what_nothing_reads_makes_no_other_run() -> None:
    """Version 0.1 accepted a patch for a recognizer and ignored it. Today it is refused, and such a run continues
    without it."""
    now = composed("method=recognizer")
    values, unread = config.to_dict(now), effects.unread(now)
    stored = older({**values, "patch": {**values["patch"], "size": 24}})
    assert config.stored_identity(stored, unread) == config.identity(values, unread)
    assert config.stored_identity(stored) != config.identity(values)
    assert {"patch", "schedule.cosine_epochs"} & effects.unread(composed()) == set()


@dataclass
class Depth(Options):
    depth: Annotated[int, AtLeast(1)] = 2
    rule: Annotated[str, OneOf(("mean", "sum"))] = "mean"


class DeepMethod(METHODS["adafocus_v2"]):
    name = "deep"

    @property
    def options(self) -> frozenset[type[Options]]:
        return super().options | {Depth}


def test_options_of_a_plugins_method_are_checked_like_ours(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "deep", DeepMethod)
    typed = ("method.name=deep", "+method.options.depth=3")
    settings = composed(*typed)
    assert settings.method.options == {"depth": 3, "rule": "mean"}
    assert METHODS["deep"](settings).read(Depth) == Depth(3)
    effects.check(settings, ["method.options.depth"])
    assert config.from_dict(config.to_dict(settings)) == settings
    for wrong, says in (
        ("+method.options.depth=0", "method.options.depth=0 must be at least 1"),
        ("+method.options.depth=x", "method.options.depth: Value 'x'"),
        ("+method.options.rule=maen", "method.options.rule='maen' is unknown; choose one of mean, sum; did you mean"),
        (
            "+method.options.dept=3",
            "dept is not a key of the configuration; did you mean method.options.depth?",
        ),
    ):
        with pytest.raises(UserError) as error:
            composed("method.name=deep", wrong)
        assert says in str(error.value) and "\n" not in str(error.value)


def test_methods_of_ours_have_no_options_of_a_plugin() -> None:
    with pytest.raises(UserError, match="method.options.depth is not a key"):
        composed("+method.options.depth=3")


def test_every_option_of_a_method_is_in_a_section() -> None:
    """A class of options that is in no section of the schema could not be set."""
    from adafocus.config import schema

    sections = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, Options)]
    for typed in ((), (V1,), ("backbone=tiny_tsm",), (V1, "backbone=tiny_tsm"), ("method=uni_adafocus",)):
        settings = composed(*typed)
        for kind in METHODS[settings.method.name](settings).options:
            assert any(issubclass(section, kind) for section in sections), kind
