"""Controls of TokenFocus: scores (B or 1, M) of the M cells of a clip that are computed without a network.

`difference` and `unique` read the pixels of the glance frames at full size; for the frames between them scores are
interpolated, as the learned ones are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.policies.cells import on_grid

#: Values of `Variant.where`: the learned choice, then the controls.
CHOICES = ("learned", "random", "uniform", "center", "difference", "unique")
GOLDEN = (5**0.5 - 1) / 2


def uniform(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Scores (1, M) by which the best n cells are spread evenly over the clip, for every n.

    They are the fractional parts of multiples of the golden ratio: the indices with the n largest ones have nearly
    equal
    distances.
    """
    index = torch.arange(grid[0] * grid[1] * grid[2], dtype=torch.float64, device=device)
    return (index * GOLDEN).frac()[None]


def center(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Scores (1, M) by which the best cells are those nearest to the middle of the frame, evenly over the frames."""
    frames, rows, columns = grid
    y = torch.arange(rows, device=device, dtype=torch.float64)[:, None] - (rows - 1) / 2
    x = torch.arange(columns, device=device, dtype=torch.float64) - (columns - 1) / 2
    near = -(y.square() + x.square()).expand(frames, -1, -1).flatten()
    # Cells at equal distances (squares are multiples of 1/4) are spread evenly over frames and directions.
    return near[None] + 0.1 * uniform(grid, device)


def difference(frames: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Scores (B, M): mean absolute difference of a cell's pixels to the previous glance frame (of frame 0 to the next).

    Args:
        frames: (B, G, 3, S, S) glance frames.
        grid: numbers of candidate frames, rows and columns of cells.
    """
    if frames.shape[1] == 1:
        return uniform(grid, frames.device).float().expand(len(frames), -1)
    change = frames.diff(dim=1).abs().mean(2)
    return _cells(torch.cat([change[:, :1], change], 1), grid)


def unique(frames: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Scores (B, M): minus the mean cosine similarity of a cell's pixels to those of all cells of the clip.

    The mean of the cosines is the scalar product with the mean of the unit vectors. Arguments as in `difference`.
    """
    _, rows, columns = grid
    patches = frames.unflatten(-2, (rows, -1)).unflatten(-1, (columns, -1))
    vectors = functional.normalize(patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4), dim=-1)
    likeness = (vectors * vectors.mean((1, 2, 3), keepdim=True)).sum(-1)
    return on_grid(-likeness, grid).flatten(1)


def _cells(values: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Averages values (B, G, S, S) over the pixels of each cell, (B, M)."""
    return on_grid(functional.adaptive_avg_pool2d(values, grid[1:]), grid).flatten(1)
