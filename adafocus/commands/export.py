"""`adafocus export`: exports the networks of a run with torch.export and ONNX, for use without this package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adafocus.commands.loading import add_model_arguments, load_predictor
from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.core.outputs import writable


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus export`; returns the exit status."""
    parser = ArgumentParser(
        prog="adafocus export",
        description="Exports glance, policy and focus networks with torch.export; export.json describes them.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder to write (default: export in CHECKPOINT's folder)"
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write ONNX files (needs adafocus[onnx]); networks with unsupported operators are skipped",
    )
    options = parser.parse_args(argv)
    predictor = load_predictor(options)
    if isinstance(options.checkpoint, str):
        raise UserError(f"{options.checkpoint}: the exported networks need a folder; name it with --out")
    beside = options.checkpoint if options.checkpoint.is_dir() else options.checkpoint.parent
    folder = _folder(options.out or beside / "export")
    export(predictor, folder, onnx=options.onnx)
    sys.stdout.write(f"{folder / 'export.json'}\n")
    return 0


def _folder(folder: Path) -> Path:
    """Creates the folder to write into.

    Raises:
        UserError: that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be created ({error.strerror or error}); choose another") from error
    writable("--out", folder / "export.json")
    return folder


def export(predictor: Any, folder: Path, *, onnx: bool = False) -> dict[str, Any]:
    """Exports the programs of a predictor's network (see `methods.programs`); writes and returns export.json.

    Args:
        predictor: an `adafocus.predict.Predictor` on the CPU.
        folder: the folder to write; it is created.
        onnx: whether to write ONNX too; a program with operators that ONNX lacks is reported and skipped.
    """
    import torch

    from adafocus.core.files import write_json

    model = predictor.model.cpu().eval()
    folder.mkdir(parents=True, exist_ok=True)
    size = predictor.view().size
    known: dict[str, torch.Tensor] = {}
    entries = []
    for program in model.programs():
        for name, count in program.frames.items():  # a batch of two, because torch.export treats size 1 as constant
            known.setdefault(name, torch.randn(2, count, _channels(predictor), size, size))
        inputs = tuple(known[name] for name in program.inputs)
        batch = torch.export.Dim("batch", min=1, max=4096)
        with torch.no_grad():
            exported = torch.export.export(
                program.module, inputs, dynamic_shapes={"tensors": tuple({0: batch} for _ in inputs)}, strict=False
            )
            outputs = program.module(*inputs)
        known |= zip(program.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True)
        torch.export.save(exported, folder / f"{program.name}.pt2")
        entry = {
            "name": program.name,
            "file": f"{program.name}.pt2",
            "inputs": list(program.inputs),
            "outputs": list(program.outputs),
        }
        if onnx:
            entry |= _onnx(program, inputs, folder)
        entries.append(entry)
    described = {"format": 2, **_description(predictor, model), "programs": entries}
    write_json(folder / "export.json", described)
    return described


def _onnx(program: Any, inputs: tuple[Any, ...], folder: Path) -> dict[str, str]:
    import torch

    path = folder / f"{program.name}.onnx"
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError('--onnx needs packages that are not installed: pip install "adafocus[onnx]"') from error
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        torch.onnx.export(
            program.module,
            inputs,
            path,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamic_shapes={"tensors": tuple({0: batch} for _ in inputs)},
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    except Exception as error:  # the exporter has one exception for each of its stages
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        sys.stderr.write(f"{program.name}: not as ONNX ({reason})\n")
        path.unlink(missing_ok=True)
        return {"onnx_error": reason}
    return {"onnx": path.name}


def _channels(predictor: Any) -> int:
    from adafocus import build

    return build.channels(predictor.settings)


def _description(predictor: Any, model: Any) -> dict[str, Any]:
    """Returns the content of export.json: what a user of the exported networks must know to feed and join them."""
    from adafocus import build

    settings = predictor.settings
    view = predictor.view()
    dataset, (mean, std) = settings.dataset, build.normalization(settings)
    frames: dict[str, Any]
    rule = {"rule": view.evaluation_rule, "short": view.short}
    if view.candidates:
        frames = {
            "candidates": {"count": view.candidates, **rule},
            "chosen_frames": {"of": "candidates", "at": "chosen"},
            "glance_frames": {"of": "candidates", "at": list(view.first)}
            if view.first
            else {"count": view.segments, **rule},
        }
    elif view.second:
        frames = {
            "glance_frames": {"count": view.segments, **rule},
            "focus_frames": {"count": view.second, **rule},
        }
    else:
        frames = {"frames": {"count": view.segments, **rule}}
    return {
        "method": settings.method.name,
        "classes": predictor.classes,
        "protocol": build.protocol_line(settings, view),
        "input": {
            "decode_short_side": view.decode_short_side,
            "fit": "stretch" if view.stretch else "crop",
            "short_side": None if view.stretch else view.short_side,
            "crops": view.crops,
            "size": view.size,
            "channels": "RGB" if dataset.modality == "rgb" else "x and y of consecutive flow fields",
            "mean": mean,
            "std": std,
            "layout": "(batch, frame, channel, row, column) float32, (value / 255 - mean) / std, in temporal order",
        },
        "steps": [
            "decode, upright, RGB; where the shorter side is larger than decode_short_side it "
            "becomes that while decoding, the longer "
            "one in proportion, cut to whole pixels (FFmpeg's bicubic scaling)",
            "stretch: resize to size x size. crop: resize the shorter side to short_side, the longer "
            "one in proportion, cut to "
            "whole pixels; take size x size from its middle (halves rounded to even). Bilinear, "
            "antialiased, rounded to uint8",
            "(value / 255 - mean) / std",
        ],
        "rules": {
            "middle": "frame floor(n / count / 2 + n / count * i) of n, if n > count or short is spread; else frame i "
            "and then the last one again (repeat_last), or frame 0 (first_frame)",
            "uniform-1": "frame floor(n / count / 2 + n / count * i) of n",
            "fractional": "frame floor((i + 0.5) / count * n) of n",
        },
        "frames": frames,
        "join": "run the programs in their order; every input is the output of that name of an earlier program, or a "
        "set of frames; a set that is `of` another holds its frames `at` these positions, or at the positions that the "
        "output of that name gives for each clip",
    }
