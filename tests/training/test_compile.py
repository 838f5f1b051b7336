"""torch.compile runs training steps and gives the same loss and gradients.

The compiler's front end alone is used (`aot_eager`): it finds what cannot be traced or differentiated, in a fraction of
the time, and leaves the kernels as they are.
"""

from __future__ import annotations

import pytest
import torch
from helpers.steps import batch_of, settings_of

from adafocus import build


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1 2", "v2", "uni tsm"])  # GRUs, and a view returned with its detached copy
def test_compiled_step(name: str) -> None:
    torch._dynamo.reset()
    settings = settings_of(name)
    batch = batch_of(settings)
    found = []
    for compiled in (False, True):
        stage = build.stage(settings, build.seeded_model(settings, 10, weights=False))
        stage.net = stage.compiled(backend="aot_eager") if compiled else stage.model
        stage.train()
        losses = []
        for _ in range(stage.rounds + 1):
            torch.manual_seed(0)
            loss = stage.step(batch).loss
            loss.backward()
            losses.append(loss.item())
        found.append((losses, [p.grad for p in stage.model.parameters()]))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for plain, traced in zip(found[0][1], found[1][1], strict=True):
        assert (plain is None) == (traced is None)
        assert plain is None or torch.allclose(plain, traced, rtol=1e-3, atol=1e-6)
