"""Clients of a QEMU process: its test protocol (qtest), its monitor (QMP) and its debugger stub (GDB remote protocol).

All of them block. Formats: QEMU's documentation (devel/qtest, interop/qmp-spec) and "Debugging with GDB", appendix E.
"""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

_SLICE = 0x4000
_SIZES = {1: "b", 2: "w", 4: "l", 8: "q"}


class QemuError(Exception):
    """QEMU is not there, has ended, or did not do what was asked of it; the text says what was expected."""


class _Stream:
    """Buffered reads from a connected socket, which its owner closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send all bytes. Raises QemuError: the socket is closed."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise QemuError(f"QEMU must take a command, but its socket is closed ({error.strerror or error})") from None

    def _fill(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise QemuError(
                f"QEMU must answer within {self._socket.gettimeout():g} s, but did not: it hangs, or is stopped"
            ) from None
        except OSError as error:
            raise QemuError(f"QEMU must answer, but its socket failed ({error.strerror or error})") from None
        if not data:
            raise QemuError("QEMU must answer, but closed its socket")
        self._buffer += data

    def until(self, mark: bytes) -> bytes:
        """Bytes before `mark`, which is consumed too."""
        while mark not in self._buffer:
            self._fill()
        data, self._buffer = self._buffer.split(mark, 1)
        return data

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data


class QTest(_Stream):
    """Physical memory and registers of the machine, also while it is paused; an access has taken effect when it is answered."""

    def command(self, line: str) -> str:
        """Send one line; what follows OK in the answer."""
        self.send(line.encode() + b"\n")
        while (answer := self.until(b"\n").decode(errors="replace")).startswith("IRQ "):
            pass  # a line changed, which is not an answer
        if answer != "OK" and not answer.startswith("OK "):
            raise QemuError(f"qtest must answer OK to {line[:60]!r}, not {answer!r}")
        return answer[3:]

    def load(self, address: int, size: int) -> int:
        """One read of 1, 2, 4 or 8 bytes."""
        return int(self.command(f"read{_SIZES[size]} {address:#x}"), 16)

    def store(self, address: int, size: int, value: int) -> None:
        """One write of 1, 2, 4 or 8 bytes."""
        self.command(f"write{_SIZES[size]} {address:#x} {value:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        return base64.b64decode(self.command(f"b64read {address:#x} {size:#x}"))

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in RAM."""
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            self.command(f"b64write {address + start:#x} {len(part):#x} {base64.b64encode(part).decode()}")

    def fill_zero(self, address: int, size: int) -> None:
        """Store zeros in RAM."""
        self.command(f"memset {address:#x} {size:#x} 0x0")


class Qmp(_Stream):
    """The monitor; `version` is QEMU's, such as "7.2.22"."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        version = self._message()["QMP"]["version"]["qemu"]
        self.version = f"{version['major']}.{version['minor']}.{version['micro']}"
        self.command("qmp_capabilities")

    def _message(self) -> dict[str, Any]:
        message = json.loads(self.until(b"\n"))
        assert isinstance(message, dict)
        return message

    def command(self, name: str, *, event: str = "", **arguments: Any) -> Any:
        """Execute a command; its result, when QEMU has answered and, if asked for, the event has come."""
        self.send(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        wanted = {"return", event} - {""}
        result: Any = None
        while wanted:
            message = self._message()
            if "error" in message:
                raise QemuError(f"QEMU must accept the monitor's {name}, but said {message['error']}")
            if "return" in message:
                result = message["return"]
                wanted.discard("return")
            wanted.discard(str(message.get("event")))
        return result


class Gdb(_Stream):
    """The debugger stub: registers and single steps of paused CPUs, numbered from 0.

    Registers have the numbers of QEMU's AArch64 description: 0 to 30 are x0 to x30, 32 is pc.
    """

    PC = 32

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.ask("qSupported:vContSupported+")
        self.ask("qXfer:features:read:target.xml:0,ffb")  # without it registers are not known by number
        self.ask("QStartNoAckMode")
        self._acknowledge = False
        self._cpu = -1

    _acknowledge = True

    def _packet(self, body: str) -> bytes:
        return f"${body}#{sum(body.encode()) & 0xFF:02x}".encode()

    def _answer(self) -> str:
        self.until(b"$")
        body = self.until(b"#").decode("latin-1")
        self.take(2)
        if self._acknowledge:
            self.send(b"+")
        return body

    def ask(self, *bodies: str) -> list[str]:
        """Send packets, all at once; their answers."""
        self.send(b"".join(map(self._packet, bodies)))
        return [self._answer() for _ in bodies]

    def step(self, cpu: int, registers: dict[int, int], result: int = 0) -> tuple[int, int]:
        """Set registers of a CPU and execute the one instruction at its pc; then (pc, register `result`)."""
        select = [] if cpu == self._cpu else [f"Hg{cpu + 1}"]
        self._cpu = cpu
        sets = [f"P{number:x}={value.to_bytes(8, 'little').hex()}" for number, value in registers.items()]
        done = self.ask(*select, *sets) if select or sets else []
        if any(answer != "OK" for answer in done):
            raise QemuError(f"the debugger stub must set registers of CPU {cpu}, but answered {done}")
        stop, pc, value = (*self.ask(f"vCont;s:{cpu + 1}"), *self.ask(f"p{self.PC:x}", f"p{result:x}"))
        if not stop.startswith("T05"):
            raise QemuError(f"CPU {cpu} must stop after one instruction, but the debugger stub said {stop!r}")
        return _number(pc), _number(value)


def _number(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")
