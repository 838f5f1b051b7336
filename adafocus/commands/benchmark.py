"""`adafocus benchmark`: latency, throughput and memory of a network on this device, for every precision and program."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adafocus.commands.loading import add_model_arguments, load_predictor
from adafocus.core.arguments import ArgumentParser
from adafocus.core.choices import ENGINES
from adafocus.core.errors import UserError
from adafocus.core.files import write_json
from adafocus.core.outputs import writable
from adafocus.processes.memory import keep_freed_memory

EPILOG = """Clips are random and in memory, so neither decoding nor the score is measured; agreement is with the
network as it was trained. Latency is the median of one clip, throughput that of the best batch. Of a run folder,
benchmark.json is written there, and `adafocus compare` shows its latency."""
#: Batches are doubled up to --largest, until one has less than this share of the best throughput.
WORSE = 0.9
AGREEMENT_CLIPS = 8


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    options = _parse(argv)
    out = options.out
    if out is None and isinstance(options.checkpoint, Path) and options.checkpoint.is_dir():
        out = options.checkpoint / "benchmark.json"
    if out:
        writable("--out", out)
    keep_freed_memory()
    found = benchmark(options)
    _show(found)
    if out:
        write_json(out, found)
        sys.stdout.write(f"{out}\n")
    return 0


def _parse(argv: Sequence[str]) -> Any:
    parser = ArgumentParser(
        prog="adafocus benchmark", description="Speed and memory of a network on this device.", epilog=EPILOG
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--programs",
        nargs="+",
        choices=ENGINES,
        metavar="NAME",
        help=f"of {', '.join(ENGINES)}; all that are installed by default, but not compile, which takes minutes",
    )
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="times that a batch is run (default 10)")
    parser.add_argument("--largest", type=int, default=32, metavar="N", help="largest batch (default 32)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch on a CPU")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures as JSON")
    options = parser.parse_args(argv)
    for name in ("rounds", "largest", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
    return options


def benchmark(options: Any) -> dict[str, Any]:
    """Measures every program; returns what the JSON file holds."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    options.precision, options.fold_norm, options.program = "fp32", False, "eager"
    plain = load_predictor(options)
    device, cuda = plain.device, plain.device.type == "cuda"
    clips = _clips(plain, max(options.largest, AGREEMENT_CLIPS))
    trained = logits_of(plain, clips[:AGREEMENT_CLIPS])
    programs = []
    for precision, fold, engine in _choices(plain, options.programs):
        options.precision, options.fold_norm, options.program = precision, fold, engine
        predictor = load_predictor(options) if (precision, fold, engine) != ("fp32", False, "eager") else plain
        programs.append(_measured(predictor, clips, trained, options))
    return {
        "format": 1,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "threads": None if cuda else torch.get_num_threads(),
        "torch": torch.__version__,
        "protocol": plain.protocol,
        "frames": clips.shape[1],
        "side": clips.shape[2],
        "multiply_adds": plain.cost // plain.view().views,  # of one clip; a video may have several
        "programs": programs,
    }


def _choices(plain: Any, named: list[str] | None) -> Iterator[tuple[str, bool, str]]:
    """Yields (precision, fold_norm, engine) of the programs to measure, the network as it was trained first."""
    from adafocus.engines import NEEDS, check
    from adafocus.inference import pick_precision

    yield "fp32", False, "eager"
    best = pick_precision("auto", plain.device)
    precisions = ["fp32", *([best] if best != "fp32" else [])]
    cpu = plain.device.type == "cpu"
    installed = [name for name, needed in NEEDS.items() if cpu and all(find_spec(module) for module in needed)]
    for engine in named or ["eager", *installed]:
        for precision in precisions:
            if precision == "fp32" or engine != "onnxruntime":
                check(engine, precision, plain.device)
                yield precision, True, engine


def _clips(predictor: Any, count: int) -> Any:
    """Draws random clips (count, T, S, S, C) uint8 of the protocol."""
    import torch

    from adafocus import build

    side, frames = predictor.view().size, build.tested_plan(predictor.settings).clip
    shape = (count, frames, side, side, build.channels(predictor.settings))
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def logits_of(predictor: Any, clips: Any) -> Any:
    """Returns the predictions (B, K) for clips in memory, on the device."""
    import torch

    from adafocus.core.batch import Batch

    rows = torch.arange(len(clips))
    batch = Batch(
        clips, torch.zeros(len(clips), 1, dtype=torch.int64), rows, -1, torch.ones_like(rows, dtype=torch.bool)
    )
    main = predictor.stage.variants[:1]
    return predictor.stage.evaluate(batch.to(predictor.device), main)[main[0]].logits.float()


