"""Tests of Uni-AdaFocus on plain backbones and on TSM: figures of the released programs, networks and stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import golden_weights, runs
from helpers.configs import composed
from helpers.golden_cases import Case
from helpers.official import official_uni

from adafocus import build
from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import fit, from_uni_adafocus, from_uni_adafocus_tsm, load_checkpoint, tensors
from adafocus.core.batch import Batch
from adafocus.core.output import Overrides
from adafocus.methods.uni_adafocus.model import UniAdaFocus
from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM
from adafocus.methods.uni_adafocus.stage import UniAdaFocusStage
from adafocus.policies.frames import inclusion_factors

RATES = {"temporal": 0.2, "spatial": 0.2, "glance": 0.5, "focus": 1.0, "classifier": 20.0}
SHIFT = Temporal("bidirectional")


def plain(classes: int, *, patch: int, dropout: float = 0.2) -> UniAdaFocus:
    return UniAdaFocus(
        BACKBONES["mobilenet_v2"](),
        BACKBONES["resnet50"](),
        num_classes=classes,
        glance_segments=16,
        focus_segments=16,
        candidates=48,
        patch_size=patch,
        dropout=dropout,
        head_dropout=dropout,
    )


def tsm(classes: int, *, patch: int, focus: int, dropout: float = 0.5) -> UniAdaFocusTSM:
    return UniAdaFocusTSM(
        insert(BACKBONES["mobilenet_v2"](), 8, SHIFT),
        insert(BACKBONES["resnet50"](), focus, SHIFT),
        num_classes=classes,
        glance_segments=8,
        focus_segments=focus,
        candidates=3 * focus,
        patch_size=patch,
        dropout=dropout,
    )


def temporal_logits(output, count: int) -> torch.Tensor:
    return torch.einsum("bg,bgk->bk", output.weights * inclusion_factors(output.weights, count), output.per_frame)


def clips(case: str, batch: int, candidates: int) -> torch.Tensor:
    sets = (("images_glance", 8), ("images_input", candidates))
    return torch.cat(
        [golden_weights.frames(f"{case}/{n}", (batch, 3 * t, 224, 224)).unflatten(1, (t, 3)) for n, t in sets], 1
    )


@pytest.mark.slow
def test_evaluation_on_plain_backbones(tmp_path: Path) -> None:
    golden = Case("uni_adafocus_actnet_p128")
    state = golden.state()
    model = plain(200, patch=128).eval()
    assert {k: tuple(v.shape) for k, v in official_uni(model, tsm=False).items()} == {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.startswith(("module.global_CNN.classifier", "module.local_CNN.fc"))
    }
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "f.pth.tar")
    report = load_checkpoint(tmp_path / "f.pth.tar", model)
    assert report.source == "official Uni-AdaFocus" and len(report.dropped) == 4
    frames = golden_weights.frames("uni_adafocus/video_d", (2, 144, 224, 224)).unflatten(1, (48, 3))
    with torch.no_grad():
        output = model(frames)
        lean = model(frames, auxiliary=False)
    assert output.frames.tolist() == golden["focus_indices"].tolist()
    assert model.glance_positions().tolist() == golden["glance_indices"][:1].tolist()
    for ours, name in (
        (output.logits, "logits"),
        (output.steps, "step_logits"),
        (output.aux_glance, "global_logits"),
        (output.aux_focus, "local_logits"),
        (output.aux_spatial, "spatial_logits"),
        (output.weights, "weights"),
        (output.rectangles, "actions_glance"),
        (output.exit_logits.amax(-1), "exit_logit_max"),
        (temporal_logits(output, 5), "temporal_logits_exact"),
    ):
        golden.check(name, ours)
    assert lean.aux_glance is None and lean.aux_spatial is None and lean.steps.shape[1] == 17
    torch.testing.assert_close(lean.exit_logits, output.exit_logits, rtol=1e-5, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "patch", "focus"),
    [("uni_adafocus_tsm_sthv1_p96_8and8", 96, 8), ("uni_adafocus_tsm_sthv2_p128_8and12", 128, 12)],
)
def test_evaluation_on_tsm(tmp_path: Path, case: str, patch: int, focus: int) -> None:
    golden = Case(case)
    model = tsm(174, patch=patch, focus=focus).eval()
    state = golden.state()
    assert official_uni(model, tsm=True).keys() == state.keys()
    torch.save({"epoch": 50, "arch": "resnet50", "state_dict": state, "best_prec1": 47.5}, tmp_path / "ckpt.pth.tar")
    assert load_checkpoint(tmp_path / "ckpt.pth.tar", model).source == "official Uni-AdaFocus-TSM"
    with torch.no_grad():
        output = model(clips(case, 2, 3 * focus))
    assert output.frames.tolist() == golden["focus_indices"].tolist()
    for ours, name in (
        (output.logits, "final_logits"),
        (output.aux_glance, "global_logits"),
        (output.aux_focus, "local_logits"),
        (output.aux_spatial, "spatial_logits"),
        (output.weights, "frame_weights"),
        (output.rectangles, "action"),
        (output.per_frame, "global_frame_logits"),
        (temporal_logits(output, 2), "temporal_logits_exact"),
    ):
        golden.check(name, ours)


def one_batch(frames: torch.Tensor, target: np.ndarray) -> Batch:
    size = len(frames)
    label = torch.from_numpy(np.asarray(target))[:, None]
    return Batch(frames, label, torch.arange(size), 0, torch.ones(size, dtype=torch.bool))


def norms(stage: UniAdaFocusStage, parts: list[tuple[str, ...]]) -> torch.Tensor:
    groups = {group.name: group.parameters for group in stage.param_groups()}
    return torch.stack(
        [torch.cat([p.grad.flatten() for name in names for p in groups[name]]).norm() for names in parts]
    )


@pytest.mark.slow
def test_training_step_on_tsm() -> None:
    name = "uni_adafocus_tsm_train_step"
    golden = Case(name)
    model = tsm(174, patch=96, focus=8, dropout=0.0)
    fit(model, from_uni_adafocus_tsm(tensors({"state_dict": golden.state()})), name)
    model.double()
    stage = UniAdaFocusStage(model, lambda frames: frames, seed=0, rates=RATES, size_weight=0.5)
    draws = {
        "thresholds": torch.from_numpy(golden["u"]),
        "diversity": torch.from_numpy(golden["random_action"])[:, None, :2],
    }
    stage.draws = lambda purpose, *_: draws[purpose]
    stage.train()
    result = stage.step(one_batch(clips(name, 2, 24).double(), golden["target"]))
    result.loss.backward()
    loss = {key.removeprefix("loss_"): value for key, value in result.metrics.items() if key.startswith("loss_")}
    terms = [
        2 * (loss["policy_steps"] + loss["random_steps"]),
        2 * loss["glance"],
        2 * (loss["policy_focus"] + loss["random_focus"]),
        2 * loss["temporal"],
        2 * loss["spatial"],
        2 * loss["size"],
        result.loss,
    ]
    golden.check("losses", torch.stack(terms), 1e-5)
    parts = [
        ("frame policy",),
        ("spatial policy",),
        ("glance", "glance head"),
        ("spatial head",),
        ("focus", "focus head"),
    ]
    golden.check("grad_norm_groups", norms(stage, parts), 1e-5)
    golden.check("grad_temporal_last", model.frame_policy.encoder[6].weight.grad, 1e-5)
    golden.check("grad_spatial_last", model.spatial_policy.encoder[9].weight.grad[:, :8], 1e-5)
    golden.check("grad_global_new_fc_bias", model.glance_head.predict.bias.grad, 1e-5)
    golden.check("spatial_bn_running_mean_after", model.spatial_policy.encoder[1].running_mean, 1e-5)


@pytest.mark.slow
def test_training_step_on_plain_backbones() -> None:
    name = "uni_adafocus_train_step"
    golden = Case(name)
    model = plain(200, patch=128, dropout=0.0)
    fit(model, from_uni_adafocus(tensors({"state_dict": golden.state()})), name)
    stage = UniAdaFocusStage(model, lambda frames: frames, seed=0, rates=RATES)
    draws = {
        "thresholds": torch.from_numpy(golden["thresholds_uniform"]),
        "diversity": torch.from_numpy(golden["random_actions"]).view(2, 48, 4)[..., :2],
        "glance": (torch.from_numpy(golden["glance_offset"]) + 0.5) / 3,
    }
    stage.draws = lambda purpose, *_: draws[purpose]
    stage.train()
    frames = golden_weights.frames(name, (2, 144, 224, 224)).unflatten(1, (48, 3))
    result = stage.step(one_batch(frames, golden["target"]))
    result.loss.backward()
    loss = {key.removeprefix("loss_"): value for key, value in result.metrics.items() if key.startswith("loss_")}
    terms = [
        2 * (loss["policy_steps"] + loss["random_steps"]),
        2 * loss["glance"],
        2 * (loss["policy_focus"] + loss["random_focus"]),
        2 * loss["temporal"],
        2 * loss["spatial"],
        loss["size"],
        result.loss,
    ]
    wanted = golden["losses"][[0, 1, 2, 3, 4, 6, 7]]
    np.testing.assert_allclose(torch.stack(terms).detach(), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    parts = [("frame policy",), ("spatial policy",), ("glance head",), ("spatial head",), ("focus head",)]
    wanted = golden["group_gradient_norms"][[0, 1, 3, 4, 6]]
    np.testing.assert_allclose(norms(stage, parts), wanted, rtol=0, atol=1e-4 * wanted.max())
    # The released step was computed in float32, and rounding errors grow in the gradients of the deep networks.
    wanted = golden["group_gradient_norms"][[2, 5, 7]]
    found = norms(stage, [("glance",), ("focus",), ("classifier",)])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-2 * wanted.max())
    golden.check("grad_aux_bias", model.spatial_head.bias.grad)
    for layer, released in (
        ("glance_steps.norm", "classifier.global_mlp.layers.1"),
        ("focus_steps.norm", "classifier.local_mlp.layers.1"),
        ("spatial_policy.encoder.1", "spatial_policy.encoder.1"),
        ("frame_policy.encoder.1", "temporal_policy.Tconv.1"),
        ("focus_net.bn1", "local_CNN.bn1"),
    ):
        norm = model.get_submodule(layer)
        golden.check(f"bn_mean:{released}", norm.running_mean[:256])
        golden.check(f"bn_var:{released}", norm.running_var[:256])


def small(*typed: str):
    return composed("dataset=glyphs", "method=uni_adafocus", "segments.glance=4", "segments.focus=3", *typed)


FORMS = ["backbone=tiny", "backbone=tiny_tsm"]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_take_the_routes_of_the_paper(form: str) -> None:
    settings = small(form)
    model = build.model(settings, 5).train()
    frames = torch.randn(4, build.frame_plan(settings).clip, 3, 96, 96)

    def learning(pick) -> set[str]:
        model.zero_grad()
        pick(model(frames, Overrides(diversity=torch.rand(4, model.num_places, 4)))).sum().backward()
        return {
            name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
        }

    assert learning(lambda output: output.aux_spatial.square()) == {"spatial_policy", "spatial_head"}
    assert learning(lambda output: output.rectangles[..., 2:]) == {"spatial_policy"}
    temporal = learning(lambda output: temporal_logits(output, 1).square())
    steps = learning(lambda output: output.steps.square() + output.diversity.steps.square().mean())
    if form == "backbone=tiny":
        assert temporal == {"frame_policy", "glance_net", "glance_head"}
        assert steps == {"glance_net", "focus_net", "glance_steps", "focus_steps"}
    else:  # on TSM, prediction and temporal logits read detached features
        assert temporal == {"frame_policy"} and steps == {"glance_head", "focus_head"}


@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_looked_at_decides(form: str) -> None:
    settings = small(form)
    model = build.model(settings, 5).eval()
    frames = torch.rand(2, build.frame_plan(settings).clip, 3, 96, 96)
    with torch.no_grad():
        output = model(frames)
        looked = {*model.glance_positions()[0].tolist(), *(output.frames[0] + model.first_candidate).tolist()}
        changed = frames.clone()
        for frame in set(range(frames.shape[1])) - looked:
            changed[0, frame] = 9.0
        assert torch.equal(model(changed).logits[0], output.logits[0])
        first = int(output.frames[0, 0]) + model.first_candidate
        changed[0, first] = 9.0
        assert not torch.equal(model(changed).logits[0], output.logits[0])


@pytest.mark.parametrize("form", FORMS)
def test_two_phases_of_reading_answer_like_the_whole_clip(form: str) -> None:
    settings = small(form, "dataset.val_videos=5", "dataset.task=when")
    data = build.data(settings)
    model = build.model(settings, 10).eval()
    stage = build.stage(settings, model)
    from adafocus.data.loader import EvaluationOrder, Loader

    batch = next(iter(Loader(data.test, EvaluationOrder(5, 5))))
    assert batch.frames.shape[1] == 4 and batch.source is not None
    asked: list[torch.Tensor] = []
    source = batch.source
    batch.source = lambda index, candidates: (asked.append(candidates), source(index, candidates))[1]
    answers = stage.evaluate(batch, stage.answerable)
    assert len(asked) == len(stage.answerable) - 1 and all(len(frames[0]) == 3 for frames in asked)
    whole = torch.stack([data.test[0, i].frames for i in range(5)])
    expected = stage.evaluate(
        Batch(whole, batch.labels, batch.index, batch.epoch, torch.ones(5, dtype=torch.bool)), stage.answerable
    )
    for name in stage.answerable:
        assert torch.equal(answers[name].logits, expected[name].logits), name
    assert torch.equal(answers[stage.variants[0]].focus_frames, expected[stage.variants[0]].focus_frames)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("patch='24'", "patch.smallest=30"), "below the smallest rectangle of 30"),
        (("segments.pool=10",), "must be a multiple of segments.glance=4"),
        (("segments.pool=2",), "is less than the"),
        (("dataset.separate_crops=true",), "glance frames are among the candidates"),
    ],
)
def test_choices_that_cannot_be(typed: tuple[str, ...], message: str) -> None:
    from adafocus.core.errors import UserError

    with pytest.raises(UserError, match=message):
        small(*typed)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tiny", "tiny_tsm"])
def test_a_run(tmp_path: Path, form: str) -> None:
    typed = runs.arguments(
        method="uni_adafocus", backbone=form, segments__focus="3", patch__smallest="8", schedule__size_weight="0.5"
    )
    runs.run(tmp_path, *typed, "name=a")
    summary = runs.summary(tmp_path / "outputs/a")
    assert [row["name"] for row in summary["rows"]] == [
        "chosen frames, learned patch",
        "spread frames, learned patch",
        "chosen frames, constant patch",
        "chosen frames, random patch",
        "chosen frames, center patch",
        "glance alone",
    ]
    assert (tmp_path / "outputs/a/patches.png").is_file()


def test_candidates_that_are_decoded_anyway_are_kept(tmp_path: Path) -> None:
    """A file with a single key frame is decoded once, and its candidate frames are kept; one with many key frames is
    opened again for the chosen frames."""
    from helpers import numbered

    from adafocus.data.loader import EvaluationOrder, Loader

    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        keys = "1000" if name.endswith("a") else "1"
        numbered.write(tmp_path / name / "x.mp4", 30, options={"g": keys, "keyint_min": keys, "sc_threshold": "0"})
    typed = ("dataset=folder", f"dataset.root={tmp_path}", "method=uni_adafocus", "segments.glance=2")
    data = build.data(composed(*typed, "segments.focus=4", "dataset.frame_size=32", "patch=24"))
    batch = next(iter(Loader(data.test, EvaluationOrder(2, 2))))
    assert list(batch.kept) == [0] and batch.frames.shape[1] == 2
    asked: list[list[int]] = []
    source = batch.source
    batch.source = lambda index, candidates: (asked.append(index), source(index, candidates))[1]
    chosen = torch.tensor([[0, 3, 7, 11], [1, 2, 8, 9]])
    frames = batch.read(torch.tensor([0, 1]), chosen)
    assert asked == [[1]]
    numbers = [int((2 * n + 1) / 24 * 30) for n in range(12)]
    for clip, picks in zip(frames, chosen, strict=True):
        assert numbered.numbers(clip.numpy()) == [numbers[pick] for pick in picks]
    assert numbered.numbers(batch.read(torch.tensor([0]), chosen[:1])[0].numpy()) == [numbers[n] for n in chosen[0]]
    assert len(asked) == 1


def test_a_video_that_breaks_in_the_second_phase_counts_as_wrong() -> None:
    from adafocus.data.loader import EvaluationOrder, Loader
    from adafocus.data.video import VideoError
    from adafocus.evaluation.evaluate import evaluate
    from adafocus.processes.distributed import World

    settings = small("dataset.val_videos=6")
    data = build.data(settings)
    stage = build.stage(settings, build.model(settings, 10))
    whole = data.test.choose

    def choose(index: int, positions: np.ndarray) -> torch.Tensor:
        if index in (1, 4):
            raise VideoError(f"glyphs {index}: gone")
        return whole(index, positions)

    data.test.choose = choose
    world = World(0, 1, torch.device("cpu"))
    loader = Loader(data.test, EvaluationOrder(6, 4))
    report = evaluate(stage, loader, 6, world, variants=stage.answerable, examples=2)
    assert [bad.index for bad in report.bad] == [1, 4] and "gone" in report.bad[0].reason
    for logits in report.logits.values():
        assert [bool(row.any()) for row in logits] == [True, False, True, True, False, True]


def test_cost_of_what_is_looked_at(tmp_path: Path) -> None:
    from adafocus.runs.job import report_cost

    settings = composed("experiment=uni_adafocus_sthv1_p96_8and12", "mode=cost")
    report_cost(settings, tmp_path)
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["frames"] == 20 and len(found["exits"]) == 2 and found["parameters"] == 28_622_054
    # The first number was measured on the repository's network; the second one is the cost of its layer aux_fc.
    assert found["published"] == pytest.approx(11.829982208e9 - 222_720)
    assert found["exits"][1] == found["total"] + found["parts"]["auxiliary glance"]


@pytest.mark.parametrize("form", FORMS)
def test_steps_with_draws_in_place_of_the_exact_logits(form: str) -> None:
    settings = small(form, "policy.temperature=2", "schedule.kl_weight=0.5")
    data = build.data(settings)
    batch = one_batch(torch.stack([data.train[0, i].frames for i in range(4)]), np.array([1, 2, 3, 4]))
    exact, drawn = {}, {}
    for draws, found in ((0, exact), (8000, drawn)):
        torch.manual_seed(0)
        settings.policy.draws = draws
        stage = build.stage(settings, build.model(settings, 10))
        stage.train()
        torch.manual_seed(1)  # for equal dropout masks
        found |= stage.step(batch).metrics
    assert float(drawn["loss_temporal"]) == pytest.approx(float(exact["loss_temporal"]), abs=2e-2)
    assert {name: float(v) for name, v in drawn.items() if name != "loss_temporal"} == {
        name: float(v) for name, v in exact.items() if name != "loss_temporal"
    }
    assert float(exact["loss_kl"]) > 0
    model = stage.model.eval()
    maps = model.glance(stage.normalize(stage.first_frames(batch)))
    weights, flat = model.frame_policy(maps.features)
    assert flat.std() < weights.std()  # temperature 2 makes the weights of the frame choice more even
