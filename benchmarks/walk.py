"""Compares the time of a training step of AdaFocus V1's stage 2: all frames at once, or one after the other.

The package processes all frames of a video at once, the released program one after the other.

Both compute the whole step up to the gradients: glance, policy, focus network and classifier, rewards, PPO loss and
backward pass. The released program also runs the policy twice, to sample actions and to train.

python benchmarks/walk.py [--device cuda] [--backbone tiny|r50] [--clips 8] [--segments 16]

Both use the same random numbers, so they have the same actions and, up to rounding, the same rewards; this is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor

from adafocus.backbones import BACKBONES
from adafocus.core.batch import Batch
from adafocus.methods.adafocus_v1.model import AdaFocusV1, cut
from adafocus.methods.adafocus_v1.ppo import ppo_loss, returns
from adafocus.methods.adafocus_v1.stages import PolicyStage


def a_step_at_a_time(
    model: AdaFocusV1, frames: Tensor, label: Tensor, draws: Tensor, other: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Actions, rewards and the policy's input, computed frame by frame as in the released program, which runs the
    networks at each frame for the chosen patch and for a random one."""
    policy, classifier = model.policy, model.classifier
    with torch.no_grad():
        glance = model.glance(frames)
    state = memory = None
    actions, rewards = [], []
    rows = torch.arange(len(label), device=label.device)
    for t in range(model.segments):
        code = policy.encoder(glance.maps[:, t])[:, None]
        after, state = policy.gru(code, state)
        probabilities = policy.actor(after).softmax(-1).detach()
        ladder = probabilities.cumsum(-1)
        action = (ladder < draws[:, t : t + 1, :1] * ladder[..., -1:]).sum(-1)
        chances = []
        for where in (other[:, t], policy.where(action)[:, 0]):
            patches = torch.cat(
                [cut(f[None], w[None], model.patch_size) for f, w in zip(frames[:, t], where, strict=True)]
            )
            features = torch.cat((glance.features[:, t], model.focus_net(patches).mean((-2, -1))), -1)
            states, last = classifier.gru(features[:, None], memory)
            chances.append(classifier.head(states[:, 0]).softmax(-1)[rows, label].detach())
        memory = last.detach()
        actions.append(action[:, 0])
        rewards.append(chances[1] - chances[0])
    return torch.stack(actions, 1), torch.stack(rewards, 1), glance.maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="tiny", choices=("tiny", "r50"))
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--segments", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    tiny = options.backbone == "tiny"
    side, patch = (96, 28) if tiny else (224, 96)
    names = ("tiny_glance", "tiny_focus") if tiny else ("mobilenet_v2", "resnet50")
    model = AdaFocusV1(
        *(BACKBONES[name]() for name in names),
        num_classes=10,
        segments=options.segments,
        patch_size=patch,
        frame_size=side,
        glance_size=24 if tiny else None,  # as with dataset=glyphs
        policy_hidden=64 if tiny else 1024,
        classifier_width=256 if tiny else 1024,
    )
    model.to(options.device).eval()
    stage = PolicyStage(model, lambda frames: frames.movedim(-1, -3).float() / 255, seed=0)
    frames = torch.randint(
        0, 256, (options.clips, options.segments, side, side, 3), dtype=torch.uint8, device=options.device
    )
    label = torch.randint(0, 10, (options.clips, 1), device=options.device)
    batch = Batch(frames, label, torch.arange(options.clips), 0, torch.ones(options.clips, dtype=torch.bool))

    def seconds(run) -> tuple[float, object]:  # noqa: ANN001
        if options.device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        result = run()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started, result

    def ours() -> object:
        model.zero_grad()
        result = stage.step(batch)
        result.loss.backward()
        return stage._episode

    def plain() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        shown = stage.normalize(batch.frames)
        actions, reward, maps = a_step_at_a_time(
            model, shown, label[:, 0], stage.draws("policy", batch), stage.draws("random patch", batch)
        )
        with torch.no_grad():
            old = model.policy.log_probability(model.policy(maps), actions)
        decision = model.policy(maps)
        log_probability, entropy = model.policy.log_probability(decision, actions), model.policy.entropy(decision)
        ppo_loss(log_probability, old, decision.values, returns(reward, 0.7), entropy).elements.mean().backward()
        return actions, reward

    times = []
    for number in range(options.repeats + 1):
        (mine, episode), (theirs, (actions, rewards)) = seconds(ours), seconds(plain)
        if not torch.equal(episode.actions, actions) or abs(float(episode.metrics["reward"] - rewards.mean())) > 1e-5:
            raise SystemExit("the two walks differ")
        if number:
            times.append((mine, theirs))
    ratio = statistics.median(theirs / mine for mine, theirs in times)
    sys.stdout.write(
        f"{options.backbone}, {options.clips} clips of {options.segments} frames: "
        f"{1000 * statistics.median(m for m, _ in times):.1f} ms, "
        f"{ratio:.2f} times as fast as a step at a time; same actions and rewards\n"
    )


if __name__ == "__main__":
    main()
