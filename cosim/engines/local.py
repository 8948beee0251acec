"""Engine `local`: host hubs as processes of this machine. For trying out a placement, and for tests.

Each command runs under `cosim.engines.slot`, whose stdin this process holds: when this process dies, however it dies, the command
is ended.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosim.engines.base import Exit, Slot, program
from cosim.engines.files import SlotFiles
from cosim.engines.options import read_options
from cosim.engines.programs import Programs
from cosim.engines.slot import order

STOP_GRACE_S = 3.0
"""For a command to end after its stdin has: the launcher kills after two seconds."""


@dataclass(frozen=True)
class LocalOptions:
    """There is nothing to set."""


class LocalEngine:
    """Places slots on this machine; `Slot.host` is only a name."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        read_options("local", LocalOptions, options)
        self._files = SlotFiles(folder)
        self._programs = Programs()

    async def start(self, slots: Sequence[Slot]) -> None:
        """Start one process per slot; see `Engine.start`."""
        self._files.make()
        for slot in slots:
            argv = [sys.executable, "-m", "cosim.engines.slot", "--", *program(slot.command)]
            self._programs.start(slot.name, argv, self._files.log(slot.name), order(slot.credential))

    async def poll(self) -> list[Exit]:
        """See `Engine.poll`."""
        return self._programs.poll()

    async def stop(self) -> None:
        """End the commands through their stdin; kill the launchers that don't end."""
        await self._programs.stop(STOP_GRACE_S)

    def logs(self, name: str) -> str | None:
        """What the command has written."""
        return self._files.written(name)
