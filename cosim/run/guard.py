"""Stands between the supervisor and a foreign program: ``python -m cosim.run.guard PARENT_PID PROGRAM ARGUMENT...``.

A foreign program asks for no PR_SET_PDEATHSIG, and may start others. This process leads their process group, asks for it
itself, and ends the whole group when the supervisor is gone, and what has left the group: processes that have the program's
COSIM_TOKEN_FILE in their environment. It ends as the program ended, by the same signal if by one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MARK = "COSIM_TOKEN_FILE"
CANNOT_START = 127


def processes_with(text: bytes) -> list[int]:
    """Processes that have `text` in their environment, by pid; no zombies."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if text in _environ(pid))


def end_all_with(text: bytes) -> None:
    """End the processes that have `text` in their environment, but this one."""
    for pid in processes_with(text):
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _environ(pid: int) -> bytes:
    """The environment of a process that is no zombie; empty when it can't be read."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return b"" if state == "Z" else Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _ask_for(libc: Any, number: int) -> None:
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _end_group(_number: int, _frame: object) -> None:
    if mark := os.environ.get(_MARK):
        end_all_with(f"{_MARK}={mark}\0".encode())
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Run the program to its end."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGTERM, _end_group)
    _ask_for(libc, signal.SIGTERM)
    if os.getppid() != int(parent):
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _ask_for(libc, signal.SIGKILL)

    try:
        child = subprocess.Popen(command, preexec_fn=prepare)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        return CANNOT_START
    status = child.wait()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
