"""The policy of AdaFocus V2 on TSM backbones: one patch location per video."""

from __future__ import annotations

from torch import Tensor, nn

from adafocus.layers.precision import full_precision, widen


class StackedPolicy(nn.Module):
    """Chooses one patch location for a whole video from the glance maps of all frames, stacked on the channels.

    1x1 convolution to 64 channels, BatchNorm, tanh; two linear layers with BatchNorm and tanh; linear and sigmoid. It
    runs in float32 under autocast.

    Args:
        channels: number of channels D of the glance map.
        segments: number of glance frames G.
        map_size: height and width (h, w) of the glance map.
        hidden: width of the first linear layer (1024 in the repository); the second has half of it.
        squeeze: number of channels after the convolution.

    Source: LeapLabTHU/AdaFocusV2, `AdaFocus.policy_stn` in main.py of the experiments on Something-Something and
    Jester.
    """

    def __init__(
        self, channels: int, segments: int, map_size: tuple[int, int], hidden: int = 1024, squeeze: int = 64
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(segments * channels, squeeze, 1, bias=False),
            nn.BatchNorm2d(squeeze),
            nn.Tanh(),
            nn.Flatten(),
        ]
        width = squeeze * map_size[0] * map_size[1]
        for after in (hidden, hidden // 2):
            layers += [nn.Linear(width, after), nn.BatchNorm1d(after), nn.Tanh()]
            width = after
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2), nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """Computes patch locations (B, 2) in (0, 1), as (y, x), from glance maps (B, G, D, h, w)."""
        with full_precision(maps):
            return self.layers(widen(maps).flatten(1, 2))
