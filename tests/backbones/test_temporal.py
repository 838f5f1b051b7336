"""Tests of each temporal module: against a plain implementation, against figures of the released code, and at every
position in a network where it can be inserted."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from torch import Tensor, nn

from adafocus.backbones import BACKBONES
from adafocus.backbones.adaptive import TemporalAdaptive
from adafocus.backbones.non_local import NonLocal
from adafocus.backbones.shift import Shifted, TemporalPool, temporal_shift
from adafocus.backbones.temporal import Temporal, insert
from adafocus.methods.recognizer.model import Recognizer


def plain_shift(x: Tensor, segments: int, fold: int, online: bool) -> Tensor:
    """The temporal shift written as a loop over frames, as a reference."""
    clips = x.unflatten(0, (-1, segments))
    y = clips.clone()
    for t in range(segments):
        past = clips[:, t - 1] if t else torch.zeros_like(clips[:, t])
        future = clips[:, t + 1] if t + 1 < segments else torch.zeros_like(clips[:, t])
        if online:
            y[:, t, :fold] = past[:, :fold]
        else:
            y[:, t, :fold] = future[:, :fold]
            y[:, t, fold : 2 * fold] = past[:, fold : 2 * fold]
    return y.flatten(0, 1)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(("segments", "channels", "fold"), [(8, 20, 2), (4, 16, 4), (1, 8, 1), (3, 7, 2), (2, 5, 0)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_shift_is_the_formula(
    segments: int, channels: int, fold: int, online: bool, memory: torch.memory_format
) -> None:
    x = torch.randn(2 * segments, channels, 3, 5, dtype=torch.float64).to(memory_format=memory).requires_grad_()
    y = temporal_shift(x, segments, fold, online=online)
    assert torch.equal(y, plain_shift(x, segments, fold, online)) and y.is_contiguous(memory_format=memory)
    assert torch.autograd.gradcheck(lambda v: temporal_shift(v, segments, fold, online=online), x)


def test_shift_against_the_released_operator() -> None:
    golden = Case("tsm_shift_operator")
    shapes = golden.about["inputs"]
    for case, segments, fold in (("a", 8, 2), ("b", 4, 4), ("c", 8, 2), ("d", 1, 2)):
        x = golden_weights.array(f"tsm:shift:{case}", shapes[f"tsm:shift:{case}"]["shape"]).requires_grad_()
        y = temporal_shift(x, segments, fold)
        y.backward(golden_weights.array(f"tsm:shift:{case}:grad", y.shape))
        golden.check(f"{case}_out", y, 0.0)
        golden.check(f"{case}_grad", x.grad, 0.0)
    x = golden_weights.array("tsm:shift:a", shapes["tsm:shift:a"]["shape"])
    golden.check("a_online_zero", temporal_shift(x, 8, 2, online=True), 0.0)


def test_a_batch_that_is_no_clip_and_a_fold_that_is_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="whole number of clips"):
        temporal_shift(torch.zeros(7, 8, 2, 2), 4, 1)
    with pytest.raises(ValueError, match="too large"):
        temporal_shift(torch.zeros(4, 8, 2, 2), 4, 5)
    with pytest.raises(ValueError, match="shift_div"):
        Shifted(nn.Identity(), 4, 1)


@pytest.mark.parametrize("segments", [2, 4, 8])
def test_temporal_pool_is_a_max_pool(segments: int) -> None:
    x = torch.randn(3 * segments, 5, 2, 3)
    clips = x.unflatten(0, (-1, segments)).transpose(1, 2)
    expected = nn.functional.max_pool3d(clips, (3, 1, 1), (2, 1, 1), (1, 0, 0)).transpose(1, 2).flatten(0, 1)
    assert torch.equal(TemporalPool(nn.Identity(), segments)(x), expected)
    with pytest.raises(ValueError, match="even"):
        TemporalPool(nn.Identity(), 5)


def plain_adaptive(module: TemporalAdaptive, x: Tensor) -> Tensor:
    """TAM as its authors implement it: one grouped convolution over time, with a group for every video and channel."""
    taps, importance = module.weights(x)
    videos, channels, segments = importance.shape
    weighted = x.unflatten(0, (-1, segments)).transpose(1, 2) * importance[..., None, None]
    rows = weighted.reshape(1, videos * channels, segments, -1)
    y = nn.functional.conv2d(rows, taps.reshape(videos * channels, 1, 3, 1), padding=(1, 0), groups=videos * channels)
    return y.view(videos, channels, segments, *x.shape[-2:]).transpose(1, 2).flatten(0, 1)


def test_tam_equals_its_plain_form_with_gradients() -> None:
    torch.manual_seed(0)
    module = TemporalAdaptive(8, 4).double()
    x = torch.randn(12, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    up = torch.randn_like(x)
    ours = torch.autograd.grad(module(x), [x, *module.parameters()], up)
    plain = torch.autograd.grad(plain_adaptive(module, x), [x, *module.parameters()], up)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_tam_against_the_released_module(mode: str) -> None:
    golden = Case("tam_module")
    module = TemporalAdaptive(32, 8).train(mode == "train")
    state = golden.state()
    module.load_state_dict({key.removeprefix("tam_module."): value for key, value in state.items()})
    x = golden_weights.array("tam_module/x", (16, 32, 5, 7)).requires_grad_()
    y = module(x)
    y.backward(golden_weights.array("tam_module/upstream", (16, 32, 5, 7)))
    found = {f"{mode}_y": y, f"{mode}_grad_x": x.grad}
    found |= {f"{mode}_grad_{name}": parameter.grad for name, parameter in module.named_parameters()}
    if mode == "train":
        found |= {f"train_{name}": value for name, value in module.named_buffers() if "running" in name}
    else:
        taps, importance = module.weights(x)
        found |= {"eval_kernel": taps.flatten(0, 1), "eval_activation": importance}
    assert set(found) <= set(golden) and len(found) >= 10
    for name, ours in found.items():
        golden.check(name, ours)


def test_non_local_against_the_released_block() -> None:
    golden = Case("tsm_nonlocal_block")
    block = NonLocal(16, 4).eval()
    block.load_state_dict(golden.state())
    clips = golden_weights.array("tsm:nonlocal", (2, 16, 4, 7, 6))
    with torch.no_grad():
        out = block(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4)).transpose(1, 2)
    golden.check("out", out)


def test_non_local_is_the_formula_and_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    block = NonLocal(8, 2).double().eval()
    x = torch.randn(4, 8, 5, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.W[1].weight)
    assert torch.allclose(block(x), plain_non_local(block, x), atol=1e-12)


def test_a_training_step_of_non_local_is_that_of_the_formula() -> None:
    """No step of NL-TSM's released program was recorded: with partial BN, it never trains the scale, which starts at 0.

    So gradients and statistics are compared with the block as ops/non_local.py writes it, on 5-D volumes.
    """
    torch.manual_seed(0)
    block = NonLocal(8, 2).double().train()
    nn.init.uniform_(block.W[1].weight, 0.5, 1.5)
    reference = deepcopy(block)
    x, target = torch.randn(2, 8, 8, 5, 4, dtype=torch.float64).unbind()
    optimizers = [torch.optim.SGD(one.parameters(), 0.1, 0.9, weight_decay=5e-4) for one in (block, reference)]
    for _ in range(2):
        for output, optimizer in zip((block(x), plain_non_local(reference, x)), optimizers, strict=True):
            optimizer.zero_grad()
            (output - target).square().mean().backward()
            optimizer.step()
    theirs = reference.state_dict()
    assert int(theirs["W.1.num_batches_tracked"]) == 2
    for key, value in block.state_dict().items():
        assert torch.allclose(value, theirs[key], atol=1e-12), key


def plain_non_local(block: NonLocal, x: Tensor) -> Tensor:
    """The non-local block of ops/non_local.py on volumes (B, C, T, H, W), as a reference."""
    volume = x.unflatten(0, (-1, block.segments)).transpose(1, 2)
    theta = block.theta(volume).flatten(2).transpose(1, 2)
    phi = nn.functional.max_pool3d(block.phi[0](volume), (1, 2, 2)).flatten(2)
    g = nn.functional.max_pool3d(block.g[0](volume), (1, 2, 2)).flatten(2)
    y = ((theta @ phi).softmax(-1) @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, volume.shape[2:])
    return (volume + block.W[1](block.W[0](y))).transpose(1, 2).flatten(0, 1)


def shifted_modules(name: str, temporal: Temporal, segments: int = 4) -> list[str]:
    with torch.device("meta"):
        net = insert(BACKBONES[name](), segments, temporal)
    return [path for path, module in net.named_modules() if isinstance(module, Shifted)]


def test_where_the_shift_goes() -> None:
    """The shifted blocks are those of `make_temporal_shift` in ops/temporal_shift.py of
    mit-han-lab/temporal-shift-module."""
    both = Temporal("bidirectional")
    assert len(shifted_modules("resnet50", both)) == 16
    names = shifted_modules("resnet101", both)
    assert len(names) == 18 and "layer3.22.conv1" in names and "layer3.1.conv1" not in names
    assert len(shifted_modules("resnet101", Temporal("bidirectional", place="block"))) == 33
    assert shifted_modules("resnet18", both)[0] == "layer1.0.conv1"
    ten = [f"layers.{n}.conv.0.0" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    assert shifted_modules("mobilenet_v2", both) == ten
    assert shifted_modules("mobilenet_v2", Temporal("online")) == ten
    branch = shifted_modules("mobilenet_v2", Temporal("bidirectional", place="branch"))
    assert branch == [f"layers.{n}.conv" for n in range(1, 18)]


def test_block_placement_shifts_the_identity_too() -> None:
    torch.manual_seed(0)
    net = insert(BACKBONES["resnet18"](), 2, Temporal("bidirectional", place="block")).eval()
    block = net.layer1[1]
    x = torch.randn(4, 64, 6, 6)
    with torch.no_grad():
        assert torch.equal(block(x), block.net(temporal_shift(x, 2, 8)))


@pytest.mark.parametrize(
    ("name", "temporal"),
    [
        ("mobilenet_v2", Temporal(adaptive=True)),
        ("mobilenet_v2", Temporal(non_local=True)),
        ("tiny_focus", Temporal(pool=True)),
        ("resnet50", Temporal("bidirectional", place="branch")),
        ("mobilenet_v2", Temporal("bidirectional", place="block")),
        ("tiny_focus", Temporal("bidirectional", place="block")),
        ("resnet18", Temporal("bidirectional", non_local=True)),
        ("resnet50", Temporal("sideways")),
        ("resnet50", Temporal("bidirectional", place="everywhere")),
    ],
)
def test_what_has_no_place_is_refused(name: str, temporal: Temporal) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="backbone|ResNet|non-local|tiny|unknown"):
        insert(BACKBONES[name](), 4, temporal)


@pytest.mark.parametrize(
    ("name", "temporal"),
    [
        ("resnet18", Temporal("bidirectional", div=4)),
        ("resnet34", Temporal("bidirectional", non_local=True)),
        ("resnet18", Temporal("bidirectional", pool=True, adaptive=True)),
        ("mobilenet_v2", Temporal("online")),
        ("tiny_focus", Temporal("bidirectional", div=4)),
        ("tiny_focus", Temporal(adaptive=True)),
    ],
)
def test_frames_of_a_clip_see_each_other_and_clips_do_not(name: str, temporal: Temporal) -> None:
    torch.manual_seed(0)
    model = Recognizer(insert(BACKBONES[name](), 4, temporal), num_classes=5, segments=4).eval().double()
    clips = torch.randn(2, 4, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        logits = model(clips).logits
        assert torch.allclose(model(clips[1:]).logits, logits[1:], rtol=0, atol=1e-14)
        assert not torch.allclose(model(clips.flip(1)).logits, logits, rtol=0, atol=1e-12)


def test_without_temporal_modules_the_order_says_nothing() -> None:
    torch.manual_seed(0)
    model = Recognizer(BACKBONES["tiny_focus"](), num_classes=5, segments=4).eval()
    clips = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(clips.flip(1)).logits, model(clips).logits, atol=1e-6)


def test_without_background_a_still_clip_says_nothing() -> None:
    torch.manual_seed(0)
    model = Recognizer(BACKBONES["tiny_focus"](), num_classes=5, segments=4, remove_background=True).eval()
    clips = torch.randn(2, 4, 3, 32, 32)
    shade = torch.randn(2, 1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(clips + shade).logits, model(clips).logits, atol=1e-5)
