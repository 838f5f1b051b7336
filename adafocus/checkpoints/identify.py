"""Infers the configuration of a published checkpoint from the keys and shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from adafocus.checkpoints.files import State
from adafocus.core.errors import UserError

#: Number of classes -> data sets of the papers that have this number.
DATASETS = {
    27: ("jester",),
    51: ("hmdb51",),
    101: ("ucf101",),
    174: ("sthv1", "sthv2"),
    200: ("actnet", "minik"),
    239: ("fcvid",),
    400: ("kinetics400",),
}


@dataclass
class Identity:
    """The configuration of a checkpoint's network, as far as its tensors determine it.

    Attributes:
        said: YAML group or key -> value, as in an override.
        open: YAML group -> options that the tensors do not distinguish.
        classes: number of classes K.
    """

    said: dict[str, str] = field(default_factory=dict)
    open: dict[str, tuple[str, ...]] = field(default_factory=dict)
    classes: int = 0

    def overrides(self, typed: Iterable[str], *, dataset: bool = True) -> list[str]:
        """Returns the overrides for the network, without those whose keys are given already.

        Args:
            typed: the given keys; `experiment` determines everything.
            dataset: whether the data set must be determined too, if several have this number of classes.

        Raises:
            UserError: a choice is missing; the message names it and its options.
        """
        typed = set(typed)
        if "experiment" in typed:
            return []
        leaves = {"patch": {"patch.size"}, "segments": {"segments.glance", "segments.focus"}}
        missing = {
            key: options
            for key, options in self.open.items()
            if key not in typed and not leaves.get(key, set()) & typed
        }
        said = dict(self.said)
        if "dataset" in missing and not dataset:
            said["dataset"] = missing.pop("dataset")[0]
        if missing:
            choices = ", ".join(f"{key}={'|'.join(options)}" for key, options in missing.items())
            others = {"patch": "patch.size=N", "segments": "segments.glance=N"}
            if any("+" in option for option in missing.get("segments", ())):
                others["segments"] = "segments.glance=N segments.focus=N"
            other = ", ".join(others[key] for key in missing if key in others)
            raise UserError(
                f"the file is of {self.said.get('method', '?')} with {self.classes} classes, but does "
                f"not say everything: add "
                f"{choices} ({f'other sizes: {other}; ' if other else ''}or experiment=NAME; `adafocus zoo` lists them)"
            )
        return [f"{key}={value}" for key, value in said.items() if key not in typed]


def identify(source: str, state: State) -> Identity | None:
    """Identifies a state dict of layout `source` (see `checkpoints.SOURCES`); None for this package's own layout."""
    reader = _READERS.get(source)
    if reader is None:
        return None
    try:
        found = reader(state)
    except KeyError as error:
        raise UserError(f"the file has the layout {source}, but lacks {error.args[0]}; choose another file") from error
    except (IndexError, ZeroDivisionError) as error:
        raise UserError(f"the file has the layout {source}, but other shapes; choose another file") from error
    names = DATASETS.get(found.classes, ())
    if len(names) == 1:
        found.said["dataset"] = names[0]
    elif names:
        found.open = {"dataset": names, **found.open}
    else:  # a data set of none of the papers, with the frame size of the repositories
        found.said |= {"dataset": "folder", "dataset.classes": str(found.classes), "dataset.frame_size": "224"}
        found.said |= {"dataset.fit": "crop", "dataset.decode_short_side": "256"}
    return found


def _rows(state: State, key: str) -> int:
    if key not in state:
        raise UserError(f"the file lacks {key}, which its layout must have")
    return state[key].shape[0]


def _numbers(state: State, pattern: str) -> list[int]:
    return sorted({int(match[1]) for key in state if (match := re.match(pattern, key))})


def _adafocus_v2(state: State) -> Identity:
    segments = len(_numbers(state, r"classifier\.classifiers\.(\d+)\.1\.weight$"))
    said = {
        "method": "adafocus_v2",
        "backbone": "mbv2_r50" if "global_CNN.features.0.0.weight" in state else "r50_r50",
        "segments.glance": str(segments),
        "backbone.policy_hidden": str(state["policy_stn.gru.weight_hh_l0"].shape[1]),
        "backbone.classifier_width": str(_rows(state, "classifier.mlp.layers.0.weight")),
    }
    classes = _rows(state, "classifier.classifiers.0.1.weight")
    return Identity(said, {"patch": ("96", "128", "160")}, classes)


def _adafocus_v2_tsm(state: State) -> Identity:
    glance = state["policy_stn.0.weight"].shape[1] // 1280
    said = {"method": "adafocus_v2", "backbone": "mbv2_r50_tsm", "segments.glance": str(glance)}
    said["backbone.policy_hidden"] = str(_rows(state, "policy_stn.4.weight"))
    return Identity(said, {"patch": ("128", "144", "160", "176")}, _rows(state, "global_CNN.new_fc.weight"))


def _uni_adafocus(state: State) -> Identity:
    glance, focus = (
        len(_numbers(state, rf"classifier\.{k}_classifiers\.(\d+)\.1\.weight$")) for k in ("global", "local")
    )
    said = {
        "method": "uni_adafocus",
        "backbone": "mbv2_r50",
        "segments.glance": str(glance),
        "segments.focus": str(focus),
        "backbone.spatial_hidden": str(_rows(state, "spatial_policy.encoder.0.weight")),
        "backbone.temporal_hidden": str(_rows(state, "temporal_policy.Tconv.0.weight")),
        "backbone.classifier_width": str(_rows(state, "classifier.global_mlp.layers.0.weight")),
    }
    classes = _rows(state, "classifier.local_classifiers.0.1.weight")
    return Identity(said, {"patch": ("96", "128", "160")}, classes)


