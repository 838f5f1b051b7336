"""Tests of the stages of AdaFocus V1: which parameters are trained, the PPO update, and a run of all stages."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.configs import composed

from adafocus import build, config
from adafocus.core.batch import Batch
from adafocus.core.output import GlanceOutput, Overrides, Plan
from adafocus.training.optimizer import make_optimizer
from adafocus.training.settings import Settings

TSM = ("backbone=tiny_tsm", "segments.glance=4", "segments.focus=6")


def made(name: str, *typed: str):
    settings = config.for_stage(
        composed(
            "method=adafocus_v1", f"stage={name}", "init.from=none", "dataset.frame_size=32", "patch.size=16", *typed
        ),
        name,
    )
    network = build.seeded_model(settings, 5, weights=False)
    return settings, network, build.stage(settings, network)


def batch_of(settings, count: int = 6) -> Batch:
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (count, build.frame_plan(settings).clip, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, 5, (count, 1))
    return Batch(frames, labels, torch.arange(count), 0, torch.ones(count, dtype=torch.bool))


LEARNS = {
    "glance": ("glance_net.", "glance_head."),
    "focus": ("focus_net.", "focus_head.", "classifier."),
    "1": ("focus_net.", "classifier."),
    "2": ("policy.",),
    "3": ("classifier.",),
}


@pytest.mark.parametrize("typed", [(), TSM], ids=["plain", "tsm"])
@pytest.mark.parametrize("name", LEARNS)
def test_what_does_not_learn_stays_the_same_to_the_bit(name: str, typed: tuple[str, ...]) -> None:
    settings, network, stage = made(name, *typed)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = make_optimizer(stage, Settings(1, 1, None, 0, optimizer="adamw"))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    stage.train()
    stage.step(batch_of(settings)).loss.backward()
    optimizer.step()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    learns = LEARNS[name]
    if name == "focus":
        learns = ("focus_net.", "classifier.") if typed else ("focus_net.", "focus_head.")
    assert changed and all(key.startswith(learns) for key in changed)
    assert all(any(key.startswith(part) for key in changed) for part in learns)


@pytest.mark.parametrize("typed", [(), TSM], ids=["plain", "tsm"])
@pytest.mark.parametrize("reward", ["random", "padding", "prev", "conf"])
def test_one_update_is_that_of_the_walk_step_by_step(reward: str, typed: tuple[str, ...]) -> None:
    """Actions and rewards of stage 2, which processes all frames at once, equal those of a loop over the frames."""
    if typed and reward == "prev":
        pytest.skip("on TSM a video has a single step, so there is no previous one")
    settings, network, stage = made("2", f"policy.reward={reward}", *typed)
    network.double().eval()
    stage.normalize = lambda frames: frames.double().movedim(-1, -3) / 255
    batch = batch_of(settings)
    stage.train()
    if typed:  # batch statistics would depend on the whole batch, so the policy is in evaluation mode
        network.policy.eval()
    result = stage.step(batch)
    frames, label = stage.normalize(batch.frames), batch.labels[:, 0]
    draws, other = (
        stage.draws("policy", batch, (network.num_places, 2)),
        stage.draws("random patch", batch, (network.num_places, 2)),
    )
    policy, rewards = network.policy, []
    with torch.no_grad():
        glance = network.glance(network.glance_frames(frames, Overrides()))
        shown = network.focus_frames(frames)
        decision = policy(glance.maps)
        actions = policy.sample(decision, draws)
        where = policy.where(actions)
        before = torch.zeros(len(batch), dtype=torch.float64)
        for t in range(network.num_places):
            mixed = where.clone()
            mixed[:, t] = other[:, t]
            rows = torch.arange(len(batch))
            chosen = network.focus(shown, Plan(where), glance).steps[:, t].softmax(-1)[rows, label]
            instead = network.focus(shown, Plan(mixed), glance).steps[:, t].softmax(-1)[rows, label]
            rewards.append({"random": chosen - instead, "prev": chosen - before, "conf": chosen}.get(reward, chosen))
            before = chosen
    if reward != "padding":
        assert torch.allclose(result.metrics["reward"].double(), torch.stack(rewards).mean(), atol=1e-9)
    assert result.metrics["clip_fraction"] == 0 and result.metrics["entropy"].isfinite()
    result.loss.backward()
    assert network.policy.actor.weight.grad.abs().sum() > 0


def test_several_updates_on_one_batch() -> None:
    settings, network, stage = made("2", "policy.epochs=2", "policy.minibatches=3")
    optimizer = make_optimizer(stage, Settings(1, 1, None, 0, optimizer="adamw"))
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    batch = batch_of(settings)
    stage.train()
    assert stage.rounds == 6
    results = []
    for _ in range(stage.rounds):
        results.append(stage.step(batch))
        results[-1].loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len({float(result.metrics["reward"]) for result in results}) == 1  # rewards are computed once per batch
    assert float(results[-1].metrics["clip_fraction"]) > 0  # the updates have changed the policy
    stage.step(batch)
    assert float(results[0].metrics["clip_fraction"]) == 0


def test_dropout_is_the_stages() -> None:
    """When a stage starts, it sets the dropout rates of the network to those of its own recipe (here for
    ActivityNet)."""
    settings = composed("method=adafocus_v1", "dataset=actnet", "dataset.root=/data")
    with torch.device("meta"):
        network = build.model(settings, 10, weights=False)
    found = {}
    for name in config.stages(settings):
        build.stage(config.for_stage(settings, name), network)
        found[name] = (network.glance_head[0].p, network.classifier.dropout.p)
    assert found == {"glance": (0.2, 0.0), "focus": (0.0, 0.0), "1": (0.0, 0.8), "2": (0.0, 0.0), "3": (0.0, 0.8)}


def test_draws_are_those_of_the_video_not_of_the_batch() -> None:
    settings, network, stage = made("2")
    batch = batch_of(settings)
    half = Batch(batch.frames[3:], batch.labels[3:], batch.index[3:], 0, batch.valid[3:])
    assert torch.equal(
        stage.draws("policy", batch, (network.num_places, 2))[3:], stage.draws("policy", half, (network.num_places, 2))
    )
    assert not torch.equal(
        stage.draws("policy", batch, (network.num_places, 2)),
        stage.draws("random patch", batch, (network.num_places, 2)),
    )
    assert isinstance(network.glance(stage.normalize(batch.frames)), GlanceOutput)


SMALL = runs.arguments(method="adafocus_v1", schedule__epochs="2", schedule__lr="0.001")


@pytest.mark.slow
def test_all_stages_in_a_row_and_a_kill_in_one_of_them(tmp_path: Path) -> None:
    """A run of all stages that is killed and continued ends with the same bits as an uninterrupted one."""
    runs.run(tmp_path, *SMALL, "name=whole")
    summary = runs.summary(tmp_path / "outputs/whole")
    assert [gain["stage"] for gain in summary["stages"]] == ["glance", "focus", "1", "2", "3"]
    assert [row["name"] for row in summary["rows"]] == [
        "learned patch",
        "constant patch",
        "random patch",
        "center patch",
    ]
    lines = runs.lines(tmp_path / "outputs/whole/stages/2")
    assert {"reward", "entropy", "advantage", "clip_fraction"} <= set(
        next(line for line in lines if line["kind"] == "train")
    )
    for place in ("stages/1", "stages/2"):
        process = runs.start(tmp_path, *SMALL, "name=killed", "output.save_seconds=0")
        waiting = tmp_path / "outputs/killed" / place / "metrics.jsonl"
        for _ in range(1200):
            if waiting.is_file() and waiting.read_text().count("\n") >= 2:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1)
    runs.run(tmp_path, *SMALL, "name=killed", "output.save_seconds=0")
    whole, killed = (torch.load(tmp_path / f"outputs/{n}/last.pt", weights_only=True) for n in ("whole", "killed"))
    assert all(torch.equal(value, killed["model"][key]) for key, value in whole["model"].items())
    assert json.loads((tmp_path / "outputs/killed/summary.json").read_text())["score"] == summary["score"]
    assert os.path.exists(tmp_path / "outputs/killed/patches.png")


@pytest.mark.slow
def test_stages_one_by_one_and_two_processes(tmp_path: Path) -> None:
    runs.run(tmp_path, *SMALL, "stage=1", "init.from=none", "name=one")
    runs.apart(tmp_path, *SMALL, "stage=2", "name=two", "init.from=outputs/one", "devices=2")
    one, two = (torch.load(tmp_path / f"outputs/{n}/last.pt", weights_only=True)["model"] for n in ("one", "two"))
    moved = {key for key in one if not torch.equal(one[key], two[key])}
    assert moved and all(key.startswith("policy.") for key in moved)
    runs.run(tmp_path, *SMALL, "mode=evaluate", "checkpoint=outputs/two", "name=again")
    assert runs.summary(tmp_path / "outputs/again")["score"] == runs.summary(tmp_path / "outputs/two")["score"]
