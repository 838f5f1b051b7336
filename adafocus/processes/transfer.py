"""Copies batches to the device; on a GPU beside its computation, so that it does not wait for them."""

from __future__ import annotations

import torch

from adafocus.core.batch import Batch


class Transfer:
    """Copies batches to a device, on a GPU on a stream of its own.

    A training step never waits for the GPU, so the CPU calls this for the next batch while the GPU still computes the
    step before. On a stream of its own the copy begins at once; on the default stream it would begin after that step.
    Only one batch is copied in advance, because the CPU cannot get further ahead than that.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """The batch on the device; what is computed from it on the current stream waits for the copy."""
        if self.stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(self.stream):
            moved = batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for tensor in (moved.frames, moved.labels):
            tensor.record_stream(current)  # its memory is not reused before the current stream has read it
        return moved
