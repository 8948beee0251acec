"""What every engine offers: start slots, poll their exits, stop them, show their logs.

A slot is one long-lived command on one host: that host's hub. An engine places commands and reports how they ended, and
does nothing else: who has joined, who is silent and when a run is over are decided by the hubs' own protocol, since no
engine reports a host that was cut off within seconds. After the start all traffic is between the hubs.

A command is argv words that begin with ``cosim``; the engine replaces that word by the interpreter of the host
(`program`). The words ``--credential -`` mean that the credential comes on stdin, up to its end. An engine that can't give
a remote command its stdin puts the credential in a file of mode 0600 and the file's path into the words
(`with_credential_file`). A credential is never put in argv, environment or logs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

CREDENTIAL_OPTION = "--credential"


class Slot(NamedTuple):
    """One command to run on one host."""

    name: str
    """Of the host hub, such as "h0"; unique in a run."""
    host: str
    """Where to run it, as the engine names machines; "" is wherever there is room."""
    command: tuple[str, ...]
    """argv words; a first word "cosim" stands for the cosim of that host."""
    credential: bytes
    """What the command reads from stdin."""

    def __repr__(self) -> str:
        return f"Slot({self.name!r}, {self.host!r}, {self.command!r}, ...)"  # a traceback may show it


class Exit(NamedTuple):
    """A slot's command has ended, or will never start."""

    name: str
    """The slot's."""
    status: int | None
    """Exit status; negative: the signal that killed it; None: it is not known."""
    text: str
    """What the engine knows of it, in words: the reason and the last lines that it wrote."""


class Engine(Protocol):
    """Places the slots of one run. Used by one task; `stop` may be called at any time, also twice.

    An engine whose hosts have their credentials already (`cosim.engines.k8s`) has an attribute `keys`, the run's `RunKeys`: then no
    others are made, slots have none, and the hosts' incarnation is 0, as their keys are of one run. One whose `start` waits for
    room has an attribute `wait_s`, seconds at most: the run's limit for hosts to join counts from the end of `start`.
    """

    async def start(self, slots: Sequence[Slot]) -> None:
        """Start all slots. Returns when the engine has accepted them, which says nothing of their having joined.

        Raises:
            UsageError: what was asked for is impossible (no such host, a program or package that is missing).
            PeerError: the engine refused, or can't be reached.
        """

    async def poll(self) -> list[Exit]:
        """The slots that have ended since the last call, each once; returns at once."""

    async def stop(self) -> None:
        """End what still runs and free everything. What can't be reached any more ends by its own lease."""

    def logs(self, name: str) -> str | None:
        """What a slot has written to stdout and stderr so far; None when the engine can't tell (yet)."""


def program(command: Sequence[str], python: str = sys.executable) -> list[str]:
    """The words to execute: a first word "cosim" becomes ``PYTHON -m cosim``."""
    first, *rest = command
    return [python, "-m", "cosim", *rest] if first == "cosim" else [first, *rest]


def with_credential_file(command: Sequence[str], path: str) -> tuple[str, ...]:
    """The command with ``--credential -`` changed to ``--credential PATH``; unchanged without these words."""
    words = list(command)
    for place in range(len(words) - 1):
        if words[place] == CREDENTIAL_OPTION and words[place + 1] == "-":
            words[place + 1] = path
    return tuple(words)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, not even for a moment."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
