"""Engines for tests, all with hosts of this machine: behind a slow network, and with keys that have come into other hands."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cosim.engines.base import Exit, Slot
from cosim.engines.local import LocalEngine
from cosim.link.keys import write_credential

UP_BYTES_S = 4000
STOLEN_VARIABLE = "COSIM_TEST_STOLEN"
"""Folder in which `StolenKeys` leaves what it has."""


class SlowUplink(LocalEngine):
    """What hosts send to the root crawls, and waits in the sender's kernel; the other way is as fast as ever."""

    async def start(self, slots: Sequence[Slot]) -> None:
        """Start them with a forwarder's address in place of the root's."""
        await super().start([slot._replace(command=tuple(map(self._forwarded, slot.command))) for slot in slots])

    def _forwarded(self, word: str) -> str:
        if not word.startswith("tcp://"):
            return word
        address, _, port = word.removeprefix("tcp://").rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=_forward, args=(listener, (address, int(port))), daemon=True).start()
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


class StolenKeys(LocalEngine):
    """Leaves the root's endpoint and every host's credential in a folder, and starts no host until a file `hosts` is there."""

    _waiting: Sequence[Slot] = ()

    async def start(self, slots: Sequence[Slot]) -> None:
        """Give the keys away; `poll` does the rest, for refusals are logged from then on."""
        folder = Path(os.environ[STOLEN_VARIABLE])
        for slot in slots:
            write_credential(folder / f"{slot.name}.credential", slot.credential)
        endpoint = next(word for word in slots[0].command if word.startswith("tcp://"))
        (folder / "new").write_text(endpoint)
        (folder / "new").rename(folder / "endpoint")
        self._waiting = slots

    async def poll(self) -> list[Exit]:
        """Start them once they are wanted."""
        if self._waiting and (Path(os.environ[STOLEN_VARIABLE]) / "hosts").exists():
            slots, self._waiting = self._waiting, ()
            await super().start(slots)
        return await super().poll()


def _forward(listener: socket.socket, root: tuple[str, int]) -> None:
    with listener:
        host, _ = listener.accept()
    with host, socket.create_connection(root) as hub:
        down = threading.Thread(target=_pump, args=(hub, host, 0), daemon=True)
        down.start()
        _pump(host, hub, UP_BYTES_S)
        down.join()


def _pump(source: socket.socket, sink: socket.socket, bytes_s: int) -> None:
    with suppress(OSError):
        while data := source.recv(256 if bytes_s else 1 << 16):
            time.sleep(len(data) / bytes_s if bytes_s else 0)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
