"""Proves and measures predictions of many videos: kills lose nothing, and the speed is that of separate processes.

python benchmarks/bulk.py RUN FOLDER_OF_VIDEOS WORK [--clips 2000] [--kills 30] [--broken 0.05] [--turns 3]

Short clips are cut out of the videos and encoded again, and a share of them is broken in different ways. Then the job
is started again and again, and SIGKILL goes to it or to one of its workers at random moments. The table must have each
video once, with the scores of `Predictor`. For the speed, the job with two workers and two separate `adafocus predict`
commands, each with half of the videos, take turns.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
from pyarrow import dataset

from adafocus import predict

ROOT = Path(__file__).resolve().parents[1]


def cut(videos: list[Path], folder: Path, count: int, broken: float, rng: random.Random) -> None:
    """Writes clips of 16 to 40 frames, 128 pixels at the short side; broken ones are torn, noise, text or empty."""
    folder.mkdir(parents=True)
    frames: list[np.ndarray] = []
    for number in range(count):
        if number % 25 == 0:  # decode another video now and then
            with av.open(str(rng.choice(videos))) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:120]
        length = min(len(frames), rng.randint(16, 40))
        first = rng.randint(0, len(frames) - length)
        height, width = frames[0].shape[:2]
        scale = 128 / min(height, width)
        path = folder / f"{number % 20:02d}" / f"{number:05d}.mp4"
        path.parent.mkdir(exist_ok=True)
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height = int(width * scale) // 2 * 2, int(height * scale) // 2 * 2
            for image in frames[first : first + length]:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        if rng.random() < broken:
            data = path.read_bytes()
            path.write_bytes(rng.choice([data[: len(data) // 2], rng.randbytes(5000), b"<html>not found</html>", b""]))


def command(run: Path, source: Path, out: Path, *typed: str) -> list[str]:
    words = ["predict", str(run), str(source), "--table", str(out), "--device", "cpu", *typed]
    return [sys.executable, "-m", "adafocus.cli", *words]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def rows_of(out: Path) -> list[dict]:
    return dataset.dataset(out).to_table().to_pylist() if list(out.glob("part-*")) else []


def prove(run: Path, clips: Path, out: Path, kills: int, rng: random.Random) -> None:
    """Kills the job `kills` times and compares the finished table with the files and with `Predictor`."""
    left, of_job, of_worker = kills, 0, 0
    job = start(command(run, clips, out, "--workers", "2"))
    while True:
        had = len(list(out.glob("part-*")))
        anywhere = rng.random() < 0.2  # also while it starts; else after it has written something
        while left and not anywhere and job.poll() is None and len(list(out.glob("part-*"))) == had:
            time.sleep(0.1)
        try:
            job.wait(rng.uniform(0, 8) if left else None)
        except subprocess.TimeoutExpired:
            left -= 1
            workers = children(job.pid)
            if workers and rng.random() < 0.5:
                os.kill(rng.choice(workers), signal.SIGKILL)
                of_worker += 1
            else:
                job.kill()
                of_job += 1
        if job.poll() is None:
            continue
        if job.returncode != -signal.SIGKILL:
            break
        job.communicate()
        job = start(command(run, clips, out, "--workers", "2"))
    said, errors = job.communicate()
    sys.stdout.write(f"{said.strip()} (status {job.returncode}) {errors.strip()}\n")
    rows, files = rows_of(out), sorted(str(path) for path in clips.rglob("*.mp4"))
    paths = [row["path"] for row in rows]
    lost, twice = len(set(files) - set(paths)), len(paths) - len(set(paths))
    predictor, by_path = predict.load(run, device="cpu"), {row["path"]: row for row in rows}
    sample = rng.sample(files, min(200, len(files)))
    differing = sum(
        prediction.error is None
        and prediction.scores[0] != by_path[path]["score"]
        or (prediction.error is None) != (by_path[path]["error"] is None)
        for path, prediction in zip(sample, predictor(sample), strict=True)
    )
    sys.stdout.write(
        f"{of_job} kills of the job, {of_worker} of a worker: {len(rows)} rows of {len(files)} files, {lost} lost, "
        f"{twice} twice, {sum(row['error'] is not None for row in rows)} errors; {differing} of {len(sample)} differ "
        f"from Predictor\n"
    )


def measure(run: Path, clips: Path, work: Path, turns: int) -> None:
    """Compares the job with two workers and two separate commands, one after the other, `turns` times."""
    files = sorted(str(path) for path in clips.rglob("*.mp4"))
    halves = [work / f"half{number}.txt" for number in range(2)]
    for number, half in enumerate(halves):
        half.write_text("\n".join(files[number::2]) + "\n")
    ratios = []
    for turn in range(turns):
        seconds = {}
        for kind in ("job", "separate") if turn % 2 == 0 else ("separate", "job"):
            for out in work.glob("speed*"):
                shutil.rmtree(out)
            began = time.perf_counter()
            if kind == "job":
                jobs = [start(command(run, clips, work / "speed", "--workers", "2"))]
            else:
                typed = ("--workers", "1", "--root", str(clips))
                jobs = [start(command(run, half, work / f"speed{n}", *typed)) for n, half in enumerate(halves)]
            for job in jobs:
                job.communicate()
            seconds[kind] = time.perf_counter() - began
        ratios.append(seconds["separate"] / seconds["job"])
        sys.stdout.write(
            f"job {seconds['job']:.1f} s ({len(files) / seconds['job']:.1f} clips a second), two separate commands "
            f"{seconds['separate']:.1f} s: {100 * ratios[-1]:.0f} % of their throughput\n"
        )
    sys.stdout.write(f"median {100 * statistics.median(ratios):.0f} %\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("work", type=Path, help="folder for clips and tables, which must not exist")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--broken", type=float, default=0.05)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    rng = random.Random(0)
    videos = sorted(options.videos.rglob("*.mp4"))
    cut(videos, options.work / "clips", options.clips, options.broken, rng)
    sys.stdout.write(f"{options.clips} clips of {len(videos)} videos\n")
    prove(options.run, options.work / "clips", options.work / "out", options.kills, rng)
    measure(options.run, options.work / "clips", options.work, options.turns)


if __name__ == "__main__":
    main()
