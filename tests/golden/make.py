"""Makes `tests/golden/cases` from the complete golden cases: `python tests/golden/make.py SHARED`.

A complete case is a folder of SHARED/golden with `case.json` (the checkpoint's keys and shapes, inputs, options) and
arrays that the released programs of AdaFocus V1, V2, Uni-AdaFocus, TSM and TANet computed on a CPU, for weights and
inputs that are functions of their names (`tests/helpers/golden_weights.py`). The complete cases are 8 MB and no part of
this repository. Here each becomes one JSON file with what the tests need:

- an array of whole numbers or truth values of up to 6000 entries, one of up to 64 other numbers, and one that a test
  uses as an input (`INPUTS`) is kept whole;
- of any other array the shape, the largest magnitude, the mean, the standard deviation and 32 random entries are kept.

With `--check` nothing is written; the exit status is 1 if a file differs from what would be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CASES = Path(__file__).parent / "cases"
SAMPLE = 32
#: Case -> names of its arrays that are kept; a name that ends in `*` stands for all names with this beginning.
KEPT: dict[str, tuple[str, ...]] = {
    "adafocus_v1_actnet_p128": (
        *("logits", "pred", "actions", "patch_yx", "action_probs", "state_values", "action_logprobs", "action_entropy"),
        *("probe_logits", "stage0_glancer_logits", "stage0_focuser_logits"),
        *("stage2_rewards", "stage2_returns", "stage2_probability", "stage2_baseline_probability"),
    ),
    "adafocus_v1_sthsth_p144": ("pred", "action", "patch_yx", "baseline_pred", "state_value"),
    "adafocus_v1_ppo_continuous": ("*",),
    "adafocus_v1_ppo_discrete": ("*",),
    "adafocus_v2_actnet_p128_mbv2": (
        *(
            "input_order",
            "actions",
            "global_feat",
            "local_feat",
            "global_logits",
            "local_logits",
            "step_logits",
            "logits",
        ),
        "step_max_logit",
    ),
    "adafocus_v2_actnet_p128_res50": (
        *(
            "input_order",
            "actions",
            "global_feat",
            "local_feat",
            "global_logits",
            "local_logits",
            "step_logits",
            "logits",
        ),
        "step_max_logit",
    ),
    "adafocus_v2_early_exit": (
        "confidence_thresholds",
        "confidence_exit_step",
        "entropy_thresholds",
        "entropy_exit_step",
    ),
    "adafocus_v2_sampling": ("*",),
    "adafocus_v2_sth_p128": ("action", "logits", "global_reg_logits", "local_reg_logits"),
    "adafocus_v2_trainstep_actnet_p96_mbv2": ("*",),
    "adafocus_v2_trainstep_sth_p128": ("*",),
    "map_actnet": ("scores", "targets", "mAP", "AP", "absent_rows", "absent_mAP_skip"),
    "nl_tsm_r50_8f": ("logits", "frame_logits", "layer*"),
    "nl_tsm_r50_8f_soft": ("logits", "frame_logits", "layer*"),
    "tam_module": ("*",),
    "tam_protocol": ("*",),
    "tanet_mmaction2_r50_8f_sthv1": ("logits", "score"),
    "tanet_r50_8f_k400": ("logits", "frame_logits", "full_res_logits", "view_logits", "video_score"),
    "tanet_r50_8f_sthv1": ("logits", "frame_logits"),
    "tanet_train_step": ("*",),
    "tsm_frame_sampling": ("*",),
    "tsm_mobilenetv2_8f_jester": ("logits", "frame_logits"),
    "tsm_mobilenetv2_8f_jester_embedded": ("logits", "frame_logits"),
    "tsm_mobilenetv2_8f_k400": ("logits", "frame_logits"),
    "tsm_nonlocal_block": ("out",),
    "tsm_online_mobilenetv2": ("logits", "cache_mean_std"),
    "tsm_online_postprocess": ("final", "index_final"),
    "tsm_optimizer_groups": ("*",),
    "tsm_r50_8f": ("logits", "frame_logits", "layer*"),
    "tsm_r50_8f_block": ("logits", "frame_logits", "layer*"),
    "tsm_r50_8f_flow": ("logits", "frame_logits"),
    "tsm_r50_8f_tpool": ("logits", "frame_logits", "layer*"),
    "tsm_score_averaging": ("*",),
    "tsm_shift_operator": ("a_out", "a_grad", "b_out", "b_grad", "c_out", "c_grad", "d_out", "d_grad", "a_online_zero"),
    "tsm_train_step": ("*",),
    "tsm_transforms": ("*",),
    "tsn_r50_8f": ("logits", "frame_logits", "layer*"),
    "uni_adafocus_actnet_p128": (
        *("logits", "step_logits", "global_logits", "local_logits", "spatial_logits", "weights", "actions_glance"),
        *("exit_logit_max", "temporal_logits_exact", "focus_indices", "glance_indices"),
    ),
    "uni_adafocus_early_exit": ("confidence_thresholds", "confidence_exit", "entropy_thresholds", "entropy_exit"),
    "uni_adafocus_patch": ("actions", "patch_96", "patch_128", "patch_160", "feature*"),
    "uni_adafocus_temporal_sampling": ("*",),
    "uni_adafocus_train_step": (
        *("target", "glance_offset", "random_actions", "thresholds_uniform", "losses", "group_gradient_norms"),
        *("grad_aux_bias", "bn_mean*", "bn_var*"),
    ),
    "uni_adafocus_tsm_data": ("val_*",),
    "uni_adafocus_tsm_early_exit": (
        *("confidence_thresholds", "confidence_exit0_ratio", "entropy_thresholds", "entropy_exit0_ratio"),
    ),
    "uni_adafocus_tsm_patch": ("actions", "patch_96_inside", "patch_128_inside", "map*"),
    "uni_adafocus_tsm_sthv1_p96_8and8": (
        *("final_logits", "global_logits", "local_logits", "spatial_logits", "temporal_logits_exact"),
        *("global_frame_logits", "action", "frame_weights", "focus_indices"),
    ),
    "uni_adafocus_tsm_sthv2_p128_8and12": (
        *("final_logits", "global_logits", "local_logits", "spatial_logits", "temporal_logits_exact"),
        *("global_frame_logits", "action", "frame_weights", "focus_indices"),
    ),
    "uni_adafocus_tsm_temporal_sampling": ("*",),
    "uni_adafocus_tsm_train_step": (
        *("u", "random_action", "target", "losses", "grad_norm_groups", "grad_temporal_last", "grad_spatial_last"),
        *("grad_global_new_fc_bias", "spatial_bn_running_mean_after"),
    ),
}
#: Arrays that tests use as an input or index: kept whole whatever their size.
INPUTS = {
    "adafocus_v2_early_exit": ("confidence_thresholds", "entropy_thresholds"),
    "map_actnet": ("scores",),
    "tsm_online_mobilenetv2": ("cache_mean_std",),
    "tsm_optimizer_groups": ("step_20_40_of_50", "step_10_20_of_25", "cos_of_50"),
    "uni_adafocus_early_exit": ("confidence_thresholds", "entropy_thresholds"),
    "uni_adafocus_temporal_sampling": ("weights", "uniform"),
    "uni_adafocus_tsm_early_exit": ("confidence_thresholds", "entropy_thresholds"),
    "uni_adafocus_train_step": ("random_actions",),
    "uni_adafocus_tsm_temporal_sampling": (
        "weights_24_8",
        "weights_36_12",
        "weights_48_16",
        "u_24_8",
        "u_36_12",
        "u_48_16",
    ),
}
#: Keys of `case.json` that are kept.
ABOUT = ("keys", "keys_by_setup", "inputs", "param_groups", "weight_scale")
#: Case -> names of the options of the released program that a test reads.
OPTIONS = {
    "adafocus_v1_ppo_discrete": ("actions",),
    "tam_protocol": ("multi_scale_crop",),
    "tanet_train_step": ("param_groups",),
    "uni_adafocus_tsm_data": ("num_frames",),
}


def tree(keys: Mapping[str, list[int]]) -> dict[str, Any]:
    """Dotted parameter names as a tree of dictionaries, which takes a third of the text."""
    root: dict[str, Any] = {}
    for key, shape in keys.items():
        *folders, leaf = key.split(".")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = shape
    return root


def numbers(array: np.ndarray) -> list[Any]:
    """The entries of an array in a flat list, each with the fewest digits that give the same value of its type."""
    if array.dtype.kind != "f":
        return array.ravel().tolist()
    return [float(str(value)) for value in array.ravel()]


def figures(case: str, name: str, array: np.ndarray) -> dict[str, Any]:
    limit = 64 if array.dtype.kind == "f" else 6000
    shape = list(array.shape)
    if array.size <= limit or name in INPUTS.get(case, ()):
        return {"shape": shape, "type": str(array.dtype), "whole": numbers(array)}
    seed = int.from_bytes(hashlib.sha256(f"{case}/{name}".encode()).digest()[:8], "little")
    at = np.sort(np.random.default_rng(seed).choice(array.size, SAMPLE, replace=False))
    wide = array.astype(np.float64)
    statistics = {key: float(f"{value:.15g}") for key, value in (("mean", wide.mean()), ("std", wide.std()))}
    sample = numbers(array.ravel()[at])
    kept = {"shape": shape, "type": str(array.dtype), "largest": float(np.abs(wide).max()), **statistics}
    return {**kept, "at": at.tolist(), "sample": sample}


def derived(case: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces V1's distributions over the classes by the probability of the true class, which is all that rewards
    need."""
    if case != "adafocus_v1_actnet_p128":
        return {}
    found = {}
    for kind in ("", "_baseline"):
        logits = arrays[f"stage2{kind}_logits"].astype(np.float64)
        share = np.exp(logits - logits.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        found[f"stage2{kind}_probability"] = share[np.arange(2), :, arrays["stage2_target"]]
    return found


def small(folder: Path) -> str:
    """The JSON text that the repository keeps of one complete golden case."""
    case = folder.name
    described = json.loads((folder / "case.json").read_text())
    about = {key: described[key] for key in ABOUT if key in described}
    about |= {key: described["config"][key] for key in OPTIONS.get(case, ())}
    if "keys" in about:
        about["keys"] = tree(about["keys"])
    if "keys_by_setup" in about:
        about["keys_by_setup"] = {setup: tree(keys) for setup, keys in about["keys_by_setup"].items()}
    arrays = {key: value for file in sorted(folder.glob("*.npz")) for key, value in np.load(file).items()}
    extra = derived(case, arrays)
    kept = {}
    for pattern in KEPT[case]:
        whole, start = pattern.endswith("*"), pattern.removesuffix("*")
        names = [name for name in {**arrays, **extra} if (name.startswith(start) if whole else name == pattern)]
        if not names:
            raise SystemExit(f"{case}: no array {pattern}")
        kept |= {name: figures(case, name, {**arrays, **extra}[name]) for name in names}
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in kept.items()]
    return f'{{"about": {json.dumps(about, separators=(",", ":"))},\n"figures": {{\n' + ",\n".join(lines) + "\n}}\n"


def made(shared: Path) -> dict[str, str]:
    """The text of every file by the name of its case."""
    return {case: small(shared / "golden" / case) for case in KEPT}


def differing(texts: Mapping[str, str]) -> list[str]:
    """The cases whose files have another text."""
    return [case for case, text in texts.items() if (CASES / f"{case}.json").read_text() != text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, metavar="SHARED", help="folder that holds golden/CASE/case.json")
    parser.add_argument("--check", action="store_true", help="compare with the files and write nothing")
    arguments = parser.parse_args()
    texts = made(arguments.shared)
    if arguments.check:
        found = differing(texts)
        raise SystemExit(f"differing: {', '.join(found)}" if found else 0)
    for case, text in texts.items():
        (CASES / f"{case}.json").write_text(text)
    print(f"{len(texts)} cases, {sum(map(len, texts.values())):,} bytes")


if __name__ == "__main__":
    main()
