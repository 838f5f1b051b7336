"""Acceptance run for a machine with a GPU: what the tests without one cannot show.

python benchmarks/gpu.py [--out benchmarks/gpu] [--budget 1500] [--only env,correctness,...] [--dry-run]

Each section is a process of its own with a share of the time, so that a crash or an empty memory costs one section.
results.json and results.md are rewritten after every section; the exit status is 1 if one failed. `--dry-run` runs
every section on the CPU with tiny networks: it checks this program, not the GPU.

    env          versions, the GPU, what torch supports there
    correctness  predictions of every method on the GPU against the CPU, in float32 and in bf16
    steps        a training step of every method: milliseconds, peak memory, host waits (torch.cuda.set_sync_debug_mode)
    compile      a training step of every method under torch.compile, and its loss against that of the step before
    attention    the non-local block: which fused kernels run, and its peak memory
    early_exit   benchmarks/early_exit.py: the share of saved multiply-adds that is saved as time
    walk         benchmarks/walk.py: a step of stage 2 of AdaFocus V1 against one frame after the other
    pytest       the tests that need a GPU
    run          `python run.py` for an epoch in bf16, and its evaluation
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

FULL = ("dataset=glyphs", "backbone.weights=none", "dataset.frame_size=224")
#: Networks of full size; the tiny ones are those of the tests (`helpers.steps.CASES`).
NETWORKS = {
    "v1 2": ("method=adafocus_v1", "backbone=mbv2_r50", "segments=16", "patch=128", "stage=2", "init.from=none"),
    "v2": ("method=adafocus_v2", "backbone=mbv2_r50", "segments=16", "patch=128"),
    "v2 tsm": ("method=adafocus_v2", "backbone=mbv2_r50_tsm", "segments=8+12", "patch=128"),
    "uni": ("method=uni_adafocus", "backbone=mbv2_r50", "segments=16", "patch=128", "patch.smallest=96"),
    "uni tsm": ("method=uni_adafocus", "backbone=mbv2_r50_tsm", "segments=8+8", "patch=96", "patch.smallest=96"),
    "tsm": ("method=recognizer", "backbone=r50_tsm", "segments=8"),
    "tam": ("method=recognizer", "backbone=r50_tam", "segments=8"),
    "nl": ("method=recognizer", "backbone=r50_nl_tsm", "segments=8"),
}


def device_of(options: argparse.Namespace) -> Any:
    import torch

    return torch.device("cpu" if options.dry_run else "cuda")


def stage_of(name: str, options: argparse.Namespace) -> tuple[Any, Any]:
    """The stage of a network with random weights on the device, and a batch there."""
    import torch
    from helpers.steps import batch_of, settings_of

    from adafocus import build, config
    from adafocus.config.compose import compose
    from adafocus.layers.precision import channels_last

    if options.dry_run:
        settings, size = settings_of(name), 2
    else:
        settings, size = compose([*FULL, *NETWORKS[name]]), 8
        settings = config.for_stage(settings, settings.stage.name)
    network = build.seeded_model(settings, 10, weights=False)
    torch.manual_seed(0)
    stage = build.stage(settings, channels_last(network.to(device_of(options))))
    return stage, batch_of(settings, size).to(device_of(options))


def names(options: argparse.Namespace) -> list[str]:
    return [name for name in NETWORKS if name != "nl"] if options.dry_run else list(NETWORKS)


def env(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    found = {"torch": torch.__version__, "python": sys.version.split()[0], "device": str(device_of(options))}
    if not options.dry_run:
        found["gpu"] = torch.cuda.get_device_name()
        found["capability"] = torch.cuda.get_device_capability()
        found["bf16"] = torch.cuda.is_bf16_supported()
    return found


def correctness(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from adafocus import inference
    from adafocus.processes.backends import set_backends

    set_backends(device_of(options), tf32=False, benchmark=False)
    found: dict[str, Any] = {}
    for name in names(options):
        stage, batch = stage_of(name, options)
        main = stage.variants[:1]
        exact = deepcopy(stage.model).cpu()
        there = stage.evaluate(batch, main)[main[0]].logits.float().cpu()
        frames = stage.normalize(batch.frames)[:1]
        inference.apply(stage.model, inference.Program("bf16", fold_norm=True), frames)
        low = stage.evaluate(batch, main)[main[0]].logits.float().cpu()
        stage.model = exact
        here = stage.evaluate(batch.to(torch.device("cpu")), main)[main[0]].logits.float()
        found[name] = {
            "fp32": inference.agreement(here, there).deviation,
            "bf16": inference.agreement(here, low).deviation,
        }
    for name, row in found.items():
        # The logits of random networks are close together; where both choose other frames or places, more differs.
        if row["fp32"] > 1e-2:
            raise SystemExit(f"{name}: logits in float32 differ by {row['fp32']:.1e} of the largest; {found}")
    return found


def one_step(stage: Any, optimizer: Any, batch: Any, device: Any) -> Any:
    import torch

    with torch.autocast(device.type, torch.bfloat16):
        loss = stage.step(batch).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def prepared(name: str, options: argparse.Namespace) -> tuple[Any, Any, Any]:
    import torch

    stage, batch = stage_of(name, options)
    stage.train()
    parameters = [parameter for group in stage.param_groups() for parameter in group.parameters]
    fused = not options.dry_run
    return stage, batch, torch.optim.SGD(parameters, 1e-3, momentum=0.9, fused=fused)


def steps(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    device, found = device_of(options), {}
    for name in names(options):
        stage, batch, optimizer = prepared(name, options)
        for _ in range(3):
            one_step(stage, optimizer, batch, device)
        row: dict[str, Any] = {}
        if not options.dry_run:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            one_step(stage, optimizer, batch, device)
        row["waits"] = [str(one.message) for one in waits if "synchron" in str(one.message)]
        if not options.dry_run:
            torch.cuda.set_sync_debug_mode("default")
        row["milliseconds"] = milliseconds(lambda s=stage, o=optimizer, b=batch: one_step(s, o, b, device), options)
        row["peak_mib"] = None if options.dry_run else torch.cuda.max_memory_allocated() / 2**20
        found[name] = row
    waiting = {name: row["waits"] for name, row in found.items() if row["waits"]}
    if waiting:
        raise SystemExit(f"training steps wait for the GPU: {waiting}; {found}")
    return found


def milliseconds(run: Callable[[], Any], options: argparse.Namespace) -> float:
    import torch

    times = []
    for _ in range(3 if options.dry_run else 20):
        started = time.perf_counter()
        run()
        if not options.dry_run:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def compile_steps(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    device, found = device_of(options), {}
    for name in names(options):
        stage, batch, optimizer = prepared(name, options)
        torch.manual_seed(1)
        eager = float(one_step(stage, optimizer, batch, device))
        stage, batch, optimizer = prepared(name, options)
        torch._dynamo.reset()
        stage.net = stage.compiled(backend="aot_eager") if options.dry_run else stage.compiled()
        torch.manual_seed(1)
        compiled = float(one_step(stage, optimizer, batch, device))
        run = lambda s=stage, o=optimizer, b=batch: one_step(s, o, b, device)  # noqa: E731
        found[name] = {"eager": eager, "compiled": compiled, "milliseconds": milliseconds(run, options)}
    for name, row in found.items():
        if abs(row["compiled"] - row["eager"]) > 0.05 * abs(row["eager"]) + 0.05:
            raise SystemExit(f"{name}: the loss of a compiled step is another one; {found}")
    return found


def attention(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = device_of(options)
    places = 64 if options.dry_run else 6272
    queries, keys = (torch.randn(2, 1, count, 256, device=device) for count in (places, places // 4))
    found = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
        for dtype in (torch.float32, torch.bfloat16):
            if not options.dry_run:
                torch.cuda.reset_peak_memory_stats()
            try:
                with sdpa_kernel(backend), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    q, k = queries.to(dtype), keys.to(dtype)
                    torch.nn.functional.scaled_dot_product_attention(q, k, k, scale=1.0)
                peak = None if options.dry_run else torch.cuda.max_memory_allocated() / 2**20
                found[f"{backend.name} {dtype}"] = {"runs": True, "peak_mib": peak}
            except RuntimeError:
                found[f"{backend.name} {dtype}"] = {"runs": False}
    return found


def program(*arguments: str, folder: Path = ROOT) -> dict[str, Any]:
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):  # 5: pytest has found no test
        raise SystemExit(f"{' '.join(arguments)}: exit status {done.returncode}: {done.stderr[-2000:]}")
    return {"output": done.stdout[-4000:].splitlines()}


def early_exit(options: argparse.Namespace) -> dict[str, Any]:
    small = ("--nets", "tiny", "--clips", "8", "--batch", "1", "4", "--rounds", "1", "--budgets", "0.5")
    large = ("--device", "cuda", "--clips", "192", "--batch", "1", "32", "--segments", "16", "--fold")
    found = {}
    for method in ("adafocus_v2",) if options.dry_run else ("adafocus_v2", "uni_adafocus", "uni_adafocus_tsm"):
        found[method] = program("benchmarks/early_exit.py", "--method", method, *(small if options.dry_run else large))
    return found


def walk(options: argparse.Namespace) -> dict[str, Any]:
    large = ("--device", "cuda", "--backbone", "r50", "--clips", "8")
    return program("benchmarks/walk.py", *(("--clips", "2", "--repeats", "1") if options.dry_run else large))


def pytest(options: argparse.Namespace) -> dict[str, Any]:
    return program("-m", "pytest", "-q", "-m", "gpu", "tests/training" if options.dry_run else "tests")


def run(options: argparse.Namespace) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        if options.dry_run:
            from helpers.runs import arguments

            typed = [*arguments(), "evaluate.controls=false", "schedule.epochs=1"]
        else:
            typed = ["device=cuda", "precision=bf16", "schedule.epochs=1"]
        return program(str(ROOT / "run.py"), *typed, folder=Path(folder))


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "env": env,
    "correctness": correctness,
    "steps": steps,
    "compile": compile_steps,
    "attention": attention,
    "early_exit": early_exit,
    "walk": walk,
    "pytest": pytest,
    "run": run,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu")
    parser.add_argument("--budget", type=float, default=1500.0, help="seconds for all sections")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny networks")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        sys.stdout.write("\n" + json.dumps(SECTIONS[options.section](options)) + "\n")
        return 0
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"unknown sections {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"dry_run": options.dry_run, "sections": {}}
    ends = time.monotonic() + options.budget
    for number, name in enumerate(chosen):
        limit = max(30.0, (ends - time.monotonic()) / (len(chosen) - number) * 2)
        results["sections"][name] = section(name, min(limit, max(30.0, ends - time.monotonic())), options)
        write(options.out, results)
    return int(any("error" in row for row in results["sections"].values()))


def section(name: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one section in a process of its own; its result, or "error"."""
    command = [sys.executable, __file__, "--section", name, *(["--dry-run"] if options.dry_run else [])]
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {limit:.0f} s"}
    seconds = time.monotonic() - started
    if done.returncode:
        return {"seconds": seconds, "error": done.stderr[-4000:]}
    return {"seconds": seconds, "result": json.loads(done.stdout.splitlines()[-1])}


def write(out: Path, results: dict[str, Any]) -> None:
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = ["# Acceptance run" + (" (dry run on a CPU with tiny networks)" if results["dry_run"] else ""), ""]
    for name, row in results["sections"].items():
        state = "failed" if "error" in row else "passed"
        lines += [f"## {name}: {state} in {row.get('seconds', 0):.0f} s", "", "```"]
        lines += [json.dumps(row["result"], indent=1) if "result" in row else row["error"], "```", ""]
    (out / "results.md").write_text("\n".join(lines))
    name = list(results["sections"])[-1]
    row = results["sections"][name]
    sys.stdout.write(f"{name}: {'failed: ' + row['error'][-300:] if 'error' in row else 'passed'}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
