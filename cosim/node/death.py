"""A worker dies with its parent: PR_SET_PDEATHSIG (prctl(2)), checked against a parent that was gone already."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9  # the module signal would cost every worker a millisecond


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exits at once if `parent` (a pid) is not the parent any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
