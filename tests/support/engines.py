"""Engines for tests: hosts of this machine behind a slow network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from cosim.engines.base import Slot
from cosim.engines.local import LocalEngine

UP_BYTES_S = 4000


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
