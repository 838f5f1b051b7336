"""Loads state dicts into models: strictly, or partially with a report."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from adafocus.checkpoints.files import State
from adafocus.core.errors import UserError


def fit(model: nn.Module, state: State, source: str, without: tuple[str, ...] = ()) -> list[str]:
    """Loads a state dict strictly, except for the parts in `without`; returns the keys that it lacks.

    Args:
        model: the network.
        state: the state dict.
        source: name of the file, for messages.
        without: prefixes of keys that keep their values if the state dict has none of them.

    Raises:
        UserError: keys or shapes differ, or weights are integers, NaN or infinite.
    """
    own = model.state_dict()
    without = tuple(part for part in without if not any(key.startswith(part) for key in state))
    # BatchNorm's num_batches_tracked, which old files lack, has no effect.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    left = [key for key in missing if key.startswith(without)]
    missing = [key for key in missing if key not in left]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {word} (first: {keys[0]})"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        if shapes:
            key = shapes[0]
            parts.append(
                f"{len(shapes)} of another shape (first: {key} {tuple(state[key].shape)}, here {tuple(own[key].shape)})"
            )
        raise UserError(
            f"{source} is a checkpoint of another model: {'; '.join(parts)}; choose the matching "
            f"backbone, patch, segments and dataset"
        )
    _check_values(own, state, source)
    model.load_state_dict(state, strict=False)
    return left


def _check_values(own: State, state: State, source: str) -> None:
    """Checks that no weights are integers, NaN or infinite, which torch would load; `state` has the keys of `own`.

    Raises:
        UserError: there are such weights.
    """
    for key, value in state.items():
        if not own[key].is_floating_point():
            continue
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{source} has {kind} numbers as weights (first: {key}); a quantized file cannot be loaded")
        if not value.isfinite().all():
            raise UserError(f"{source} has weights that are NaN or infinite (first: {key}): use another checkpoint")


@dataclass
class StartReport:
    """Result of partial loading.

    Attributes:
        loaded: number of loaded tensors.
        missing: keys that the file lacks; they keep their initial values.
        dropped: keys that the model does not have, or has in another shape (a head for another number of classes).
    """

    loaded: int
    missing: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def some(keys: list[str]) -> str:
            return f" ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})" if keys else ""

        return (
            f"{self.loaded} tensors loaded, {len(self.missing)} missing and left as initialized{some(self.missing)}, "
            f"{len(self.dropped)} dropped{some(self.dropped)}"
        )


def start_from(model: nn.Module, state: State, source: str) -> StartReport:
    """Loads the entries that fit, for fine-tuning; layers match with or without a temporal module around them.

    Raises:
        UserError: less than half of the model's tensors fit, so the file is of another network.
    """
    own = model.state_dict()
    plain = {_plain(key): key for key in own}
    taken, dropped = {}, []
    for key, value in state.items():
        target = key if key in own else plain.get(_plain(key))
        if target is None or own[target].shape != value.shape:
            dropped.append(key)
        else:
            taken[target] = value
    missing = [key for key in own if key not in taken and not key.endswith("num_batches_tracked")]
    report = StartReport(len(taken), missing, dropped)
    if sum(own[key].numel() for key in taken) < sum(value.numel() for value in own.values()) / 2:
        raise UserError(f"{source} is a checkpoint of another network: {report}; choose the matching backbone")
    _check_values(own, taken, source)
    model.load_state_dict(taken, strict=False)
    return report


def start_part(model: nn.Module, part: str, state: State, source: str) -> StartReport:
    """Loads the glance or the focus network alone, with its head, from a recognizer's or a method's checkpoint.

    Args:
        model: the network.
        part: "glance" or "focus".
        state: the state dict.
        source: name of the file, for messages.

    Raises:
        UserError: the file lacks layers of that network.
    """
    heads = (f"{part}_head.", f"{part}_head.1.", "classifier." if part == "focus" else "", f"{part}_head.predict.")
    everything = model.state_dict()
    plain = {_plain(key): key for key in everything}
    taken: State = {}
    for key, value in state.items():
        if key.startswith("head."):
            names = [head + key.removeprefix("head.") for head in heads if head]
        else:
            names = [f"{part}_net.{key.removeprefix('backbone.')}" if key.startswith("backbone.") else key]
        for name in names:
            target = plain.get(_plain(name), "")
            wanted = target.startswith((f"{part}_net.", f"{part}_head.", "classifier."))
            if wanted and (name != key or key.startswith(part)) and everything[target].shape == value.shape:
                taken[target] = value
    missing = [key for key in everything if key.startswith(f"{part}_net.") and key not in taken]
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{source} does not contain the {part} network: {len(missing)} layers are missing (first: {missing[0]})"
        )
    _check_values(everything, taken, source)
    model.load_state_dict(taken, strict=False)
    return StartReport(len(taken), missing, [])


def _plain(key: str) -> str:
    """Returns a key without the `net` of wrapping temporal modules."""
    return key.replace(".net.", ".").replace(".block.", ".")
