"""Runs one slot's command on its host and ends it when nobody wants it any more: ``python -m cosim.engines.slot``.

Two forms; both end with the command's exit status (128 and the signal's number when a signal killed it):

``slot -- WORDS`` reads from stdin one line with a number of bytes and then the credential of that size, which the command
gets as its whole stdin. From then on the end of stdin means that the engine is gone or has stopped the slot: the command is
ended. So an engine that holds the other end of that pipe (by way of ssh, or from a Dask task) stops the command by closing
it, by exiting, or by being killed.

``slot --from FILE`` takes its words from an entry of FILE that the Slurm engine has written: the entry of this node, or the
one with the task's number (``SLURM_PROCID``). Its output goes to the entry's log, its exit status to the entry's exit file.

A command is ended by SIGTERM and, two seconds later, SIGKILL. It dies with this process (PR_SET_PDEATHSIG). What a cut
network keeps from reaching this host is the lease's business, in the command itself.

Standard library only: this starts on every host.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

GRACE_S = 2.0
"""From SIGTERM to SIGKILL."""
LIMIT = 1 << 15
"""Bytes of a credential: what a pipe takes without anybody reading."""
USAGE = 2
"""Exit status: the order was not understood."""

_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def order(credential: bytes) -> bytes:
    """What an engine writes to the launcher's stdin; ValueError for more than `LIMIT` bytes."""
    if len(credential) > LIMIT:
        raise ValueError(f"a credential must have at most {LIMIT} bytes, not {len(credential)}")
    return b"%d\n%b" % (len(credential), credential)


def read_order(fd: int) -> bytes:
    """The inverse of `order`, leaving the rest of the stream unread; ValueError for anything else."""
    head = b""
    while not head.endswith(b"\n"):
        part = os.read(fd, 1)
        if not part or len(head) > 8:
            raise ValueError(f"stdin must begin with the size of the credential and a newline, not {head + part!r}")
        head += part
    if not head[:-1].isdigit() or (size := int(head)) > LIMIT:
        raise ValueError(f"the size of a credential must be 0 to {LIMIT}, not {head[:-1]!r}")
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            raise ValueError(f"stdin must hold a credential of {size} bytes, and ended after {len(data)}")
        data += part
    return data


def run(words: Sequence[str], credential: bytes, life: int | None = None, output: int | None = None) -> int:
    """Run a command to its end, or until `life` (a descriptor) ends or a signal asks to stop; returns its exit status.

    Args:
        words: argv.
        credential: its stdin.
        life: while this has no end, the command is wanted; None: always.
        output: descriptor for stdout and stderr; None: this process's own.
    """
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in _STOPS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake)
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=output, stderr=output, process_group=0, preexec_fn=_die_with_parent()
    )
    assert process.stdin is not None
    try:
        process.stdin.write(credential)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it did not want to know; its exit status says more
    _until_end(process, life, woken)
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def _die_with_parent() -> Callable[[], None]:
    """What the child calls between fork and exec."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _until_end(process: subprocess.Popen[bytes], life: int | None, woken: int) -> None:
    end = os.pidfd_open(process.pid)
    poll = select.poll()
    for fd in (end, woken) if life is None else (end, woken, life):
        poll.register(fd, select.POLLIN)
    deadline: float | None = None
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = {fd for fd, _ in poll.poll(None if left is None else left * 1000)}
            if end in ready:
                break
            if deadline is not None and time.monotonic() >= deadline:
                _signal_group(process.pid, signal.SIGKILL)
                break
            if woken in ready or (life in ready and not _more(life)):
                poll.unregister(woken)
                if life is not None:
                    poll.unregister(life)
                life = None
                _signal_group(process.pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
        process.wait()
        _signal_group(process.pid, signal.SIGKILL)  # what it left in its group
    finally:
        os.close(end)


def _more(fd: int | None) -> bool:
    """Whether a stream goes on; what it holds means nothing."""
    assert fd is not None
    return bool(os.read(fd, 4096))


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def choose(entries: Sequence[Mapping[str, Any]], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """The entry for this task of a Slurm step; LookupError if there is none.

    Entries that name hosts are taken by node, several on one node by local task number; others by task number.
    """
    node = environment.get("SLURMD_NODENAME", "")
    if all(entry["host"] for entry in entries):
        number, candidates = environment.get("SLURM_LOCALID", "0"), [e for e in entries if e["host"] == node]
    else:
        number, candidates = environment.get("SLURM_PROCID", ""), list(entries)
    if not number.isdigit() or int(number) >= len(candidates):
        raise LookupError(
            f"no slot for task {number or '(SLURM_PROCID is not set)'} on node {node or '(SLURMD_NODENAME is not set)'}: "
            f"{len(candidates)} of {len(entries)} slots may run here"
        )
    return candidates[int(number)]


def _from_file(path: str) -> int:
    entry = choose(json.loads(Path(path).read_text()), os.environ)
    log = os.open(entry["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    status = run(entry["words"], b"", output=log)
    exit_file = Path(entry["exit"])
    partial = exit_file.with_suffix(".partial")
    partial.write_text(f"{status}\n")
    partial.replace(exit_file)  # a reader finds all of it or nothing
    return status


def main(arguments: Sequence[str]) -> int:
    """The program; see the module's text."""
    try:
        if len(arguments) == 2 and arguments[0] == "--from":
            return _from_file(arguments[1])
        if len(arguments) > 1 and arguments[0] == "--":
            return run(arguments[1:], read_order(0), life=0)
        raise ValueError(f"the arguments must be '-- COMMAND...' or '--from FILE', not {' '.join(arguments)!r}")
    except (ValueError, LookupError, OSError) as error:
        sys.stderr.write(f"cosim.engines.slot: {error}\n")
        return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
