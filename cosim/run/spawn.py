"""Start hub and workers on this host, watch them by pidfd, end them.

Processes are started in process groups of their own, so that Ctrl-C reaches the supervisor alone; they die with it
(PR_SET_PDEATHSIG, asked for by themselves and checked against the parent's pid). Nothing secret is on a command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio

STDERR_TAIL = 2000


class Child:
    """A child process: `name`, `pid`, and its end as something to await."""

    def __init__(self, name: str, argv: list[str], stderr: Path, **kwargs: Any) -> None:
        self.name = name
        self.stderr = stderr
        with stderr.open("wb") as file:
            self._popen = subprocess.Popen(argv, stderr=file, process_group=0, env=_environment(), **kwargs)
        self.pid = self._popen.pid
        self._fd = os.pidfd_open(self.pid)
        self._turn = anyio.Lock()  # one task at a time may wait for the descriptor

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal that killed it), None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        async with self._turn:
            while self._popen.poll() is None:
                await anyio.wait_readable(self._fd)
        return self._popen.returncode

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal if it still runs."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    def close(self) -> None:
        """Kill, reap, close what was open."""
        self.kill()
        self._popen.wait()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def how_it_ended(self) -> str:
        """Its status as text, with the last lines that it wrote to stderr."""
        status = self.status
        if status is None:
            return "it still runs"
        text = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        tail = self.stderr.read_text(errors="replace")[-STDERR_TAIL:].strip() if self.stderr.exists() else ""
        return f"{text}; it wrote: {tail}" if tail else text

    def cpu_and_state(self) -> tuple[float, str]:
        """CPU seconds used so far and the state letter of proc(5)."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0, "X"
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0]


def _environment() -> dict[str, str]:
    """The parent's environment with one thread per numeric library and hashing as always (it decides nothing in a model)."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def start_worker(endpoint: str, worker: int, name: str, folder: Path) -> Child:
    """A worker process."""
    argv = [sys.executable, "-m", "cosim.node.worker", endpoint, f"w{worker}", str(os.getpid())]
    return Child(name, argv, folder / f"w{worker}.stderr", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def start_hub(fd: int, folder: Path) -> Child:
    """The hub process, with socket `fd` as its stdin and stdout."""
    argv = [sys.executable, "-m", "cosim.run.hub_main", str(os.getpid())]
    return Child("hub", argv, folder / "hub.stderr", stdin=fd, stdout=fd)
