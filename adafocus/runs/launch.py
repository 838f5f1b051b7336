"""Starts the processes of a run, one per device, with the path of the run folder and names of plug-ins as arguments.

A job runs in subprocesses, so that it releases all memory at its end, cannot crash other jobs of a sweep, and can be
repeated from its folder.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from adafocus.config.schema import Config
from adafocus.core.errors import UserError
from adafocus.core.status import ENDED, end_status, interruption, read_status, restart_status
from adafocus.processes.environment import PARENT, STORE
from adafocus.processes.signals import CAUGHT
from adafocus.runs.folder import check_free

GRACE = 1.0  # seconds that the other processes get to report after one has failed
PATIENCE = 10.0  # seconds between asking a process to end and killing it, in case it hangs in native code
LOST = 3  # exit status of a process that failed because another process of its run ended
#: Environment variables with rank, world size and local rank that other launchers set: torchrun, Slurm and Open MPI.
STARTERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)


def adopt_processes() -> bool:
    """Returns whether torchrun, srun or mpirun started this run's processes; if so, sets torch's environment variables.

    Raises:
        UserError: MASTER_ADDR or MASTER_PORT is not set.
    """
    for names in STARTERS:
        rank, size, local_rank, local_size = (os.environ.get(name) for name in names)
        if rank is None or size is None or (size == "1" and "TORCHELASTIC_RUN_ID" not in os.environ):
            continue
        try:
            nodes = int(os.environ.get("SLURM_NNODES", 1))
            numbers = {"RANK": int(rank), "WORLD_SIZE": int(size), "LOCAL_RANK": int(local_rank or rank)}
            numbers["LOCAL_WORLD_SIZE"] = int(local_size or -(-int(size) // nodes))
        except ValueError:
            raise UserError(f"{names[0]}={rank}, {names[1]}={size} in the environment must be numbers") from None
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing and numbers["WORLD_SIZE"] > 1:
            raise UserError(
                f"{names[1]}={size} says that this is one of {size} processes of a run, but {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set; set MASTER_ADDR to the host of process 0 and "
                f"MASTER_PORT to a free port there, or start one process (srun --ntasks=1) with devices={size}"
            )
        os.environ.update({name: str(number) for name, number in numbers.items()})
        return True
    return False


def launch(folder: Path, settings: Config) -> int:
    """Runs the job of a folder in a process for each device and waits for them; returns its exit status (0: success).

    Each process imports only the plug-ins that this command names, whatever the folder says. SIGINT and SIGTERM are
    forwarded; a second signal kills the processes. With `inline`, or if torchrun, srun or mpirun started the processes
    of the run, the job runs in this process.

    Raises:
        UserError: another process writes this folder.
    """
    if settings.inline or adopt_processes():
        from adafocus.runs.job import run

        return run(folder, settings)
    check_free(folder)
    restart_status(folder)
    job = _Job(folder)
    main = threading.current_thread() is threading.main_thread()
    # Child processes inherit the blocked signals, and unblock them once they can handle them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT if main else ())
    try:
        job.start(settings.devices, settings.plugins)
        before = {number: signal.signal(number, job.ask) for number in CAUGHT} if main else {}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        return job.wait()
    finally:
        job.kill()  # processes are left here only after an exception
        for number, handler in before.items():
            signal.signal(number, handler)


class _Job:
    """The processes of a run, each with a pipe for forwarding signals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen] = []
        self.pipes: list[int] = []
        self.asked: list[int] = []
        self.passed_on = 0

    def start(self, devices: int, plugins: Sequence[str]) -> None:
        # Rank 0 inherits the listening socket, so that no other program can take the port in between.
        listener = socket.create_server(("127.0.0.1", 0)) if devices > 1 else None
        for rank in range(devices):
            read_end, write_end = os.pipe()
            handles = [read_end]
            environment = {**os.environ, **_places(rank, devices), PARENT: str(read_end)}
            if listener is not None:
                environment[STORE] = str(listener.getsockname()[1])
                if rank == 0:
                    environment[STORE] += f":{listener.fileno()}"
                    handles.append(listener.fileno())
            command = [sys.executable, "-m", "adafocus.runs.job", str(self.folder), *plugins]
            self.children.append(subprocess.Popen(command, env=environment, pass_fds=handles))
            self.pipes.append(write_end)
            os.close(read_end)
        if listener is not None:
            listener.close()

    def ask(self, number: int, _: object) -> None:
        """Signal handler: forwards the first signal; a second one kills the processes."""
        self.asked.append(number)

    def wait(self) -> int:
        """Waits for all processes; if one fails, the others are ended, because they would wait for it forever."""
        code: int | None = None
        ending = 0.0
        while running := [child for child in self.children if child.poll() is None]:
            self._pass_on()
            failed = [child.returncode for child in self.children if child.returncode]
            if failed and not ending:
                ending = time.monotonic()
            since = time.monotonic() - ending
            if ending and code is None and (min(failed) < 0 or since > GRACE):
                code = _first_cause(failed)
                self._say_killed(code)
            if ending and since > GRACE:
                self._close()
            if ending and since > GRACE + PATIENCE:
                self.kill()
            if running:
                time.sleep(0.05)
        self._close()
        if code is None:
            code = _first_cause([child.returncode for child in self.children])
            self._say_killed(code)
        if self.asked and code and read_status(self.folder)["state"] not in ENDED:
            self._say_interrupted()  # the processes were killed before they could report it
        if code < 0:
            return 128 + self.asked[0] if self.asked else 128 - code
        return code

    def kill(self) -> None:
        for child in self.children:
            child.kill()  # has no effect on a process that has ended

    def _pass_on(self) -> None:
        asked = len(self.asked)
        if asked > self.passed_on:
            if self.passed_on or asked > 1:
                self.kill()
            for pipe in self.pipes:
                with suppress(BrokenPipeError):  # that process has just ended
                    os.write(pipe, bytes([self.asked[0]]))
            self.passed_on = asked

    def _close(self) -> None:
        """Ends the remaining processes by closing their pipes, which a thread in each of them watches."""
        while self.pipes:
            os.close(self.pipes.pop())

    def _say_killed(self, code: int) -> None:
        """Reports that a process was killed by a signal, which the process could not do itself."""
        if code >= 0 or self.asked:
            return
        rank = next((rank for rank, child in enumerate(self.children) if child.returncode == code), 0)
        who = "the process of the run" if len(self.children) == 1 else f"process {rank} of the run"
        reason = f"{who} was killed by {signal.Signals(-code).name}"
        reason += " (out of memory?)" if code == -signal.SIGKILL else ""
        end_status(self.folder, "failed", reason)
        sys.stderr.write(f"error: {reason}; the same command continues from the last checkpoint\n")

    def _say_interrupted(self) -> None:
        status = read_status(self.folder)
        line = interruption(self.asked[0], status["step"], status["steps"])
        end_status(self.folder, "interrupted", line)
        sys.stderr.write(line + "\n")


def _places(rank: int, devices: int) -> dict[str, str]:
    """Returns the environment variables of the process with this rank."""
    package = str(Path(__file__).resolve().parents[2])
    places: dict[str, Any] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    places["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    # OpenMP threads that wait by spinning slow a machine with other work down, by a factor of 20 when measured.
    places["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    if devices > 1:
        places["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // devices))
    return {name: str(value) for name, value in places.items()}


def _first_cause(codes: list[int]) -> int:
    """Returns the exit status of a job: of a killed process, else of one that failed by itself, else of any."""
    return min(codes, key=lambda code: (code == 0, code > 0, code == LOST))
