"""`Objective`, the loss of predictions: cross entropy with label smoothing, class weights, mixed clips, a teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adafocus.core.batch import Batch


class Objective:
    """Cross entropy of predictions with the first label of each clip, plus a term for a teacher's logits.

    With a teacher, temperature^2 KL(softmax(teacher / temperature) || softmax(logits / temperature)) is added, times
    its weight; the square keeps the size of its gradient independent of the temperature (arXiv 1503.02531, section 2).
    For a mixed clip (`Batch.mixed`), both terms are averages over its own and its partner's target, by their shares.

    Args:
        label_smoothing: share of the target that all classes divide evenly, see `torch.nn.functional.cross_entropy`.
        class_weights: (K,) factors of the cross entropy by class; the mean over clips is not divided by their sum, so
            that it does not depend on how a batch is divided among processes. None: 1 for every class.
        teacher_weight: weight of the teacher's term, for batches that have the teacher's logits.
        temperature: temperature of the teacher's term.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        teacher_weight: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.teacher_weight, self.temperature = teacher_weight, temperature

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Computes the loss, averaged over all predictions.

        Args:
            logits: (B, T, K) logits of T predictions for each clip.
            batch: the clips; `labels`, `mixed` and `teacher` are read.
        """
        loss = self._cross_entropy(logits, batch)
        if batch.teacher is not None and self.teacher_weight:
            loss = loss + self.teacher_weight * self._distance(logits, batch.teacher, batch)
        return loss

    def _cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        label, rows = batch.labels[:, 0], logits.flatten(0, 1)
        if batch.mixed is None and self.class_weights is None:
            target = label.repeat_interleave(logits.shape[1])
            return functional.cross_entropy(rows, target, label_smoothing=self.label_smoothing)

        def clips(of: Tensor) -> Tensor:
            target = of.repeat_interleave(logits.shape[1])
            losses = functional.cross_entropy(
                rows, target, self.class_weights, label_smoothing=self.label_smoothing, reduction="none"
            )
            return losses.unflatten(0, logits.shape[:2]).mean(1)

        if batch.mixed is None:
            return clips(label).mean()
        share = batch.mixed.share
        return (share * clips(label) + (1 - share) * clips(label[batch.mixed.partner])).mean()

    def _distance(self, logits: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Computes the teacher's term, which is 0 for clips without logits of the teacher (NaN)."""
        known = teacher.isfinite().all(1)
        target = (teacher.nan_to_num() / self.temperature).softmax(1)
        if batch.mixed is not None:
            partner, share = batch.mixed.partner, batch.mixed.share[:, None]
            target, known = share * target + (1 - share) * target[partner], known & known[partner]
        ours = (logits.float() / self.temperature).log_softmax(2)
        losses = functional.kl_div(ours, target[:, None].expand_as(ours), reduction="none").sum(2).mean(1)
        return self.temperature**2 * torch.where(known, losses, 0.0).mean()
