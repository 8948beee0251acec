"""Clients of a QEMU process: its test protocol (qtest), its monitor (QMP) and its debugger stub (GDB remote protocol).

Formats: QEMU documentation (devel/qtest, interop/qmp-spec) and "Debugging with GDB", appendix E.
"""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

_SLICE = 0x8000


class OracleError(RuntimeError):
    """QEMU did not do what was asked of it: how the oracle works is in question, not what it says."""


class _Stream:
    """Buffered reads from a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def fill(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise OracleError("QEMU must keep its sockets open, but closed one: see its output in the log file")
        self._buffer += data

    def until(self, mark: bytes) -> bytes:
        """Bytes before `mark`, which is consumed too."""
        while mark not in self._buffer:
            self.fill()
        data, self._buffer = self._buffer.split(mark, 1)
        return data

    def take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self.fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def close(self) -> None:
        self._socket.close()


class QTest(_Stream):
    """Memory of the machine; it works while the machine is paused."""

    def command(self, line: str) -> str:
        """Send one line; the rest of the line that starts with OK."""
        self.send(line.encode() + b"\n")
        while True:
            answer = self.until(b"\n").decode()
            if answer.startswith("IRQ"):
                continue
            if not answer.startswith("OK"):
                raise OracleError(f"qtest must answer OK to {line[:60]!r}, not {answer!r}")
            return answer[3:]

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            self.command(f"b64write {address + start:#x} {len(part):#x} {base64.b64encode(part).decode()}")

    def read(self, address: int, size: int) -> bytes:
        """Load bytes."""
        return base64.b64decode(self.command(f"b64read {address:#x} {size:#x}"))

    def fill_zero(self, address: int, size: int) -> None:
        """Store zeros."""
        self.command(f"memset {address:#x} {size:#x} 0x0")


class Qmp(_Stream):
    """The monitor."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._message()  # the greeting
        self.command("qmp_capabilities")

    def _message(self) -> dict[str, Any]:
        message = json.loads(self.until(b"\n"))
        assert isinstance(message, dict)
        return message

    def command(self, name: str, event: str = "") -> None:
        """Execute; returns when QEMU has answered and, if asked for, the event has come."""
        self.send(json.dumps({"execute": name}).encode() + b"\n")
        wanted = {"return", event} - {""}
        while wanted:
            message = self._message()
            if "error" in message:
                raise OracleError(f"QEMU must accept {name}, but said {message['error']}")
            wanted -= {"return"} if "return" in message else {str(message.get("event"))}


class Gdb(_Stream):
    """The debugger stub: breakpoints and continue."""

    def _packet(self, body: str) -> None:
        checksum = sum(body.encode()) & 0xFF
        self.send(f"${body}#{checksum:02x}".encode())

    def _answer(self) -> str:
        self.until(b"$")
        body = self.until(b"#").decode("latin-1")
        self.take(2)
        self.send(b"+")
        return body

    def ask(self, body: str) -> str:
        """Send a packet; its answer."""
        self._packet(body)
        return self._answer()

    def breakpoint(self, address: int) -> None:
        """Stop the machine when a CPU comes to `address`."""
        answer = self.ask(f"Z0,{address:x},4")
        if answer != "OK":
            raise OracleError(f"the debugger stub must set a breakpoint, not answer {answer!r}")

    def resume(self) -> str:
        """Continue until the next stop; what the stub says about it."""
        return self.ask("vCont;c")
