"""Settings of a GPU, and copies to it, with a pretended GPU."""

from __future__ import annotations

from unittest import mock

import torch
from helpers.pretended import GPU, OnGpu, pretended_gpu

from adafocus.core.batch import Batch
from adafocus.layers.precision import full_precision
from adafocus.processes.backends import backend_settings, set_backends
from adafocus.processes.transfer import Transfer
from adafocus.training.optimizer import make_optimizer
from adafocus.training.settings import Settings


def test_policies_leave_tensorfloat_and_others_do_not() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        with pretended_gpu():
            set_backends(GPU, tf32=True, benchmark=True)
            assert backend_settings(GPU) == {"tf32": True, "cudnn_benchmark": True}
            with full_precision(OnGpu(torch.zeros(1))):
                assert not cudnn.allow_tf32 and not matmul.allow_tf32
            assert cudnn.allow_tf32 and matmul.allow_tf32
            set_backends(GPU, tf32=False, benchmark=False)
            assert backend_settings(GPU) == {"tf32": False, "cudnn_benchmark": False}
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before
    assert backend_settings(torch.device("cpu")) is None


def test_batches_are_copied_on_a_stream_of_their_own_which_the_step_waits_for() -> None:
    labels = torch.zeros(2, 1, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8), labels, torch.arange(2), 0, torch.ones(2).bool())
    calls = []
    with pretended_gpu() as waits:
        transfer = Transfer(GPU)
        transfer.stream.calls = calls
        with mock.patch.object(OnGpu, "record_stream", lambda *_: calls.append("kept")):
            moved = transfer(batch)
        assert not waits and isinstance(moved.frames, OnGpu) and isinstance(moved.labels, OnGpu)
    assert calls == ["side stream", "current stream waits", "kept", "kept"]
    assert Transfer(torch.device("cpu"))(batch).frames is batch.frames


def test_optimizers_are_fused_on_request_only() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    stage = mock.Mock()
    stage.learning_groups.return_value = [mock.Mock(parameters=[parameter], rate=1.0, decay=1.0)]
    stage.model.parameters.return_value = [parameter]
    for name in ("sgd", "adamw"):
        loop = Settings(1, 1, [0.1], 0, optimizer=name)
        for fused in (True, False):
            assert bool(make_optimizer(stage, loop, fused=fused).defaults["fused"]) is fused
