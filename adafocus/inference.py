"""Makes a trained network faster in prediction: folds BatchNorm, lowers the precision, runs the backbones elsewhere.

Only the backbones are changed, which take nearly all of the time; policies, crops and heads stay in float32.
Evaluation, early exit and prediction call the same backbones, so the changes apply to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adafocus import engines
from adafocus.core.stage import BACKBONE_NAMES
from adafocus.layers.precision import channels_last

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Largest deviation of a folded network's logits, relative to the largest logit. Rounding alone gives about 1e-6.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Program:
    """The way backbones are run: precision, folding and compilation.

    Attributes:
        precision: fp32, bf16 or fp16; the latter two by autocast.
        fold_norm: whether BatchNorm is folded into the convolution before it. That is exact but for rounding.
        engine: what runs them: eager (torch), compile (torch.compile), onnxruntime or openvino.
        part: the backbones that the engine runs: "all", or "glance" or "focus" alone; eager runs the other one.
    """

    precision: str = "fp32"
    fold_norm: bool = False
    engine: str = "eager"
    part: str = "all"

    @property
    def plain(self) -> bool:
        """Whether the network runs as it was trained, so that predictions have the same bits."""
        return self.precision == "fp32" and not self.fold_norm and self.engine == "eager"

    def __str__(self) -> str:
        """Returns the differences to training as text, for the line that describes a protocol."""
        parts = [self.precision] if self.precision != "fp32" else []
        parts += ["BatchNorm folded"] if self.fold_norm else []
        if self.engine != "eager":
            parts.append(self.engine + ("" if self.part == "all" else f" ({self.part})"))
        return ", ".join(parts)


@dataclass(frozen=True)
class Agreement:
    """Comparison of a network's logits with and without a program.

    Attributes:
        clips: number of clips compared.
        same_class: share of them with the same predicted class.
        deviation: largest difference of a logit, relative to the largest logit.
    """

    clips: int
    same_class: float
    deviation: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def pick_precision(precision: str, device: torch.device) -> str:
    """Replaces "auto" by bf16 on devices with matrix units for it, else by fp32; returns other values unchanged."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    # Without AMX a CPU converts bf16 to float32 and back, which costs more time than it saves.
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def backbones_of(network: nn.Module) -> dict[str, nn.Module]:
    """Returns the backbones of a network by the names that they have in this package's networks."""
    return {name: part for name, part in network.named_children() if name in BACKBONE_NAMES}


@torch.no_grad()
def _input_of(network: nn.Module, backbone: nn.Module, example: Tensor) -> Tensor:
    """Returns the images (N, C, H, W) that a backbone sees of a clip."""
    seen: list[Tensor] = []
    hook = backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(example)
    finally:
        hook.remove()
    return seen[0]


def apply(network: nn.Module, program: Program, example: Tensor) -> None:
    """Changes a trained network in place; it can no longer be trained.

    Args:
        network: the network, on its device.
        program: precision, folding and compilation.
        example: normalized frames (1, T, C, S, S) of a clip, for which the folded network is compared with the
            original.

    Raises:
        RuntimeError: folding has changed the predictions.
        UserError: the engine is not installed, or does not fit.
    """
    if program.plain:
        return
    engines.check(program.engine, program.precision, example.device)
    network.eval()
    if program.fold_norm:
        fold_norms(network, example)
    channels_last(network)
    for name, backbone in backbones_of(network).items():
        mine = program.part == "all" or (program.part == "glance") == (name == "glance_net")
        if mine and program.engine in engines.NEEDS:
            engines.run_by(program.engine, backbone, _input_of(network, backbone, example), program.precision)
            continue
        if program.precision != "fp32":
            backbone.forward = _autocast(backbone.forward, example.device.type, DTYPES[program.precision])
        if mine and program.engine == "compile":
            backbone.compile()


def _autocast(forward: Callable[..., Tensor], device: str, dtype: torch.dtype) -> Callable[..., Tensor]:
    def lower(*arguments: Any) -> Tensor:
        with torch.autocast(device, dtype):
            maps = forward(*arguments)
        return maps.float()

    return lower


@torch.no_grad()
def fold_norms(network: nn.Module, example: Tensor) -> int:
    """Folds each BatchNorm of the backbones that directly follows a convolution into it; returns their number.

    A forward pass of `example` shows which BatchNorm reads the output of which convolution, so the code of the network
    need not be known.

    Raises:
        RuntimeError: the predictions have changed, for example because another layer also reads that output.
    """
    network.eval()
    convolution_of: dict[int, nn.Conv2d] = {}  # id of an output -> the convolution
    outputs: list[Tensor] = []  # keeps the outputs, so that ids stay unique
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}  # BatchNorm -> convolution

    def made(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        convolution_of[id(output)] = module
        outputs.append(output)

    def read(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in convolution_of:
            pairs[module] = convolution_of[id(inputs[0])]

    hooks = []
    for backbone in backbones_of(network).values():
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                hooks.append(module.register_forward_hook(made))
            elif type(module) is nn.BatchNorm2d:  # not timm's subclasses, which include an activation
                hooks.append(module.register_forward_pre_hook(read))
    try:
        before = network(example).logits
    finally:
        for hook in hooks:
            hook.remove()
    places = {id(part): (parent, name) for parent in network.modules() for name, part in parent.named_children()}
    for norm, convolution in pairs.items():
        for old, new in ((convolution, fuse_conv_bn_eval(convolution, norm)), (norm, nn.Identity())):
            parent, name = places[id(old)]
            setattr(parent, name, new)
    deviation = agreement(before, network(example).logits).deviation
    if not deviation <= TOLERANCE:
        raise RuntimeError(f"folding BatchNorm has changed the logits by {deviation:.1e} of the largest one")
    return len(pairs)


def agreement(exact: Tensor, found: Tensor) -> Agreement:
    """Compares logits (B, K) with and without a program."""
    same = (exact.argmax(-1) == found.argmax(-1)).float().mean()
    deviation = (exact.float() - found.float()).abs().max() / exact.float().abs().max()
    return Agreement(len(exact), float(same), float(deviation))
