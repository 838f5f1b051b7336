"""The group `policy` of AdaFocus V2: what its options make, and which of them are refused together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import build
from adafocus.core.errors import UserError
from adafocus.core.variants import patch_variant
from adafocus.methods import method_of
from adafocus.policies.affine import AffinePolicy
from adafocus.policies.heat_map import HeatMapPolicy


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("policy=motion",), "need a backbone with the temporal shift"),
        (("policy=two",), "need a backbone with the temporal shift"),
        (("policy=heatmap", "patch.size=64", "dataset.frame_size=64"), "no choice"),
        (("policy=value", "policy.places_weight=0"), "nothing to learn from"),
        (("policy=value", "method.diversity=false"), "random patches of method.diversity"),
        (("policy=heatmap", "policy.learned=false"), "needs policy.motion=true"),
    ],
)
def test_what_cannot_work_is_refused(typed: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        composed(*typed)


def test_the_papers_policy_is_the_default() -> None:
    assert type(build.meta_model(composed(), 10).policy) is AffinePolicy
    assert [method_of(composed(f"policy={name}")).widths.policy for name in ("paper", "heatmap")] == [2048, 32]


def test_two_patches_are_counted() -> None:
    """Twice the focus network and twice the crop of one patch."""
    typed = ("backbone=tiny_tsm", "policy=two", "policy.apart=1", "segments.focus=6")
    network, one = (build.meta_model(composed(*typed, *more), 10) for more in ((), ("policy.peaks=1",)))
    assert isinstance(network.policy, HeatMapPolicy)
    assert network.crop_values == 2 * one.crop_values
    counts = [build.cost(composed(*typed, *more), 10).parts for more in ((), ("policy.peaks=1",))]
    costs = [{str(part): count for part, count in parts.items()} for parts in counts]
    assert costs[0]["focus"] == 2 * costs[1]["focus"] and costs[0]["glance"] == costs[1]["glance"]


def test_what_the_rows_of_a_motion_policy_are_called() -> None:
    """Without learning the main row is the motion rule, which has no weights; else it is a control."""
    for learned, rows in (("false", ["motion patch", "constant"]), ("true", ["learned patch", "motion patch"])):
        settings = composed("backbone=tiny_tsm", "policy=motion", "segments.focus=6", f"policy.learned={learned}")
        stage = build.stage(settings, build.meta_model(settings, 10))
        labels = [variant.label for variant in stage.variants]
        assert [labels[at].startswith(row) for at, row in enumerate(rows)] == [True, True]
        costs = stage.costs(build.cost(settings, 10))
        policy = costs[stage.variants[0]] - costs[patch_variant("center")]
        assert policy > 1e6 if learned == "true" else policy == 2 * 16 * 16  # the mean of the cells' rows and columns
        assert bool(list(stage.model.policy.parameters())) == (learned == "true")


@pytest.mark.slow
def test_a_run_with_two_patches_resumes_with_equal_bits(tmp_path: Path) -> None:
    """Interrupted after one epoch of two; the constant row has one place for each of the two patches."""
    typed = [word for word in runs.arguments(schedule__epochs="2") if not word.startswith("patch")]
    typed += ["backbone=tiny_tsm", "policy=two", "policy.apart=1", "patch.size=8", "output.save_seconds=0"]
    runs.run(tmp_path, *typed, "name=whole")
    process = runs.start(tmp_path, *typed, "name=cut")
    folder = tmp_path / "outputs/cut"
    while not (folder / "metrics.jsonl").exists() or len(runs.lines(folder)) < 3:
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not (folder / "summary.json").exists()
    assert "continuing from step" in runs.run(tmp_path, *typed, "name=cut")
    runs.same(folder, tmp_path / "outputs/whole")
    places = runs.summary(folder)["places"]
    assert torch.tensor(places["constant"]).shape == (2, 2)
    assert 0 < places["moving"] < 1 and places["from_constant"] > 0
