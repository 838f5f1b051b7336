"""`adafocus convert`: converts a checkpoint of this package or of a paper's repository to .safetensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adafocus.commands.loading import add_model_arguments, load_predictor, split_typed
from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError
from adafocus.core.outputs import writable


def main(argv: Sequence[str]) -> int:
    """Runs `adafocus convert`; returns the exit status."""
    parser = ArgumentParser(
        prog="adafocus convert",
        description="Writes the network with its configuration and class names to one .safetensors file.",
    )
    add_model_arguments(parser, rest="OUT.safetensors")
    options = parser.parse_args(argv)
    options.device = "cpu"
    typed, others = split_typed(options.rest)
    if len(others) != 1 or Path(others[0]).suffix != ".safetensors":
        raise UserError("the output must be one file whose name ends in .safetensors")
    out = writable("OUT", Path(others[0]))
    predictor = load_predictor(options, videos=True)

    from adafocus import config
    from adafocus.checkpoints import save_safetensors

    notes = {"config": config.to_dict(predictor.settings), "classes": predictor.classes, "overrides": typed}
    save_safetensors(out, predictor.model.state_dict(), notes)
    sys.stdout.write(f"{options.checkpoint}: {predictor.report}\n{out}: {len(predictor.classes)} classes\n")
    return 0
