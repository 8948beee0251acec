"""Limits of a process that grow with the number of workers."""

from __future__ import annotations

import resource

from cosim.errors import UsageError

SPARE_FILES = 256
"""Files that a process may have open besides those of its workers."""


def room_for(workers: int) -> None:
    """Raise this process's limit of open files if so many workers need it: two files for each, at the
    hub connection and journal.

    Raises:
        UsageError: the hard limit is too low.
    """
    needed = 2 * workers + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"limit of open files must be at least {needed} for {workers} workers, not {hard}",
            code="open-files",
            where="--workers",
            next_step="raise it (ulimit -Hn), or ask for fewer workers: --workers auto",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
