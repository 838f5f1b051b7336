"""Other ways to choose cells, which the learned one is compared with: scores (B, M) without a network.

The two that look at pixels see the glance frames at full size and are interpolated between them as the learned scores
are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.policies.cells import on_grid

#: Values of `Variant.where` of the rows of a table, the learned choice first.
CHOICES = ("learned", "random", "uniform", "center", "difference", "unique")
GOLDEN = (5**0.5 - 1) / 2


def uniform(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """(1, M): the best K cells are spread evenly over the clip, for every K.

    The fractional parts of multiples of the golden ratio in an interval belong to numbers at nearly equal distances.
    """
    index = torch.arange(grid[0] * grid[1] * grid[2], dtype=torch.float64, device=device)
    return (index * GOLDEN).frac()[None]


def center(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """(1, M): the best cells are those nearest to the middle of the frame, evenly over the frames."""
    frames, rows, columns = grid
    y = torch.arange(rows, device=device, dtype=torch.float64)[:, None] - (rows - 1) / 2
    x = torch.arange(columns, device=device, dtype=torch.float64) - (columns - 1) / 2
    near = -(y.square() + x.square()).expand(frames, -1, -1).flatten()
    # Cells of one ring are equally near (distances are multiples of 1/4): these are spread over frames and directions.
    return near[None] + 0.1 * uniform(grid, device)


def difference(frames: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, M): mean absolute difference of a cell's pixels to those of the glance frame before; frame 0: to frame 1.

    Args:
        frames: (B, G, 3, S, S) glance frames.
        grid: see `CellScores`.
    """
    if frames.shape[1] == 1:
        return uniform(grid, frames.device).float().expand(len(frames), -1)
    change = frames.diff(dim=1).abs().mean(2)
    return _cells(torch.cat([change[:, :1], change], 1), grid)


def unique(frames: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, M): how little a cell's pixels resemble those of the other cells: minus the mean cosine similarity.

    Arguments are those of `difference`. The mean of the cosines with all cells is the cosine with their mean direction.
    """
    _, rows, columns = grid
    patches = frames.unflatten(-2, (rows, -1)).unflatten(-1, (columns, -1))
    vectors = functional.normalize(patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4), dim=-1)
    likeness = (vectors * vectors.mean((1, 2, 3), keepdim=True)).sum(-1)
    return on_grid(-likeness, grid).flatten(1)


def _cells(values: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Averages values (B, G, S, S) over cells."""
    return on_grid(functional.adaptive_avg_pool2d(values, grid[1:]), grid).flatten(1)
