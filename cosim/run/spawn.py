"""Start hub and workers on this host, watch them by pidfd, end them.

Processes are started in process groups of their own, so that Ctrl-C reaches the supervisor alone; they die with it
(PR_SET_PDEATHSIG, asked for by themselves and checked against the parent's pid). Nothing secret is on a command line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import anyio

from cosim.core.plan import NodePlan
from cosim.run.forkserver import FORKED, PADDING, pack_order

STDERR_TAIL = 2000


class Process(Protocol):
    """What `Child` needs of a process: `subprocess.Popen` has it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Sibling:
    """A process that another one has forked as a child of this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self._reap(0)
        assert status is not None
        return status

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self.returncode = 0  # the caller's program has waited for it; subprocess.Popen says the same
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal; the pid stays its own until `poll` or `wait` has seen its end."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class Child:
    """A child process: `name`, `pid`, and its end as something to await."""

    def __init__(self, name: str, process: Process, stderr: Path) -> None:
        self.name = name
        self.stderr = stderr
        self._process = process
        self.pid = process.pid
        self._fd = os.pidfd_open(self.pid)
        self._turn = anyio.Lock()  # one task at a time may wait for the descriptor

    @classmethod
    def start(cls, name: str, argv: list[str], stderr: Path, **kwargs: Any) -> Child:
        """Start a program."""
        with stderr.open("wb") as file:
            return cls(
                name, subprocess.Popen(argv, stderr=file, process_group=0, env=child_environment(), **kwargs), stderr
            )

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal that killed it), None while it runs."""
        return self._process.poll()

    async def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        async with self._turn:
            while self._process.poll() is None:
                await anyio.wait_readable(self._fd)
        status = self._process.returncode
        assert status is not None
        return status

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Kill, reap, close what was open."""
        self.kill()
        self._process.wait()
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


def child_environment() -> dict[str, str]:
    """The parent's environment with one thread per numeric library and hashing as always (it decides nothing in a model)."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def start_worker(endpoint: str, worker: int, folder: Path, credentials: Path | None = None) -> Child:
    """A worker process by exec; over tcp it reads its key from ``NAME.credential`` in `credentials`."""
    argv = [sys.executable, "-m", "cosim.node.worker", endpoint, f"w{worker}", str(os.getpid())]
    if credentials is not None:
        argv.append(os.fspath(credentials / f"w{worker}.credential"))
    return Child.start(
        f"w{worker}", argv, folder / f"w{worker}.stderr", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def start_hub(fd: int, folder: Path, module: str = "cosim.run.hub_main") -> Child:
    """The hub process, with socket `fd` as its stdin and stdout."""
    argv = [sys.executable, "-m", module, str(os.getpid())]
    return Child.start("hub", argv, folder / "hub.stderr", stdin=fd, stdout=fd)


def modules_of(nodes: Sequence[NodePlan]) -> list[str]:
    """The modules of nodes' models and of the programs that they name, which their workers would import."""
    paths = {node.model for node in nodes}
    for node in nodes:
        programs = node.params.get("programs")
        if isinstance(programs, dict):
            paths.update(str(path) for path in programs.values())
    return sorted({path.partition(":")[0] for path in paths if ":" in path})


class ForkServer:
    """This end of a fork server (`cosim.run.forkserver`), whose workers are children of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            argv = [sys.executable, "-m", "cosim.run.forkserver", str(os.getpid()), PADDING]
            self.child = Child.start(
                "fork server", argv, folder / "forkserver.stderr", stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )

    async def workers(
        self, endpoint: str, modules: list[str], numbers: Sequence[int], credentials: Path | None = None
    ) -> AsyncIterator[Child]:
        """Order workers by their numbers; gives each as it is there, fewer when the server ends before."""
        keys = "" if credentials is None else os.fspath(credentials)
        order = memoryview(pack_order(endpoint, modules, os.fspath(self._folder), numbers, keys))
        count = len(numbers)
        data = b""
        try:
            while order:
                await anyio.wait_writable(self._socket)
                order = order[self._socket.send(order) :]
            while count:
                await anyio.wait_readable(self._socket)
                part = self._socket.recv(1 << 16)
                if not part:
                    return
                data += part
                whole = len(data) - len(data) % FORKED.size
                for worker, pid in FORKED.iter_unpack(data[:whole]):
                    count -= 1
                    yield Child(f"w{worker}", Sibling(pid), self._folder / f"w{worker}.stderr")
                data = data[whole:]
        except ConnectionError:
            return

    def close(self) -> None:
        """Close the connection and end the server; workers stay."""
        self._socket.close()
        self.child.close()
