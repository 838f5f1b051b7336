"""The differentiable policy of AdaFocus V2 on plain backbones: one patch location per frame."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen


class AffinePolicy(nn.Module):
    """Chooses one patch location per frame from the glance maps of this frame and, being recurrent, of those before it.

    1x1 convolution to 64 channels, BatchNorm, tanh, linear, BatchNorm, tanh for each frame; a GRU over the frames from
    a zero state; linear and sigmoid. It runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance map.
        map_size: height and width (h, w) of the glance map.
        hidden: width of the linear layer and the GRU (2048 in all published models).
        squeeze: number of channels after the 1x1 convolution.
        segments: number of frames of a clip; not used, because this policy works for any number.

    Source: AdaFocus V2 (arXiv 2112.14238) section 3.1; LeapLabTHU/AdaFocusV2, `PolicySTN` in models/adafocus_v2.py.
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
        """Chooses patch locations for some frames.

        Args:
            maps: (B, T, D, h, w) glance maps in processing order.
            state: (1, B, hidden) the GRU's state after the earlier frames; None for the first frames.

        Returns:
            locations (B, T, 2) in (0, 1), as (y, x), and the GRU's state after the last frame.
        """
        with full_precision(maps):
            code = self.encoder(widen(maps).flatten(0, 1)).unflatten(0, maps.shape[:2])
            memory, state = self.gru(code, state)
            return self.corner(memory).sigmoid(), state