def _measured(predictor: Any, clips: Any, trained: Any, options: Any) -> dict[str, Any]:
    import torch

    from adafocus.inference import agreement

    with _peak_memory(predictor.device) as peak:
        found = agreement(trained, logits_of(predictor, clips[:AGREEMENT_CLIPS]))
        times: dict[int, float] = {}
        size = 1
        while size <= options.largest:
            try:
                seconds = _seconds(partial(logits_of, predictor, clips[:size]), predictor.device, options.rounds)
            except torch.OutOfMemoryError:
                break
            if size == 1:
                latency = seconds
            times[size] = statistics.median(seconds)
            if size / times[size] < WORSE * max(number / spent for number, spent in times.items()):
                break
            size *= 2
    best = max(times, key=lambda size: size / times[size])
    compiled = predictor.program.engine == "compile"  # torch would compile the hooks that measure the parts
    return {
        "program": str(predictor.program) or "as trained",
        "precision": predictor.program.precision,
        "fold_norm": predictor.program.fold_norm,
        "engine": predictor.program.engine,
        "latency": times[1],
        "latency_95": sorted(latency)[math.ceil(0.95 * (len(latency) - 1))],
        "throughput": best / times[best],
        "best_batch": best,
        "peak_memory": peak[0],
        "agreement": found.as_dict(),
        "parts": None if compiled else _parts(predictor, clips[:1], options.rounds),
    }


def _now(device: Any) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _seconds(run: Callable[[], Any], device: Any, rounds: int) -> list[float]:
    run()  # the first call chooses kernels
    found = []
    for _ in range(rounds):
        started = _now(device)
        run()
        found.append(_now(device) - started)
    return found


def _parts(predictor: Any, clip: Any, rounds: int) -> dict[str, float]:
    """Measures the seconds of each part of the network for one clip; "rest" is all between them, such as crops."""
    model, device = predictor.model, predictor.device
    spent: dict[str, float] = {}
    started: list[float] = []
    hooks = []
    for part in model.parts:
        for module in (model.get_submodule(name) for name in part.modules if not part.auxiliary):

            def after(*_: Any, name: str = part.name) -> None:
                spent[name] = spent.get(name, 0.0) + _now(device) - started.pop()

            hooks.append(module.register_forward_pre_hook(lambda *_: started.append(_now(device))))
            hooks.append(module.register_forward_hook(after))
    try:
        whole = sum(_seconds(lambda: logits_of(predictor, clip), device, rounds))
    finally:
        for hook in hooks:
            hook.remove()
    # The first, unmeasured call has been counted by the hooks as well.
    found = {name: seconds / (rounds + 1) for name, seconds in spent.items()}
    return {**found, "rest": max(0.0, whole / rounds - sum(found.values()))}


@contextmanager
def _peak_memory(device: Any) -> Iterator[list[int | None]]:
    """Yields a list that holds the largest number of bytes in use meanwhile: of the GPU, or of this process (Linux)."""
    import torch

    found: list[int | None] = [None]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found[0] = torch.cuda.max_memory_allocated(device)
        return
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")  # sets the peak to the present size
    except OSError:  # another system, or a container that forbids it
        yield found
        return
    yield found
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    found[0] = 1024 * int(line.split()[1])


def _show(found: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    threads = "" if found["threads"] is None else f", {found['threads']} threads"
    console = Console()
    console.print(
        f"{found['device']}{threads}, torch {found['torch']}; {found['frames']} frames of {found['side']} pixels, "
        f"{found['multiply_adds'] / 1e9:.4g} G multiply-adds a clip; {found['protocol']}",
        markup=False,
        highlight=False,
    )
    table = Table(box=SIMPLE)
    for name in ("program", "ms a clip", "95 %", "clips/s", "batch", "memory", "same class", "parts of a clip"):
        left = name in ("program", "parts of a clip")
        table.add_column(name, justify="left" if left else "right", no_wrap=name == "program")
    for row in found["programs"]:
        parts = row["parts"] or {}
        whole = sum(parts.values()) or 1.0
        table.add_row(
            row["program"],
            f"{1000 * row['latency']:.1f}",
            f"{1000 * row['latency_95']:.1f}",
            f"{row['throughput']:.1f}",
            str(row["best_batch"]),
            "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.0f} MiB",
            f"{100 * row['agreement']['same_class']:.0f} %",
            ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in parts.items()),
        )
    console.print(table)
