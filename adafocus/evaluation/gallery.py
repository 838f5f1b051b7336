"""The clips of an evaluation that a report shows: mistakes of the highest probability, and some right predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from zlib import crc32

from torch import Tensor


@dataclass
class Example:
    """A clip with its prediction.

    Attributes:
        frames: (T, H, W, C) uint8 in temporal order.
        boxes: (T, P, 4) top, left, height and width in pixels of the P patches of each frame, padded with zeros; None
            for whole frames.
        label, answer: the true and the predicted class id.
        index: index of the video in the evaluation list.
        probability: probability of the predicted class.
    """

    frames: Tensor
    boxes: Tensor | None
    label: int
    answer: int
    index: int = -1
    probability: float = 0.0

    @property
    def right(self) -> bool:
        return self.label == self.answer


@dataclass
class Gallery:
    """Selects a few clips during an evaluation, so that no clip has to be read twice.

    Args:
        mistakes: number of wrong predictions to keep, those of the highest probability.
        right: number of right predictions to keep; which ones depends on the videos' indices alone.
    """

    mistakes: int = 12
    right: int = 6
    kept: list[Example] = field(default_factory=list)

    def offer(self, index: Tensor, labels: Tensor, logits: Tensor, show: Callable[[int, int, float], Example]) -> None:
        """Keeps those clips of a batch that rank higher than the clips kept so far.

        Args:
            index: (B,) indices of the videos.
            labels: (B,) class ids.
            logits: (B, K) predictions.
            show: (row, predicted class, its probability) -> the example of this row of the batch.
        """
        probability, answer = logits.float().softmax(1).max(1)
        guesses = zip(labels.tolist(), answer.tolist(), index.tolist(), probability.tolist(), strict=True)
        ranks = [_rank(label == guess, number, sure) for label, guess, number, sure in guesses]
        for right, limit in ((False, self.mistakes), (True, self.right)):
            known = [_rank(example.right, example.index, example.probability) for example in self.kept]
            best = sorted(rank for rank in (*known, *ranks) if rank[0] == right)[:limit]
            for row, rank in enumerate(ranks):
                if rank in best:
                    self.kept.append(show(row, int(answer[row]), float(probability[row])))
        self.keep(self.kept)

    def keep(self, examples: Iterable[Example]) -> None:
        """Keeps the highest-ranked of these examples, up to the two numbers of the class."""
        ranked = sorted(examples, key=lambda example: _rank(example.right, example.index, example.probability))
        wrong = [example for example in ranked if not example.right]
        self.kept = wrong[: self.mistakes] + [example for example in ranked if example.right][: self.right]


def _rank(right: bool, index: int, probability: float) -> tuple[bool, float, int]:
    return right, float(crc32(str(index).encode())) if right else -probability, index
