"""Parameter groups of the recognizer recipes: multipliers of the learning rate and of the weight decay by layer type.

Source: `TSN.get_optim_policies` in ops/models.py of mit-han-lab/temporal-shift-module and of
liu-zhy/temporal-adaptive-module; `TSMOptimWrapperConstructor` in
mmaction/engine/optimizers/tsm_optim_wrapper_constructor.py of open-mmlab/mmaction2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from adafocus.core.stage import ParamGroup, batch_norms
from adafocus.methods.recognizer.options import PARAM_GROUPS

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def partial_norms(model: nn.Module) -> Sequence[nn.Module]:
    """Returns the layers that partial BN freezes: every BatchNorm2d but the first.

    TSM's code leaves BatchNorm1d and BatchNorm3d (in TAM and non-local blocks) in training mode but out of the
    optimizer, so a non-local block, whose scale starts at 0, never has an effect. Here these layers are trained.
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
    """Divides the trained parameters of a recognizer into groups with their own multipliers.

    Args:
        model: the recognizer.
        rule: "single": one group. "tsm": biases have twice the learning rate and no weight decay, normalization
            layers no weight decay; the weights of all linear layers (the classifier and the matrices of TAM's branch G)
            have the multiplier `head_rate`, and the classifier's bias twice that. "mmaction2": as "tsm", but only the
            classifier has the multiplier `head_rate`.
        head_rate: learning-rate multiplier of the classifier: 5, or 1 when fine-tuning on the same classes.
        flow: whether the first convolution reads optical flow; its learning rate is then multiplied by 5, as in
            TSM's and TAM's code; MMAction2 has no such factor.
        frozen: normalization layers that are not trained.

    Raises:
        ValueError: the rule is unknown, or does not cover a layer of the model.
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
