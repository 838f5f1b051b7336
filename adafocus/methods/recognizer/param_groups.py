"""Parameter groups of the whole-frame recipes: which layers learn at which multiple of the rate and of weight decay.

Source: spec tsm section 5.1, spec tam sections 5 and 12.3.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from adafocus.core.choices import PARAM_GROUPS
from adafocus.core.stage import ParamGroup, batch_norms

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def partial_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that partial BN freezes, statistics and scales: every BatchNorm2d but the first.

    The released code leaves the other BatchNorms (of non-local blocks and of TAM) in training mode and out of the optimizer:
    a non-local block, whose scale starts at 0, then never learns. Here they learn.
    """
    return [layer for layer in batch_norms(model) if isinstance(layer, nn.BatchNorm2d)][1:]


def recognizer_groups(
    model: nn.Module,
    rule: str = "single",
    *,
    head_rate: float = 5.0,
    flow: bool = False,
    frozen: Iterable[nn.Module] = (),
) -> list[ParamGroup]:
    """Groups of every parameter that learns.

    Args:
        model: a recognizer.
        rule: "single": one group. "tsm": biases twice the rate and without decay, norms without decay, the weights of all
            linear layers (the classifier, and the matrices of TAM's branch G, as in the released code) at `head_rate` and
            the classifier's bias at twice that. "mmaction2": the same, with the classifier only at `head_rate`.
        head_rate: 5, or 1 when fine-tuning on the same classes.
        flow: the first convolution reads optical flow and learns five times as fast.
        frozen: norms that do not learn.

    Raises:
        ValueError: unknown rule, or a layer that the rule does not know.
    """
    still = {id(p) for layer in frozen for p in layer.parameters()}
    if rule == "single":
        return [ParamGroup("network", [p for p in model.parameters() if id(p) not in still])]
    if rule not in PARAM_GROUPS:
        raise ValueError(f"rule={rule!r} is unknown; choose one of {', '.join(PARAM_GROUPS)}")
    first = 5.0 if flow else 1.0
    groups = {
        "first_conv_weight": ParamGroup("first_conv_weight", [], first),
        "first_conv_bias": ParamGroup("first_conv_bias", [], 2 * first, 0.0),
        "normal_weight": ParamGroup("normal_weight", []),
        "normal_bias": ParamGroup("normal_bias", [], 2.0, 0.0),
        "norm": ParamGroup("norm", [], 1.0, 0.0),
        "head_weight": ParamGroup("head_weight", [], head_rate),
        "head_bias": ParamGroup("head_bias", [], 2 * head_rate, 0.0),
    }
    stem = next((m for m in model.modules() if isinstance(m, _CONVS)), None)
    for name, layer in model.named_modules():
        own = {leaf: p for leaf, p in layer.named_parameters(recurse=False) if id(p) not in still}
        if not own:
            continue
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            groups["norm"].parameters += own.values()
            continue
        if isinstance(layer, _CONVS):
            kind = "first_conv" if layer is stem else "normal"
        elif isinstance(layer, nn.Linear):
            kind = "head" if rule == "tsm" or layer is getattr(model, "head", None) else "normal"
        else:
            raise ValueError(f"rule {rule}: {name} ({type(layer).__name__}) belongs to no group")
        for leaf, parameter in own.items():
            groups[f"{kind}_{leaf}"].parameters.append(parameter)
    return list(groups.values())
