"""A server in a thread, for tests of what a client sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from cosim.export.server import Server
from nodes.smmute.model import Smmute


class Running:
    """A server in a thread: its path and what it noted."""

    thread: Thread

    def __init__(self, path: str) -> None:
        self.path = path
        self.notes: list[str] = []


@contextmanager
def serving(directory: Path, *, once: bool = False) -> Iterator[Running]:
    """Serve the engine, and end at the end."""
    running = Running(str(directory / "s"))
    server = Server("smmute", Smmute, running.path, running.notes.append)
    failed: list[BaseException] = []

    def body() -> None:
        try:
            server.serve(once=once)
        except BaseException as error:
            failed.append(error)
            server.close()  # the client must not wait

    running.thread = thread = Thread(target=body)
    thread.start()
    try:
        yield running
    finally:
        if not failed:
            server.stop()
        thread.join(20)
        server.close()
    assert not failed, failed
    assert not os.path.exists(running.path), "the socket is removed"
