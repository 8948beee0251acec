"""Stands between the supervisor and a foreign program: ``python -m cosim.run.guard PARENT_PID PROGRAM ARGUMENT...``.

A foreign program asks for no PR_SET_PDEATHSIG, and may start others. This process leads their process group, asks for it
itself, and ends the whole group when the supervisor is gone. It ends as the program ended, by the same signal if by one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
CANNOT_START = 127


def _ask_for(libc: Any, number: int) -> None:
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _end_group(_number: int, _frame: object) -> None:
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