def _uni_adafocus_tsm(state: State) -> Identity:
    glance = state["spatial_policy.encoder.9.weight"].shape[2]
    said = {
        "method": "uni_adafocus",
        "backbone": "mbv2_r50_tsm",
        "backbone.spatial_hidden": str(_rows(state, "spatial_policy.encoder.0.weight")),
        "backbone.temporal_hidden": str(_rows(state, "temporal_policy.Tconv.0.weight")),
    }
    frames = tuple(f"{glance}+{focus}" for focus in (8, 12, 16))
    return Identity(said, {"patch": ("96", "128"), "segments": frames}, _rows(state, "aux_fc.weight"))


def _adafocus_v1(state: State) -> Identity:
    if "classifier.weight" in state:  # on TSM
        glance = state["policy.policy.state_encoder.0.weight"].shape[1] // 1280 if _v1_policy(state) else 8
        said = {"method": "adafocus_v1", "backbone": "mbv2_r50_tsm", "segments.glance": str(glance)}
        return Identity(said, {"patch": ("144", "160", "176")}, _rows(state, "classifier.weight"))
    said = {"method": "adafocus_v1", "backbone": "mbv2_r50"}
    said["backbone.classifier_width"] = str(state["classifier.gru.weight_hh_l0"].shape[1])
    if "policy.gru.weight_hh_l0" in state:
        said["policy.grid"] = str(math.isqrt(_rows(state, "policy.actor.0.weight")))
        said["backbone.policy_hidden"] = str(state["policy.gru.weight_hh_l0"].shape[1])
        said["policy.convolution"] = str(state["policy.state_encoder.0.weight"].ndim == 4).lower()
    else:
        said["stage"] = "1"  # files of stage 1 have no policy
    return Identity(said, {"patch": ("96", "128", "160", "192")}, _rows(state, "classifier.fc.weight"))


def _v1_policy(state: State) -> bool:
    return "policy.policy.state_encoder.0.weight" in state


def _head(state: State) -> int:
    for key in state:
        if re.match(r"(new_fc|base_model\.(fc|classifier)|cls_head\.fc_cls)(\.\d+)?\.weight$", key):
            return _rows(state, key)
    raise UserError(
        "the file has no classifier, so it cannot be evaluated; use it to start training with init.from=FILE"
    )


def _tsm(state: State) -> Identity:
    said = {"method": "recognizer"}
    frames: tuple[str, ...] = ("8", "16")
    flow = next(
        (v.shape[1:2] == (10,) for k, v in state.items() if re.search(r"(^|\.)conv1\.(conv\.)?weight$", k)), False
    )
    adaptive = next(
        (v for k, v in state.items() if re.search(r"\.tam\.G\.0\.weight$|self_conv\.conv_f\.0\.weight$", k)), None
    )
    shifted = any(re.search(r"conv1\.(net\.|conv\.net\.)|conv\.(0\.)?net\.|\.net\.conv1\.", key) for key in state)
    depth = _depth(state)
    if any("features.1." in key for key in state):
        said["backbone"] = "mbv2_tsm_branch" if any("conv.net.0." in key for key in state) else "mbv2_tsm"
    elif adaptive is not None:
        said |= {"backbone": "r50_tam", "segments.glance": str(adaptive.shape[1])}
        frames = ()
    elif any(re.search(r"\.nl\.|non_local", key) for key in state):
        said["backbone"] = "r50_nl_tsm"
    elif depth == "resnet101" and shifted:
        said["backbone"] = "r101_tsm"
    else:
        said["backbone"] = "r50_tsm" if shifted else "r50_tsn"
    if said["backbone"].startswith("r") and depth != {"r101_tsm": "resnet101"}.get(said["backbone"], "resnet50"):
        said["backbone.focus"] = depth
    if any(re.search(r"layer1\.0\.net\.conv1\.", key) for key in state) and adaptive is None:
        said["backbone.shift_place"] = "block"
    if any(re.search(r"\.layer2\.net\.\d", key) for key in state):
        said["backbone.temporal_pool"] = "true"
    if flow:
        said["dataset.modality"] = "flow"
    return Identity(said, {"segments": frames} if frames else {}, _head(state))


def _depth(state: State) -> str:
    """Returns the name of the ResNet, from the number and the type of its blocks."""
    blocks = tuple(
        len(_numbers(state, rf"(?:base_model|backbone)\.layer{stage}\.(?:net\.)?(\d+)\.")) for stage in (1, 2, 3, 4)
    )
    bottleneck = any(re.search(r"layer1\..*conv3\.", key) for key in state)
    known: dict[tuple[int, ...], str]
    known = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet50" if bottleneck else "resnet34"}
    return {**known, (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}.get(blocks, "resnet50")


def _tsm_online(state: State) -> Identity:
    said = {"method": "recognizer", "backbone": "mbv2_tsm_online", "segments": "8"}
    return Identity(said, {}, _rows(state, "classifier.weight"))


_READERS: dict[str, Callable[[State], Identity]] = {
    "adafocus_v1": _adafocus_v1,
    "adafocus_v2": _adafocus_v2,
    "adafocus_v2_tsm": _adafocus_v2_tsm,
    "uni_adafocus": _uni_adafocus,
    "uni_adafocus_tsm": _uni_adafocus_tsm,
    "tsm": _tsm,
    "tsm_online": _tsm_online,
    "mmaction2": _tsm,
}
