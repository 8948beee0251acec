"""Processes and sockets, read from /proc: what did a test leave behind?

Orphans count too. All processes that descend from the test run are known by a variable in their
environment (which outlives the parent), or by a living ancestor.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_VARIABLE = "COSIM_TEST_RUN"


class Process(NamedTuple):
    """A process, told from a later one of the same pid by its start time (clock ticks since boot)."""

    pid: int
    started: int


def mark_descendants() -> None:
    """Put the mark into this process's environment, for all that it will start."""
    os.environ[_VARIABLE] = str(os.getpid())


def is_running(pid: int) -> bool:
    """Whether a process of this pid exists and is not a zombie that nobody has waited for yet."""
    found = _stat(pid)
    return found is not None and found[2] not in "ZX"


def marked_processes() -> dict[Process, str]:
    """All running processes that descend from this test run, with their command lines."""
    mark = f"{_VARIABLE}={os.getpid()}".encode()
    parents: dict[int, int] = {}
    alive: dict[int, Process] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _stat(int(entry))) is not None and found[2] not in "ZX":
            alive[int(entry)] = found[0]
            parents[int(entry)] = found[1]
    ours = {}
    for pid, process in alive.items():
        if pid != os.getpid() and (_descends(pid, parents) or mark in _read(pid, "environ").split(b"\0")):
            command = _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
            ours[process] = command[:200] or "?"
    return ours


def end(processes: Iterable[Process]) -> None:
    """Kill these processes, if they are still the same ones."""
    for process in processes:
        found = _stat(process.pid)
        if found is not None and found[0] == process:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def open_sockets() -> set[str]:
    """The sockets that this process has open, as the kernel names them ("socket:[12345]")."""
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # the descriptor of listdir itself
            continue
        if name.startswith("socket:"):
            names.add(name)
    return names


def _descends(pid: int, parents: dict[int, int]) -> bool:
    """Whether this test run is an ancestor of `pid`."""
    me = os.getpid()
    for _ in range(len(parents)):
        pid = parents.get(pid, 0)
        if pid == me:
            return True
        if pid <= 1:
            return False
    return False


def _stat(pid: int) -> tuple[Process, int, str] | None:
    """Identity, parent and state of a process; None if there is none."""
    text = _read(pid, "stat")
    if not text:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold blanks and brackets
    return Process(pid, int(fields[19])), int(fields[1]), fields[0].decode()


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty if the process is gone or belongs to someone else."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
