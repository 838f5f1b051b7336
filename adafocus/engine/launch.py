"""Starts the processes of a run: one a device, each given nothing but the run folder.

A job is a subprocess, so it leaves no memory behind, takes nothing along when it fails, and can be repeated from its
folder alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from adafocus.engine.distributed_env import PARENT, STORE
from adafocus.engine.files import read_json
from adafocus.engine.status import write_status


def under_torchrun() -> bool:
    """Whether somebody else has already started the processes of this run."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(folder: Path, devices: int) -> int:
    """Runs the job of a folder in `devices` processes and waits for them; returns its exit status (0 is success)."""
    store = folder / ".store"
    store.unlink(missing_ok=True)
    # The children read from a pipe that only we can write: when we die, however, they notice and stop too.
    read_end, write_end = os.pipe()
    package = str(Path(__file__).resolve().parents[2])
    children = []
    for rank in range(devices):
        environment = dict(os.environ)
        environment.update(
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(devices),
                "LOCAL_WORLD_SIZE": str(devices),
                STORE: str(store.resolve()),
                PARENT: str(read_end),
                "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            }
        )
        # Threads that wait by spinning make a machine that has other work as well twenty times slower.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if devices > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
        command = [sys.executable, "-m", "adafocus.worker", str(folder)]
        children.append(subprocess.Popen(command, env=environment, pass_fds=[read_end]))
    os.close(read_end)
    try:
        code = _wait(children)
    finally:
        os.close(write_end)
        store.unlink(missing_ok=True)
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        status = read_json(folder / "status.json") or {}
        write_status(
            folder, "failed", step=status.get("step", 0), steps=status.get("steps", 0), error=f"killed by {name}{hint}"
        )
    return code


def _wait(children: list[subprocess.Popen]) -> int:
    """Waits for all; the first that fails ends the others, which would wait for it for ever."""
    code = 0
    interrupted = False
    while running := [child for child in children if child.poll() is None]:
        failed = [child.returncode for child in children if child.returncode]
        if failed and not code:
            code = failed[0]
            time.sleep(1.0)  # the others may be about to say the same
            for child in running:
                child.terminate()
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True  # the terminal has sent it to the children as well; let them finish their files
    return code or next((child.returncode for child in children if child.returncode), 0)


def die_with_parent() -> None:
    """Ends this process when the one that launched it is gone, so that no orphan goes on writing the run folder."""
    descriptor = os.environ.pop(PARENT, None)
    if descriptor is None:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)  # returns when the last writer is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
