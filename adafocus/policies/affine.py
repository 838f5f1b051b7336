"""The differentiable policy of AdaFocus V2: one place a frame."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen


class AffinePolicy(nn.Module):
    """Glance maps of a clip to the corner of one patch a frame; recurrent, so a step knows the steps before it.

    1x1 convolution to 64 channels, BatchNorm, tanh, linear, BatchNorm, tanh for each frame; a GRU over the frames from a
    zero state; linear and sigmoid. It runs in float32 under autocast.

    Args:
        channels: D of the glance map.
        map_size: (h, w) of the glance map.
        hidden: width of the linear layer and the GRU (2048 in all published models).
        squeeze: channels after the 1x1 convolution.
        segments: frames of a clip; it works for any number.

    Source: AdaFocus V2 section 3.1; the released `policy_stn`.
    """

    def __init__(
        self,
        channels: int,
        map_size: tuple[int, int],
        hidden: int = 2048,
        squeeze: int = 64,
        segments: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, squeeze, 1, bias=False),
            nn.BatchNorm2d(squeeze),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(squeeze * map_size[0] * map_size[1], hidden),
            nn.BatchNorm1d(hidden),
            nn.Tanh(),
        )
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.corner = nn.Linear(hidden, 2)

    def forward(self, maps: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D, h, w) maps in processing order, and the GRU's state (1, B, hidden) after earlier frames.

        Returns:
            where (B, T, 2) in (0, 1), as (y, x), and the state after the last frame, so that frames may come one by one.
        """
        with full_precision(maps):
            code = self.encoder(widen(maps).flatten(0, 1)).unflatten(0, maps.shape[:2])
            memory, state = self.gru(code, state)
            return self.corner(memory).sigmoid(), state
