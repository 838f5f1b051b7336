from __future__ import annotations

import torch
from torch import nn

from adafocus.policies.scaled import ScaledPolicy


def test_places_and_their_detached_copy_compile() -> None:
    """`torch.compile` handles a policy that returns locations and their detached copy, as Uni-AdaFocus on TSM does."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = ScaledPolicy(4, (2, 2), hidden=3)

        def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            where = self.policy(maps)
            return where, where.detach()

    network = Both()
    where, copy = torch.compile(network, backend="aot_eager")(torch.rand(2, 3, 4, 2, 2))
    assert where.shape == (2, 3, 4) and torch.equal(where, copy)
    where.sum().backward()
