"""What all links share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

LINGER_MS = 2000
IPC_PATH_MAX = 107
"""Longest path of a Unix socket in bytes (sockaddr_un)."""


class Closable(Protocol):
    """A socket, of whatever library."""

    def close(self) -> None: ...


class LinkClosed(Exception):
    """The other end is gone."""


def check_ipc(endpoint: str) -> str:
    """The path of an ``ipc://`` endpoint; ValueError when it does not fit a socket address."""
    path = endpoint.removeprefix("ipc://")
    if not endpoint.startswith("ipc://") or len(path.encode()) > IPC_PATH_MAX:
        raise ValueError(
            f"endpoint must be ipc:// with a path of at most {IPC_PATH_MAX} bytes, not {endpoint}; "
            "set XDG_RUNTIME_DIR or TMPDIR to a shorter directory"
        )
    return path


def close_ways(peers: Iterable[Closable | None], own: Closable | None, path: str) -> None:
    """Close a worker's sockets to other workers, and its own at `path`, which goes too; None: there is no such socket."""
    for peer in peers:
        if peer is not None:
            peer.close()
    if own is not None:
        own.close()
        with suppress(FileNotFoundError):
            os.unlink(path)
