"""The policy of TokenFocus: scores the M cells (frame, row, column) of a clip and chooses the best ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPLORE = 0.25  #: share of the chosen cells that is chosen at random in training


class CellScores(nn.Module):
    """Scores every cell with the same small network over the glance maps, so that what it learns holds everywhere.

    Its input is the map of a frame, and the map's difference to the mean over the clip, which shows motion.

    Args:
        channels: number of channels D of the maps.
        grid: frames, rows and columns (N, rows, columns) of the grid.
        hidden: hidden width.
    """

    def __init__(self, channels: int, grid: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        self.grid = grid
        self.hidden, self.score = nn.Conv2d(2 * channels, hidden, 1), nn.Conv2d(hidden, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Computes scores (B, M) of the cells, in grid order, from maps (B, G, D, h, w) of evenly spaced frames."""
        both = torch.cat([maps, maps - maps.mean(1, keepdim=True)], 2)
        scores = self.score(functional.relu(self.hidden(both.flatten(0, 1))))
        return on_grid(scores.unflatten(0, maps.shape[:2])[:, :, 0], self.grid).flatten(1)


def on_grid(scores: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Resamples scores (B, G, h, w) to the cells of a grid (N, rows, columns), (B, N, rows, columns).

    A finer map is averaged over each cell; between coarser cells, and between frames, scores are interpolated linearly.
    """
    rows, columns = grid[1:]
    if scores.shape[-2] > rows or scores.shape[-1] > columns:
        scores = functional.adaptive_avg_pool2d(scores, (rows, columns))
    if tuple(scores.shape[1:]) == grid:
        return scores
    return functional.interpolate(scores[:, None], grid, mode="trilinear")[:, 0]


def choose_cells(scores: Tensor, count: int, draws: Tensor | None = None) -> Tensor:
    """Returns the `count` cells with the highest scores, best first, (B, count) int64.

    Args:
        scores: (B, M) scores of all cells.
        count: number of cells to choose.
        draws: (B, 2, M) uniform random numbers, for training. With the first M, cells are sampled without replacement
            with probabilities proportional to exp(score) (Gumbel noise is added to the scores); with the others, the
            share `EXPLORE` of the chosen cells is sampled uniformly.
    """
    if draws is None:
        return scores.topk(count, 1).indices
    noisy = scores.detach().float() - (-draws[:, 0].clamp(1e-9, 1 - 1e-6).log()).log()
    free = round(EXPLORE * count)
    wanted = noisy.scatter(1, draws[:, 1].topk(free, 1).indices, torch.inf) if free else noisy
    found = wanted.topk(count, 1).indices
    return found.gather(1, noisy.gather(1, found).argsort(1, descending=True))
