"""A training step never makes the CPU wait for the GPU; counted with pretended GPUs, so it needs none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.pretended import GPU, MixedDevices, OnGpu, pretended_gpu, put_on_gpu
from helpers.steps import CASES, batch_of, settings_of

from adafocus import build, config
from adafocus.processes.distributed import World
from adafocus.training.settings import Settings
from adafocus.training.trainer import Trainer


def trainer_of(settings: config.Config, network: torch.nn.Module, precision: str) -> Trainer:
    loop = Settings(epochs=1, steps_per_epoch=9, rates=np.full(9, 1e-3), seed=0, precision=precision, clip=20.0)
    stage = build.stage(settings, network)
    trainer = Trainer(stage, None, None, loop, world=World(0, 1, GPU), run_logger=None, checkpoints=None)
    stage.train()
    return trainer


@pytest.mark.parametrize(("name", "precision"), [*((name, "bf16") for name in CASES), ("v2", "fp32"), ("uni", "fp32")])
def test_no_step_waits(name: str, precision: str) -> None:
    settings = settings_of(name)
    network = build.seeded_model(settings, 10, weights=False)
    batch = batch_of(settings)
    with pretended_gpu() as waits:
        trainer = trainer_of(settings, put_on_gpu(network), precision)
        trainer._step(iter([batch]))  # the first step may: it brings constants to the device
        trainer.progress.step = 1
        waits.clear()
        trainer._step(iter([batch]))
        assert not waits
        assert all(isinstance(value, OnGpu) for value in trainer._pending[-1].values())
        trainer._pending[-1]["loss"].item()
        assert len(waits) == 1  # the count works


def test_pretended_gpu_finds_what_would_wait_or_fail() -> None:
    with pretended_gpu() as waits:
        x = torch.arange(4.0).to(GPU, non_blocking=True)
        assert not waits and x.device == GPU
        for act in (
            lambda: x.tolist(),
            lambda: x[x > 1],
            lambda: bool((x > 1).any()),
            lambda: x.cpu(),
            lambda: x.new_tensor([1]),
        ):
            before = sum(waits.values())
            act()
            assert sum(waits.values()) == before + 1
        torch.zeros(4).to(GPU)
        assert any("copy to the GPU" in place for place in waits)
        with pytest.raises(MixedDevices):
            x + torch.ones(4)
