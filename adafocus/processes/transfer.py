"""Copies batches to the device, on a GPU concurrently with its computation."""

from __future__ import annotations

import torch

from adafocus.core.batch import Batch


class Transfer:
    """Copies batches to a device, on a GPU in a separate stream.

    A training step never synchronizes, so the CPU calls this for the next batch while the GPU still computes the
    previous step. In a separate stream the copy starts at once; in the default stream it would start after that step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch on the device; later operations in the current stream wait for the copy."""
        if self.stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(self.stream):
            moved = batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for tensor in (moved.frames, moved.labels):
            tensor.record_stream(current)  # its memory is not reused before the current stream has read it
        return moved
