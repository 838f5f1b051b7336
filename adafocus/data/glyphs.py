"""Synthetic videos (`dataset=glyphs`), rendered at run time, in which only a small patch shows the class.

A cluttered frame holds one warm-colored glyph and a few cold-colored ones of other classes. Every 2x2 block of a
glyph's cells has exactly two cells of ink, so a frame reduced to a quarter of its side shows the same warm spot for
every class, which is the glyph's location but not its class. A video is a pure function of (seed, split, index).

Tasks:
    where: the glyph drifts through all frames; a network must look at the right location.
    when: the glyph is visible in a few consecutive frames only; a network must also choose the right frames.
    motion: a plain square moves in one of several directions, leaving at one border and entering at the opposite one.
    Its
        location in a single frame has the same distribution for all classes, so only the order of frames shows the
        class.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np

from adafocus.core.choices import TASKS
from adafocus.core.rng import generator

CELLS = 8  # number of cells along a glyph's side
REDUCTION = 4  # glyph locations are multiples of this many pixels; in frames reduced by this factor glyphs look alike
_BLOCKS = np.array(
    [  # the six 2x2 blocks with two cells of ink
        [[1, 1], [0, 0]],
        [[0, 0], [1, 1]],
        [[1, 0], [1, 0]],
        [[0, 1], [0, 1]],
        [[1, 0], [0, 1]],
        [[0, 1], [1, 0]],
    ],
    dtype=np.uint8,
)


@dataclass(frozen=True)
class Drawn:
    """A rendered video: frames (T, H, W, 3) uint8, its class, and ground truth that networks do not get.

    Attributes:
        where: (T, 2) float32, top left corner (y, x) of the glyph in pixels.
        visible: (T,) bool, the frames that show it.
    """

    frames: np.ndarray
    label: int
    where: np.ndarray
    visible: np.ndarray


def glyph_patterns(classes: int) -> np.ndarray:
    """Returns the glyphs of all classes as cells (classes, 8, 8) of 0 or 1, the same for every seed."""
    patterns = []
    for label in range(classes):
        blocks = _BLOCKS[generator(0, "glyph", label).integers(len(_BLOCKS), size=(CELLS // 2, CELLS // 2))]
        patterns.append(blocks.transpose(0, 2, 1, 3).reshape(CELLS, CELLS))
    return np.stack(patterns)


class GlyphVideos:
    """The synthetic videos of one split, by index.

    Args:
        split: "train" or "val"; the splits share no videos.
        size: number of videos.
        frames: number of frames T per video.
        frame_size: side of the square frames in pixels.
        classes: number of classes, at least 2; in `motion`, the directions are evenly spaced on a circle.
        glyph_size: side of a glyph in pixels, 8 or 16; a pixel of the reduced frame must cover whole 2x2 blocks of
            cells, or it would show the class.
        task: "where", "when" or "motion", as the module docstring describes.
        visible: number of frames that show the glyph in the task "when"; None: a quarter of them, at least one.
        seed: seed of the run.
        others: number of cold-colored glyphs of other classes in every frame.
        tints: number of glyph colors; class k has color k % tints, which is visible in a reduced frame too. With 1 a
            reduced frame shows nothing of the class, with more it narrows the class down.
        decoys: number of warm-colored glyphs in every frame that belong to no class (there are `classes` different
            ones). In a reduced frame they look like the glyph of the class, so several locations must be looked at.
    """

    def __init__(
        self,
        *,
        split: str,
        size: int,
        frames: int,
        frame_size: int = 96,
        classes: int = 10,
        glyph_size: int = 16,
        task: str = "where",
        visible: int | None = None,
        seed: int = 0,
        others: int = 3,
        tints: int = 1,
        decoys: int = 0,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task={task!r} is unknown; choose one of {', '.join(TASKS)}")
        if glyph_size not in (CELLS, 2 * CELLS) or glyph_size >= frame_size:
            raise ValueError(
                f"glyph_size={glyph_size} must be {CELLS} or {2 * CELLS} (a larger multiple of 8 shows its cells in "
                f"the reduced view) and smaller than frame_size={frame_size}"
            )
        if visible is not None and not 1 <= visible <= frames:
            raise ValueError(f"visible={visible} must be from 1 to the {frames} frames of a video")
        if task == "motion" and frames < 2:
            raise ValueError(f"task=motion needs at least 2 frames, not {frames}; choose more")
        if not 1 <= tints <= classes:
            raise ValueError(f"tints={tints} must be from 1 to the {classes} classes")
        if classes < 2:
            raise ValueError(f"classes={classes} must be at least 2")
        self.split, self.size, self.frames, self.frame_size = split, size, frames, frame_size
        self.classes, self.glyph_size, self.task, self.seed, self.others = classes, glyph_size, task, seed, others
        self.visible = visible or max(1, frames // 4)
        self.tints, self.decoys = tints, decoys
        cells = glyph_patterns(2 * classes)  # the second half belongs to the decoys
        self.ink = np.kron(cells, np.ones((1, glyph_size // CELLS, glyph_size // CELLS), np.uint8)).astype(np.float32)
        # Interpolates a coarse grid of colors to a frame: background = rows @ grid @ rows.T for each channel.
        place = np.linspace(0, 5, frame_size)
        self._spread = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(6))).astype(np.float32)

    def __len__(self) -> int:
        return self.size

    def draw(self, index: int) -> Drawn:
        """Renders video `index`, which must be in [0, size)."""
        if not 0 <= index < self.size:
            raise IndexError(f"video {index} of {self.size}")
        rng = generator(self.seed, f"glyphs {self.split} {self.task}", index)
        label = int(rng.integers(self.classes))
        frames = self._background(rng)
        for _ in range(self.others):
            other = self._path(rng, 2.0)
            self._put(frames, other, self.ink[rng.integers(self.classes)], _cold(rng), np.ones(self.frames, bool))
        for _ in range(self.decoys):
            ink = self.ink[self.classes + rng.integers(self.classes)]
            colors = _warm(rng, int(rng.integers(self.tints)), self.tints)
            self._put(frames, self._path(rng, 2.0), ink, colors, np.ones(self.frames, bool))
        shown = np.ones(self.frames, bool)
        if self.task == "when":
            shown[:] = False
            first = int(rng.integers(self.frames - self.visible + 1))
            shown[first : first + self.visible] = True
        if self.task == "motion":
            where = self._directed(rng, label)
            ink = np.full((self.glyph_size, self.glyph_size), 0.5, np.float32)
        else:
            where, ink = self._path(rng, 2.0), self.ink[label]
        self._put(frames, where, ink, _warm(rng, label % self.tints, self.tints), shown)
        return Drawn(frames, label, where.astype(np.float32), shown)

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """Makes a background (H, W, 3) of smooth, nearly gray colors with noise, never as warm or cold as a glyph."""
        grid = 110 + 40 * rng.random((1, 6, 6), dtype=np.float32) + 20 * rng.random((3, 6, 6), dtype=np.float32)
        smooth = (self._spread @ grid @ self._spread.T).transpose(1, 2, 0)
        grain = rng.integers(-20, 21, size=(self.frames, self.frame_size, self.frame_size, 1), dtype=np.int16)
        return (smooth.astype(np.int16) + grain).astype(np.uint8)

    def _path(self, rng: np.random.Generator, speed: float) -> np.ndarray:
        """Returns glyph locations (T, 2) in integer pixels along a straight path that is reflected at the borders."""
        free = self.frame_size - self.glyph_size
        start, velocity = rng.uniform(0, free, 2), rng.uniform(-speed, speed, 2)
        place = start + velocity * np.arange(self.frames)[:, None]
        return _on_grid(free - np.abs(free - np.mod(place, 2 * free)), free)

    def _directed(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """Returns locations (T, 2) along a straight path in the direction of the class, wrapped around at the borders.

        With wrap-around a uniform start makes the location in every frame uniform. A path inside the frame would start
        on the left for one class and on the right for another, so that a single frame would show the class.
        """
        places = (self.frame_size - self.glyph_size) // REDUCTION + 1
        angle = 2 * np.pi * label / self.classes
        # The path covers half the frame in T steps. A step of half a frame would look the same in both directions.
        step = places / (2 * self.frames) * np.array([np.sin(angle), np.cos(angle)])
        way = rng.uniform(0, places, 2) + step * np.arange(self.frames)[:, None]
        return (np.floor(way).astype(np.int64) % places) * REDUCTION

    def _put(
        self, frames: np.ndarray, where: np.ndarray, ink: np.ndarray, colors: np.ndarray, shown: np.ndarray
    ) -> None:
        """Draws a glyph with background and ink colors `colors` (2, 3) into the frames where `shown` is true."""
        picture = (colors[0] + ink[..., None] * (colors[1] - colors[0])).astype(np.uint8)
        side = self.glyph_size
        for frame in np.flatnonzero(shown):
            top, left = where[frame]
            frames[frame, top : top + side, left : left + side] = picture


def _on_grid(place: np.ndarray, free: int) -> np.ndarray:
    """Rounds locations to multiples of REDUCTION pixels, from 0 to the largest offset `free`."""
    return (np.floor(np.minimum(place, free) / REDUCTION) * REDUCTION).astype(np.int64)


def _warm(rng: np.random.Generator, tint: int, tints: int) -> np.ndarray:
    """Returns random warm colors (2, 3) float32 of background and ink; tints range from magenta over red to green."""
    colors = np.array([[120, 10, 10], [250, 200, 60]], np.float32)
    if tints > 1:
        hue = (200 * tint / (tints - 1) - 80) / 360
        colors = 255 * np.array([hsv_to_rgb(hue % 1, 0.9, 0.45), hsv_to_rgb(hue % 1, 0.6, 0.95)], np.float32)
    return colors + rng.uniform(-10, 5, (2, 3)).astype(np.float32)


def _cold(rng: np.random.Generator) -> np.ndarray:
    return np.array([[10, 20, 120], [60, 200, 250]], np.float32) + rng.uniform(-10, 5, (2, 3)).astype(np.float32)
