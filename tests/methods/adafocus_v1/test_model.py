"""Tests of AdaFocus V1: outputs and PPO updates equal figures of the released programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import load_checkpoint
from adafocus.evaluation.cost import count
from adafocus.layers.crop import cut
from adafocus.methods.adafocus_v1.model import AdaFocusV1, StepClassifier
from adafocus.methods.adafocus_v1.model_tsm import AdaFocusV1TSM
from adafocus.methods.adafocus_v1.ppo import ppo_loss, returns, rewards
from adafocus.policies.actor_critic import Decision, GaussianPolicy, GridPolicy

SHIFT = Temporal("bidirectional")


def untrimmed(classes: int = 200, patch: int = 128, segments: int = 16, **changes: int) -> AdaFocusV1:
    glance, focus = BACKBONES["mobilenet_v2"](), BACKBONES["resnet50"]()
    return AdaFocusV1(glance, focus, num_classes=classes, segments=segments, patch_size=patch, **changes)


def on_tsm(classes: int = 174, patch: int = 144) -> AdaFocusV1TSM:
    return AdaFocusV1TSM(
        insert(BACKBONES["mobilenet_v2"](), 8, SHIFT),
        insert(BACKBONES["resnet50"](), 12, SHIFT),
        num_classes=classes,
        glance_segments=8,
        focus_segments=12,
        patch_size=patch,
    )


def sections(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """The content of a checkpoint as the released program of AdaFocus V1 writes it, one section per network."""
    names = {"glancer": "glancer.", "focuser": "focuser.", "fc": "classifier."}
    parts = {n: {k.removeprefix(p): v for k, v in state.items() if k.startswith(p)} for n, p in names.items()}
    policy = next(p for p in ("focuser.policy.policy.", "policy.") if any(k.startswith(p) for k in state))
    parts["policy"] = {k.removeprefix(policy): v for k, v in state.items() if k.startswith(policy)}
    return {"epoch": 10, "model_state_dict": state, **parts, "scaler": None, "acc": torch.tensor(75.0)}


@pytest.mark.slow
def test_evaluation_and_walk_on_untrimmed_videos(tmp_path: Path) -> None:
    golden = Case("adafocus_v1_actnet_p128")
    model = untrimmed().eval()
    torch.save(sections(golden.state()), tmp_path / "128checkpoint.pth.tar")
    assert load_checkpoint(tmp_path / "128checkpoint.pth.tar", model).source == "official AdaFocus V1"
    frames = golden_weights.frames("adafocus_v1/actnet_p128/frames2", (2, 48, 224, 224)).unflatten(1, (16, 3))
    with torch.no_grad():
        glance = model.glance(frames)
        decision = model.policy(glance.maps)
        actions = model.policy.best(decision)
        assert actions.tolist() == golden["actions"].tolist()
        golden.check("action_probs", decision.parameters)
        golden.check("state_values", decision.values)
        golden.check("action_logprobs", model.policy.log_probability(decision, actions))
        golden.check("action_entropy", model.policy.entropy(decision))
        output = model(frames)
        corner = (output.where * 96 + 1e-4).floor()
        assert corner.tolist() == golden["patch_yx"].tolist()
        golden.check("logits", output.steps, 2e-4)
        golden.check("pred", output.logits, 2e-4)
        steps, _ = model.classifier(golden_weights.array("adafocus_v1/actnet_p128/probe2", (2, 16, 3328)))
        golden.check("probe_logits", steps, 2e-4)
        golden.check("stage0_glancer_logits", model.whole_frames(frames, "glance").logits, 2e-4)
        golden.check("stage0_focuser_logits", model.whole_frames(frames, "focus").logits, 2e-4)
    chosen, other = (torch.from_numpy(golden[f"stage2{kind}_probability"]) for kind in ("", "_baseline"))
    found = rewards("random", chosen, other)
    golden.check("stage2_rewards", found.T)
    golden.check("stage2_returns", returns(found, 0.7).T, 1e-2)


@pytest.mark.slow
def test_evaluation_on_tsm(tmp_path: Path) -> None:
    golden = Case("adafocus_v1_sthsth_p144")
    model = on_tsm().eval()
    torch.save(sections(golden.state()), tmp_path / "144x144.pth.tar")
    assert load_checkpoint(tmp_path / "144x144.pth.tar", model).source == "official AdaFocus V1"
    sets = (("glance4", 24), ("focus", 36))
    frames = torch.cat(
        [
            golden_weights.frames(f"adafocus_v1/sthsth_p144/{n}", (2, c, 224, 224)).unflatten(1, (-1, 3))
            for n, c in sets
        ],
        1,
    )
    # The released logits of the two clips are nearly equal, so deviations are compared with their standard deviation.
    spread = golden.std("pred")
    with torch.no_grad():
        glance = model.glance(frames[:, :8])
        decision = model.policy(glance.maps)
        golden.check("action", decision.parameters)
        golden.check("state_value", decision.values)
        other = torch.tensor([[0.25, 0.5], [0.9, 0.1]])[:, None]
        output, baseline = model.compare(frames[:, 8:], glance, decision.parameters, other)
        assert (output.where[:, 0] * 80).floor().tolist() == golden["patch_yx"].tolist()
        golden.check("pred", output.logits, of=spread)
        golden.check("pred", model(frames).logits, of=spread)
        golden.check("baseline_pred", baseline[:, 0], of=spread)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["discrete", "continuous"])
def test_one_update(form: str) -> None:
    golden = Case(f"adafocus_v1_ppo_{form}")
    discrete = form == "discrete"
    policy = GridPolicy(1280, (7, 7)) if discrete else GaussianPolicy(10240, (7, 7))
    state = {}
    for key, value in golden.state().items():
        key = key.removeprefix("policy.").replace("state_encoder.", "encoder.")
        state[key.replace("actor.0.", "actor.").replace("critic.0.", "critic.")] = value
    policy.load_state_dict(state)
    policy.train()
    array = {key: golden_weights.array(spec["name"], spec["shape"]) for key, spec in golden.about["inputs"].items()}
    actions = torch.tensor(golden.about["actions"]).T if discrete else array["actions"].sigmoid().transpose(0, 1)
    decision = policy(array["states"].transpose(0, 1))
    log_probability, entropy = policy.log_probability(decision, actions), policy.entropy(decision)
    gain = returns(array["rewards"].T, 0.7)
    old = torch.from_numpy(golden["old_logprobs"]).T
    loss = ppo_loss(log_probability, old, decision.values, gain, entropy)
    for ours, key in (
        (log_probability, "logprobs"),
        (decision.values, "state_values"),
        (entropy, "entropy"),
        (gain, "returns"),
        (loss.elements, "loss_elements"),
    ):
        golden.check(key, ours.T)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-4)
    loss.elements.mean().backward()
    for key in (key for key in golden if key.startswith("gradnorm/")):
        own = (
            key.removeprefix("gradnorm/")
            .replace("state_encoder.", "encoder.")
            .replace("actor.0.", "actor.")
            .replace("critic.0.", "critic.")
        )
        golden.check(key, policy.get_parameter(own).grad.norm(), 1e-3)
    optimizer.step()
    key = "after/actor.0.weight"
    golden.check(key, policy.actor.weight.flatten()[:64], 1e-3)


@pytest.mark.parametrize("grid", [2, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("patch", [64, 96, 112, 128, 144, 160, 176, 192, 224])
def test_corners_of_a_grid_are_whole_pixels(grid: int, patch: int) -> None:
    policy = GridPolicy(4, (2, 2), grid=grid, hidden=8)
    rows = torch.arange(224, dtype=torch.float32)
    frame = torch.stack((rows[:, None].expand(224, 224), rows[None].expand(224, 224)))[None]
    every = torch.arange(grid**2)
    patches = cut(frame.expand(grid**2, -1, -1, -1), policy.where(every), patch)
    expected = [
        [(a // grid) * (224 - patch) // (grid - 1), (a % grid) * (224 - patch) // (grid - 1)] for a in every.tolist()
    ]
    assert patches[:, :, 0, 0].long().tolist() == expected
    assert torch.equal(patches[-1, 0], frame[0, 0, 224 - patch :, 224 - patch :])


def test_sampling_follows_the_probabilities() -> None:
    policy = GridPolicy(4, (2, 2), grid=2, hidden=8)
    decision = Decision(torch.tensor([0.1, 0.2, 0.0, 0.7]).expand(1, 20000, 4), torch.zeros(1, 20000))
    draws = torch.rand(1, 20000, 2, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(policy.sample(decision, draws).flatten(), minlength=4) / 20000
    assert torch.allclose(share, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.015) and share[2] == 0
    gauss = GaussianPolicy(4, (2, 2), hidden=8, deviation=0.1)
    decision = Decision(torch.full((1, 20000, 2), 0.5), torch.zeros(1, 20000))
    places = gauss.sample(decision, draws)
    assert abs(float(places.mean()) - 0.5) < 0.005 and abs(float(places.std()) - 0.1) < 0.005


def test_other_patches_in_single_steps_equal_the_walk() -> None:
    """One batched GRU step from the states before each frame gives the logits of the released loop, which runs the
    classifier twice at every step: with the chosen patch and with another."""
    torch.manual_seed(0)
    head = StepClassifier(6, 3, hidden=5, dropout=0.0).double()
    chosen, other = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    steps, states = head(chosen)
    instead = head.counterfactual(other, states)
    for t in range(4):
        mixed = torch.cat((chosen[:, :t], other[:, t : t + 1]), 1)
        assert torch.allclose(head(mixed)[0][:, t], instead[:, t], atol=1e-12)
        assert torch.allclose(head(chosen[:, : t + 1])[0][:, t], steps[:, t], atol=1e-12)


def test_rewards_and_returns_on_paper() -> None:
    chosen, other = torch.tensor([[0.2, 0.5, 0.4]]), torch.tensor([[0.1, 0.6, 0.1]])
    assert torch.allclose(rewards("random", chosen, other), torch.tensor([[0.1, -0.1, 0.3]]))
    assert torch.allclose(rewards("prev", chosen, None), torch.tensor([[0.2, 0.3, -0.1]]))
    assert torch.equal(rewards("conf", chosen, None), chosen)
    plain = torch.tensor([[0.1 + 0.5 * (-0.1 + 0.5 * 0.3), -0.1 + 0.5 * 0.3, 0.3]])
    found = returns(rewards("random", chosen, other), 0.5)
    assert torch.allclose(found, (plain - plain.mean()) / (plain.std() + 1e-5), atol=1e-5)
    with pytest.raises(ValueError, match="greed"):
        rewards("greed", chosen, other)


def test_ppo_clips_where_the_ratio_has_gone_too_far() -> None:
    log_probability = torch.tensor([[0.5, -0.5, 0.1]], requires_grad=True)
    zero = torch.zeros(1, 3)
    gain = torch.tensor([[1.0, -1.0, 1.0]])
    loss = ppo_loss(log_probability, zero, zero, gain, zero)
    loss.elements.mean().backward()
    assert log_probability.grad[0, 0] == 0 and log_probability.grad[0, 1] == 0 and log_probability.grad[0, 2] < 0
    assert loss.clipped.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(("patch", "published"), [(96, "17.18"), (128, "26.52"), (160, "38.53"), (192, "53.21")])
def test_costs_on_untrimmed_videos(patch: int, published: str) -> None:
    """Multiply-adds of AdaFocus V1 on ActivityNet, in 1e9 per video, by patch size."""
    with torch.device("meta"):
        assert f"{count(untrimmed(patch=patch), 16, 224).total / 1e9:.2f}" == published


@pytest.mark.parametrize(("patch", "published"), [(144, "23.5"), (160, "27.5"), (176, "33.7")])
def test_costs_on_tsm(patch: int, published: str) -> None:
    with torch.device("meta"):
        assert f"{count(on_tsm(patch=patch), 20, 224).total / 1e9:.1f}" == published
