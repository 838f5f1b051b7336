"""The optimizer of a stage, with layer-wise learning-rate decay, and the moving average of a network's weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from adafocus.core.errors import UserError
from adafocus.core.stage import Stage

log = logging.getLogger("adafocus")


class OptimizerSettings(Protocol):
    """The settings of the training loop that the optimizer needs; `training.settings.Settings` describes them."""

    optimizer: str
    momentum: float
    weight_decay: float
    layer_decay: float


def make_optimizer(stage: Stage, settings: OptimizerSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """Makes the optimizer with the stage's parameter groups, and freezes all parameters that are in no group.

    With a layer decay below 1 a group is divided by the depth of its parameters, see `layer_rates`.

    `fused` updates all parameters in one kernel. With precision=fp16 it also skips steps with infinite gradients
    without a synchronization. It is not used on a CPU, where its rounding differs.
    """
    groups = stage.learning_groups()
    learning = {id(parameter) for group in groups for parameter in group.parameters}
    for parameter in stage.model.parameters():
        parameter.requires_grad_(id(parameter) in learning)
    for group in groups:
        if group.rate == 0:
            log.warning("parameter group %r has learning rate 0 and is not trained", group.name)
    rates = layer_rates(stage.backbones, settings.layer_decay) if settings.layer_decay != 1 else {}
    options: list[dict[str, Any]] = []
    for group in groups:
        divided: dict[float, list[nn.Parameter]] = {}
        for parameter in group.parameters:
            divided.setdefault(rates.get(id(parameter), 1.0), []).append(parameter)
        decay = settings.weight_decay * group.decay
        options += [
            {"params": part, "rate": group.rate * rate, "weight_decay": decay} for rate, part in divided.items()
        ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(options, lr=0.0, fused=fused or None)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(options, lr=0.0, momentum=settings.momentum, fused=fused or None)
    raise ValueError(f"optimizer={settings.optimizer!r} is unknown; choose sgd or adamw")


def layer_rates(backbones: list[nn.Module], decay: float) -> dict[int, float]:
    """Returns learning-rate multipliers by `id(parameter)` for the parameters of the backbones.

    They are decay for the last block of a backbone, decay^2 for the block before, and so on.

    Source: layer-wise learning-rate decay as in BEiT (arXiv 2106.08254), `LayerDecayValueAssigner` of its repository,
    and in timm.

    Raises:
        UserError: there is no backbone.
    """
    if not backbones:
        raise UserError("schedule.layer_decay has no effect on a network without backbones; leave it out")
    rates: dict[int, float] = {}
    for backbone in backbones:
        blocks = _blocks(backbone)
        for depth, block in enumerate(reversed(blocks), 1):
            rates |= {id(parameter): decay**depth for module in block for parameter in module.parameters()}
        # Parameters outside of the blocks, such as position embeddings, count as part of the first block.
        rates = {id(parameter): decay ** len(blocks) for parameter in backbone.parameters()} | rates
    return rates


def _blocks(backbone: nn.Module) -> list[list[nn.Module]]:
    """Returns the blocks of a backbone in the order of their definition, each as a list of modules.

    The members of an `nn.Sequential` (not of its subclasses) are separate blocks; a normalization layer belongs to the
    block before it. A stage of a timm network that is a module of another class is one block.
    """
    children = [child for child in backbone.children() if any(True for _ in child.parameters())]
    if len(children) == 1:  # a wrapper around the network
        return _blocks(children[0])

    def opened(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if type(child) is nn.Sequential:
                yield from opened(child)
            elif any(True for _ in child.parameters()):
                yield child

    blocks: list[list[nn.Module]] = []
    for module in opened(backbone):
        if blocks and all(parameter.ndim < 2 for parameter in module.parameters()):
            blocks[-1].append(module)
        else:
            blocks.append([module])
    return blocks


class WeightAverage:
    """The exponential moving average of a network's weights and of BatchNorm's running statistics.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage` and in
    timm, so that the initial weights lose their influence early.

    Args:
        model: the network that is trained.
        decay: weight of the previous average in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._present = decay
        self.averaged = AveragedModel(model, multi_avg_fn=self._step(), use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.averaged.module

    def update(self, model: nn.Module, steps: int) -> None:
        """Updates the average with the weights after `steps` (1, 2, ...) optimizer steps."""
        self._present = min(self.decay, steps / (9 + steps))
        self.averaged.update_parameters(model)

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Sets the average to the one of a checkpoint, which was saved after `steps` steps."""
        self.model.load_state_dict(state)
        self.averaged.n_averaged.fill_(steps)

    def _step(self) -> Callable[[Any, Any, Any], None]:
        @torch.no_grad()
        def step(averages: list[Tensor], values: list[Tensor], _: Any) -> None:
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, values, 1 - self._present)
            else:  # integers: the number of batches that BatchNorm counts
                for average, value in zip(averages, values, strict=True):
                    average.copy_(value)

        return step
