"""Tests that every option of the configuration groups composes, and that the recipes are those of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.configs import CONF, composed

from adafocus import build, config
from adafocus.commands import zoo

ROOT = Path(__file__).resolve().parents[2]
PAIRS = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))


@pytest.mark.parametrize("pair", PAIRS)
def test_every_recipe_composes_and_builds(pair: str) -> None:
    import torch

    dataset = pair.rsplit("_", 1)[1]
    method = pair.rsplit("_", 1)[0]
    typed = (f"dataset={dataset}", f"method={method}", "dataset.root=/data", "backbone.weights=none", "init.from=file")
    settings = composed(*typed)
    with torch.device("meta"):
        network = build.model(settings, settings.dataset.classes or 5)
    assert build.stage(settings, network).param_groups()


@pytest.mark.parametrize("group", ["backbone", "patch", "segments"])
def test_every_option_composes(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        settings = composed("dataset=actnet", "method=recognizer", "dataset.root=/data", f"{group}={path.stem}")
        assert getattr(settings, group) is not None


@pytest.mark.parametrize(
    ("dataset", "rate", "batch", "classes"),
    [("actnet", 0.002, 32, 200), ("fcvid", 0.002, 32, 239), ("minik", 0.003, 48, 200)],
)
def test_recipes_of_adafocus_v2(dataset: str, rate: float, batch: int, classes: int) -> None:
    """The learning rates of AdaFocus V2 on ActivityNet, from the options in the README of LeapLabTHU/AdaFocusV2."""
    settings = composed(f"dataset={dataset}", "dataset.root=/data", "patch=96")
    schedule = settings.schedule
    assert (schedule.lr, schedule.batch_size, schedule.base_batch_size) == (rate, batch, batch)
    assert schedule.lr_mults == {"policy": 0.1, "glance": 0.5, "focus": 1.0, "classifier": 5.0}
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay, schedule.clip_grad_norm) == (
        "sgd",
        0.9,
        1e-4,
        None,
    )
    assert (schedule.lr_schedule, schedule.step_per_epoch, schedule.epochs, schedule.cosine_epochs) == (
        "cosine",
        True,
        51,
        50,
    )
    assert (schedule.dropout, schedule.head_dropout, schedule.warmup_epochs) == (0.2, 0.2, 0.0)
    assert (settings.segments.glance, settings.patch.size, settings.dataset.frame_size) == (16, 96, 224)
    assert (settings.backbone.policy_hidden, settings.backbone.classifier_width) == (2048, 4096)
    assert (settings.backbone.glance, settings.backbone.focus) == ("mobilenet_v2", "resnet50")
    assert settings.dataset.classes == classes and settings.dataset.flip == 0.5 and settings.dataset.min_frames == 3
    assert settings.dataset.metric == ("top1" if dataset == "minik" else "map")
    loop = build.settings(settings, 10 * batch)
    evaluated = [e for e in range(51) if e % loop.evaluate_every == 0 or e >= 51 - loop.evaluate_last]
    assert evaluated == [*range(0, 41, 5), *range(41, 51)]
    assert loop.rates[-1] == 0 and loop.rates[0] == pytest.approx(rate)


def test_the_choices_of_a_dataset_give_way_to_what_is_typed() -> None:
    settings = composed("dataset=actnet", "dataset.root=/data", "backbone=r50_r50", "patch=160", "segments=8")
    assert (settings.backbone.glance, settings.backbone.glance_size, settings.patch.size) == ("resnet50", 96, 160)
    assert settings.segments.glance == 8


def test_a_configuration_survives_its_file() -> None:
    import json

    settings = composed("schedule.epochs=3")
    values = config.to_dict(settings)
    assert config.to_dict(config.from_dict(json.loads(json.dumps(values)))) == values


def test_what_makes_a_run_the_same_run() -> None:
    one, two = (
        config.identity(config.to_dict(composed(*typed))) for typed in ((), ("devices=2", "loader.workers=0", "name=x"))
    )
    assert one == two != config.identity(config.to_dict(composed("seed=1")))


def test_rate_follows_the_batch_and_says_so() -> None:
    settings = composed(
        "dataset=actnet", "dataset.root=/data", "schedule.batch_size=8", "devices=2", "schedule.accumulation_steps=2"
    )
    assert build.settings(settings, 80).rates[0] == pytest.approx(0.0005)
    line = build.rate_line(settings)
    assert "batch 8 = 2 device(s) x 2 clips x 2 accumulation" in line and "rate 0.002 at 32 -> 0.0005 at 8" in line


#: Data set -> learning rate, batch size, weight decay, dropout, head dropout, weight of the size loss, limit of the
#: gradient norm, precision, learning-rate multipliers, probability of a horizontal flip; from the README of
#: LeapLabTHU/Uni-AdaFocus.
UNI_LONG = {"temporal": 0.2, "spatial": 0.2, "glance": 0.5, "focus": 1.0, "classifier": 20.0}
UNI_SHORT = {"temporal": 0.2, "spatial": 0.2, "glance": 0.5, "focus": 1.0}
UNI = {
    "actnet": (0.002, 32, 2e-4, 0.2, 0.2, 1.0, None, "fp32", UNI_LONG, 0.5),
    "fcvid": (0.004, 64, 1e-4, 0.2, 0.2, 1.0, None, "fp16", UNI_LONG, 0.5),
    "minik": (0.003, 48, 1e-4, 0.2, 0.1, 0.75, None, "fp16", UNI_LONG, 0.5),
    "sthv1": (0.02, 64, 1e-3, 0.0, 0.5, 0.5, 20.0, "fp16", UNI_SHORT, 0.0),
    "sthv2": (0.02, 64, 5e-4, 0.0, 0.5, 0.5, 20.0, "fp16", UNI_SHORT, 0.0),
    "jester": (0.02, 64, 1e-3, 0.0, 0.5, 0.25, 20.0, "fp16", UNI_SHORT, 0.0),
}
UNI_ROWS = sorted(path.stem for path in (CONF / "experiment").glob("uni_adafocus_*.yaml"))


def test_every_row_of_uni_adafocus_is_there() -> None:
    short = {f"sthv{v}_p{p}_8and{f}" for v in (1, 2) for p, f in ((96, 8), (96, 12), (128, 12), (128, 16))}
    rows = {*short, "jester_p128_8and12", "actnet_p96", "actnet_p128", "actnet_p160", "fcvid_p128", "minik_p128"}
    assert set(UNI_ROWS) == {f"uni_adafocus_{row}" for row in rows}


@pytest.mark.parametrize("experiment", UNI_ROWS)
def test_rows_of_uni_adafocus(experiment: str) -> None:
    """Each experiment equals its short command line, has the published recipe, and costs what the README prints."""
    import torch

    from adafocus.evaluation.cost import count

    dataset, patch, *frames = experiment.removeprefix("uni_adafocus_").split("_")
    settings = composed(f"experiment={experiment}", "dataset.root=/data")
    segments = frames[0].replace("and", "+") if frames else "16+16"
    typed = (f"dataset={dataset}", "method=uni_adafocus", f"patch={patch[1:]}", f"segments={segments}")
    short = composed(*typed, "dataset.root=/data")
    assert config.to_dict(short) == config.to_dict(settings)
    rate, batch, decay, dropout, head, size, clip, precision, rates, flip = UNI[dataset]
    schedule = settings.schedule
    assert (schedule.lr, schedule.batch_size, schedule.base_batch_size, schedule.weight_decay) == (
        rate,
        batch,
        batch,
        decay,
    )
    assert (schedule.dropout, schedule.head_dropout, schedule.size_weight, schedule.kl_weight) == (
        dropout,
        head,
        size,
        0,
    )
    assert (schedule.clip_grad_norm, schedule.precision, schedule.lr_mults) == (clip, precision, rates)
    assert (schedule.optimizer, schedule.momentum, schedule.lr_schedule, schedule.step_per_epoch) == (
        "sgd",
        0.9,
        "cosine",
        True,
    )
    assert (schedule.epochs, schedule.cosine_epochs, schedule.warmup_epochs, schedule.select) == (50, 50, 0, "best")
    assert settings.dataset.flip == flip and settings.policy.temperature == 1.0
    assert (settings.backbone.spatial_hidden, settings.backbone.temporal_hidden) == (128, 64)
    glance, focus = map(int, segments.split("+"))
    assert (settings.segments.glance, build.frame_plan(settings).focus, build.frame_plan(settings).candidates) == (
        glance,
        focus,
        3 * focus,
    )
    test, _ = build.views(settings, ["a"])
    assert (test.training_rule, test.evaluation_rule, test.views) == ("fractional", "fractional", 1)
    assert test.sets == ((3 * focus,) if glance == 16 else (glance, 3 * focus))
    with torch.device("meta"):  # the README prints the cost of 174 classes for Jester, and of 200 classes for FCVID
        network = build.model(
            settings, {"jester": 174, "fcvid": 200}.get(dataset, settings.dataset.classes), weights=False
        )
    cost = count(network, build.frame_plan(settings).clip, 224)
    printed = next(row.published for row in zoo.read() if row.experiment == experiment)
    assert f"{cost.published / 1e9:.1f}" == f"{printed:.1f}"


def test_configurations_of_older_runs_with_published_figures_still_read() -> None:
    settings = composed("dataset=glyphs")
    older = {**config.to_dict(settings), "published": {"score": 1.0, "others": []}}
    assert config.from_dict(older) == settings
    assert config.stored_identity(older) == config.identity(config.to_dict(settings))


def test_an_experiment_gives_way_to_what_is_typed() -> None:
    settings = composed("experiment=adafocus_v2_actnet_p96_res50", "patch=128", "dataset.root=/data")
    assert (settings.patch.size, settings.backbone.glance) == (128, "resnet50")


@pytest.mark.parametrize("name", ["steps", "overfit"])
def test_debug_recipes_compose(name: str) -> None:
    assert composed(f"debug={name}").dataset.limit
    assert composed(f"debug={name}", "dataset=folder", "dataset.root=/data").schedule.batch_size == 8


@pytest.mark.parametrize("dataset", ["sthv1", "sthv2", "jester"])
def test_recipes_of_adafocus_v2_on_tsm(dataset: str) -> None:
    """`dataset=sthv2 patch=128` composes the recipe in README and main.py of LeapLabTHU/AdaFocusV2
    (Something-Something)."""
    settings = composed(f"dataset={dataset}", "dataset.root=/data", "patch=128")
    schedule = settings.schedule
    assert (schedule.lr, schedule.batch_size, schedule.base_batch_size, schedule.clip_grad_norm) == (0.01, 32, 32, 20.0)
    assert schedule.lr_mults == {"policy": 0.01, "glance": 0.5, "focus": 1.0}
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (schedule.lr_schedule, schedule.step_per_epoch, schedule.epochs, schedule.cosine_epochs) == (
        "cosine",
        True,
        50,
        50,
    )
    assert (schedule.head_dropout, schedule.evaluate_every, schedule.select) == (0.5, 1, "best")
    assert (settings.segments.glance, build.frame_plan(settings).focus, settings.patch.size) == (8, 12, 128)
    assert (settings.dataset.flip, settings.dataset.short_videos, settings.protocol.name) == (
        0.0,
        "first_frame",
        "single",
    )


@pytest.mark.parametrize(
    ("dataset", "stage", "expected"),
    [
        ("actnet", "glance", ("sgd", 0.01, {}, "cosine", 16, 15, 64, 1e-4, 0.0)),
        ("actnet", "focus", ("sgd", 0.01, {}, "cosine", 16, 15, 64, 1e-4, 0.0)),
        ("actnet", "1", ("sgd", 5e-4, {"focus": 1.0, "classifier": 100.0}, "cosine", 51, 50, 64, 1e-4, 0.8)),
        ("actnet", "2", ("adamw", 3e-4, {}, "constant", 51, None, 64, 0.0, 0.0)),
        ("minik", "3", ("sgd", 0.005, {}, "cosine", 11, 10, 64, 1e-4, 0.8)),
        ("sthv1", "1", ("sgd", 1e-5, {"focus": 1.0, "classifier": 1000.0}, "cosine", 11, 10, 64, 1e-4, 0.5)),
        ("sthv2", "2", ("adamw", 3e-4, {}, "constant", 51, None, 64, 0.0, 0.0)),
        ("sthv2", "3", ("sgd", 5e-4, {}, "cosine", 11, 10, 32, 1e-4, 0.0)),
    ],
)
def test_stages_of_adafocus_v1(dataset: str, stage: str, expected: tuple) -> None:
    """Stages have the recipes of blackfeather-wang/AdaFocus; on Something-Something with the learning rates of the
    paper, most of which stage1.py leaves at 0 by mistake."""
    settings = config.for_stage(
        composed(f"dataset={dataset}", "method=adafocus_v1", f"stage={stage}", "dataset.root=/data", "init.from=run"),
        stage,
    )
    s = settings.schedule
    found = (
        s.optimizer,
        s.lr,
        s.lr_mults,
        s.lr_schedule,
        s.epochs,
        s.cosine_epochs,
        s.batch_size,
        s.weight_decay,
        s.dropout,
    )
    assert found == expected and s.base_batch_size == s.batch_size
    assert (settings.policy.grid, settings.policy.gamma, settings.policy.deviation) == (7, 0.7, 0.25)
    assert (settings.policy.reward, settings.policy.clip, settings.policy.epochs) == ("random", 0.2, 1)


def test_what_is_typed_wins_over_a_stages_recipe() -> None:
    settings = composed("method=adafocus_v1", "schedule.epochs=3")
    assert {config.for_stage(settings, name).schedule.epochs for name in config.stages(settings)} == {3}
    settings = composed("method=adafocus_v1", "schedule.stages.2.epochs=5")
    assert config.for_stage(settings, "2").schedule.epochs == 5


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("method=adafocus_v1", "stage=joint"), "stage=joint does not exist"),
        (("stage=2",), "stage=2 does not exist for method=adafocus_v2"),
        (("method=adafocus_v1", "policy.reward=greed"), "policy.reward"),
        (
            ("method=adafocus_v1", "stage=2", "init.from=run", "policy.epochs=2", "schedule.accumulation_steps=2"),
            "accumulation_steps=2 must be 1",
        ),
        (("method=adafocus_v1", "+schedule.stages.2.rat=5"), "rat"),
    ],
)
def test_stages_that_cannot_be(typed: tuple[str, ...], message: str) -> None:
    from adafocus.core.errors import UserError

    with pytest.raises(UserError, match=message):
        composed(*typed)
