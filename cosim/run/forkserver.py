"""A process that has imported what workers need and forks them: ``python -m cosim.run.forkserver PARENT_PID PADDING``.

It reads one order from stdin (a socket), imports, forks every worker of the order, tells their pids and ends. A worker is
forked with CLONE_PARENT (clone(2)): it is a child of the supervisor, not of this process. So nothing that the supervisor
promises about its children depends on this process: their exit statuses reach it, PR_SET_PDEATHSIG means its death, and
this process may die at any moment without touching a worker that exists.

No thread and no connection may exist before the fork. Where that can't be had, or the system has no CLONE_PARENT, it ends
with status `UNFIT` and its reason on stderr, and workers are started by exec.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import Any

import msgpack

import cosim.link.unix_link  # noqa: F401  what every worker of the fast link imports when it connects
from cosim.node.death import die_with
from cosim.node.worker import serve

UNFIT = 3
"""Exit status: this process can't fork workers; others can be started by exec."""
PADDING = "." * 160
"""Last argument: room for the command line that a worker shows in its place (proc(5), cmdline)."""
FORKED = struct.Struct("<II")
"""An answer: number and pid of a worker."""

_LENGTH = struct.Struct("<I")
_CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}
"""Number of the system call by os.uname().machine."""


class Unfit(Exception):
    """Why this process can't fork workers."""


def pack_order(endpoint: str, modules: list[str], folder: str, workers: Sequence[int], credentials: str = "") -> bytes:
    """The order: where the hub listens, what to import, the folder for stderr files, the workers' numbers, and over tcp the folder
    with their credential files."""
    body: bytes = msgpack.packb([endpoint, modules, folder, list(workers), credentials], use_bin_type=True)
    return _LENGTH.pack(len(body)) + body


def read_order(fd: int) -> list[Any]:
    """The inverse of `pack_order`; EOFError when the supervisor is gone."""
    data = b""
    while len(data) < _LENGTH.size or len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            raise EOFError
        data += part
    order: list[Any] = msgpack.unpackb(data[_LENGTH.size :])
    return order


def fork_sibling() -> int:
    """fork(2) whose child is a child of our parent: 0 in the child, else its pid.

    Raises:
        Unfit: this system does not offer it.
        OSError: no process could be made.
    """
    number = _CLONE.get(os.uname().machine)
    if number is None or sys.maxsize < 2**32:
        raise Unfit(f"the number of clone(2) is not known for {os.uname().machine}")
    libc = ctypes.PyDLL(None, use_errno=True)  # a PyDLL keeps the interpreter's lock over the call, as os.fork does
    libc.syscall.restype = ctypes.c_long
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(libc.syscall(ctypes.c_long(number), ctypes.c_ulong(_CLONE_PARENT | signal.SIGCHLD), 0, 0, 0, 0))
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        if code in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise Unfit(f"clone(2) with CLONE_PARENT is refused: {os.strerror(code)}")
        raise OSError(code, f"no worker could be forked: {os.strerror(code)}")
    return pid


def show_as(*arguments: str) -> None:
    """Put a command line in place of this process's own, as far as it fits; no effect where its place is not told."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    if 0 < start < end:
        text = "\0".join(arguments).encode()[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _worker(parent: int, endpoint: str, name: str, folder: str, credentials: str) -> int:
    """The life of a forked worker; returns its exit status."""
    die_with(parent)
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # it was the supervisor's socket
    os.close(nothing)
    errors = os.open(os.path.join(folder, f"{name}.stderr"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(errors, 2)
    os.close(errors)
    credential = [os.path.join(credentials, f"{name}.credential")] if credentials else []
    show_as(sys.executable, "-m", "cosim.node.worker", endpoint, name, str(parent), *credential)
    return serve(endpoint, name, *credential)


def _guarded(parent: int, endpoint: str, name: str, folder: str, credentials: str) -> None:
    """`_worker`, then the end of the process: what this process would do at its own end is not the worker's."""
    status = 1
    try:
        status = _worker(parent, endpoint, name, folder, credentials)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _import(modules: list[str]) -> None:
    """Import models. One that fails is left to the worker that hosts it: its error has a node's name."""
    for module in modules:
        try:
            __import__(module)
        except Exception:
            continue
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise Unfit(f"importing {', '.join(modules)} must start no thread, and {threads - 1} were started")


def main() -> int:
    """Entry point."""
    parent = int(sys.argv[1])
    die_with(parent)
    try:
        endpoint, modules, folder, workers, credentials = read_order(0)
        _import(modules)
        gc.collect()
        gc.freeze()  # else a worker's first collection would copy every page
        for number in workers:
            pid = fork_sibling()
            if pid == 0:
                _guarded(parent, endpoint, f"w{number}", folder, credentials)
            os.write(0, FORKED.pack(number, pid))
    except Unfit as reason:
        sys.stderr.write(f"{reason}\n")
        return UNFIT
    except (EOFError, BrokenPipeError):
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
