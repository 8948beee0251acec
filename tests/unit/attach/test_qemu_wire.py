"""Clients of QEMU's sockets against a peer that answers from a list."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cosim.attach.qemu_wire import Gdb, QemuError, QTest


@contextmanager
def _peer(*answers: bytes) -> Iterator[socket.socket]:
    """A socket whose other end sends one of `answers` whenever something has come, then no more."""
    near, far = socket.socketpair()
    near.settimeout(10)

    def serve() -> None:
        for answer in answers:
            far.recv(1000)
            far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        while far.recv(1000):
            pass
        far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield near
    finally:
        near.close()
        thread.join()


def test_qtest_skips_interrupts_and_reports_failures() -> None:
    """Lines about interrupts may come before an answer; FAIL is an error that quotes the command; so is the end."""
    with _peer(b"IRQ raise 0\nOK 0x5\n", b"FAIL Unknown command\n") as near:
        client = QTest(near)
        assert client.load(0, 4) == 5
        with pytest.raises(QemuError, match="clock_step"):
            client.command("clock_step")
        with pytest.raises(QemuError, match="closed"):
            client.command("clock_step")


def test_debugger_packets() -> None:
    """Packets are acknowledged until the stub has agreed that they need not be; a refused register is an error."""
    with _peer(b"+$#00", b"+$l#6c", b"+$OK#9a", b"$OK#9a$E22#a9") as near:
        client = Gdb(near)
        with pytest.raises(QemuError, match="E22"):
            client.step(1, {0: 5})
