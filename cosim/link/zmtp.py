"""ZMTP 3.0 with the NULL mechanism, sans-IO: bytes in, message parts out (rfc.zeromq.org/spec/23).

It is what libzmq speaks on an ipc or tcp connection, so a libzmq socket may be at the other end; `cosim.link.unix_link` uses
it on plain sockets of the main thread, which spares the hand-offs to libzmq's I/O thread.

A connection begins with a greeting of 64 bytes each way (signature, version, mechanism), then one READY command each way with
the socket type and identity, then message frames: a flags byte (bit 0 more, bit 1 long size, bit 2 command), the size (one byte,
or eight big-endian), the body.
"""

from __future__ import annotations

import struct

from cosim.core.codec import LIMITS

MORE, LONG, COMMAND = 1, 2, 4
GREETING_SIZE = 64
MECHANISM = b"NULL".ljust(20, b"\0")
GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + MECHANISM + b"\0" + b"\0" * 31
_LONG_SIZE = struct.Struct(">Q")
_PROPERTY_SIZE = struct.Struct(">I")
MAX_PARTS = 8
MAX_COMMAND = 65_536


class ZmtpError(Exception):
    """The peer does not speak ZMTP 3 with NULL, or breaks a limit; the text names the rule."""


_SHORT = [bytes((0, size)) for size in range(256)]


def header(size: int, flags: int = 0) -> bytes:
    """The header of a frame with a body of `size` bytes."""
    if size < 256:
        return _SHORT[size] if not flags else bytes((flags, size))
    return bytes((flags | LONG,)) + _LONG_SIZE.pack(size)


def ready(socket_type: str, identity: bytes) -> bytes:
    """The READY command of a peer."""
    body = b"\x05READY" + _property(b"Socket-Type", socket_type.encode()) + _property(b"Identity", identity)
    return header(len(body), COMMAND) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + _PROPERTY_SIZE.pack(len(value)) + value


def properties(body: bytes) -> dict[bytes, bytes]:
    """The properties of a READY command's body; names in lower case (they compare without case).

    Raises:
        ZmtpError: not a READY command, or cut short.
    """
    if not body.startswith(b"\x05READY"):
        raise ZmtpError(f"handshake must be a READY command, not {body[:20]!r}")
    found = {}
    offset = 6
    while offset < len(body):
        end = offset + 1 + body[offset]
        name = body[offset + 1 : end]
        if end + 4 > len(body):
            raise ZmtpError("READY command is cut short")
        (size,) = _PROPERTY_SIZE.unpack_from(body, end)
        if end + 4 + size > len(body):
            raise ZmtpError("READY command is cut short")
        found[name.lower()] = body[end + 4 : end + 4 + size]
        offset = end + 4 + size
    return found


class Connection:
    """One peer's incoming byte stream: `feed` bytes, take whole messages; `greeted`, then `ready` and
    `identity` tell of the handshake.

    `reply` holds bytes that are to be sent (PONG).
    """

    __slots__ = ("_buffer", "_parts", "greeted", "identity", "limit", "ready", "reply", "socket_type", "whole")

    def __init__(self, limit: int = LIMITS.max_frame) -> None:
        self.limit = limit
        self.ready = False
        self.identity = b""
        self.socket_type = b""
        self.reply = b""
        self.whole = False  # what comes next begins a message
        self._buffer = bytearray()
        self.greeted = False
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Take received bytes; returns the messages that are whole now (the last part of each).

        Raises:
            ZmtpError: the peer broke the protocol; the connection is to be closed.
        """
        if self.whole and len(data) > 1:
            # One message in one piece: the common case of a grant or its answer.
            if data[0] == 0 and len(data) == 2 + data[1]:
                return [data[2:]]
            if data[0] == LONG and len(data) > 9 and len(data) == 9 + _LONG_SIZE.unpack_from(data, 1)[0] <= self.limit:
                return [data[9:]]
        self._buffer += data
        messages: list[bytes] = []
        while self._step(messages):
            pass
        self.whole = self.ready and not self._buffer and not self._parts
        return messages

    def _step(self, messages: list[bytes]) -> bool:
        buffer = self._buffer
        if not self.greeted:
            if len(buffer) < GREETING_SIZE:
                if buffer and buffer[0] != 0xFF:
                    raise ZmtpError(f"greeting must begin with 0xff, not {buffer[0]:#04x}")
                return False
            self._greet(bytes(buffer[:GREETING_SIZE]))
            del buffer[:GREETING_SIZE]
            return True
        if len(buffer) < 2:
            return False
        flags = buffer[0]
        if flags & LONG:
            if len(buffer) < 9:
                return False
            (size,), start = _LONG_SIZE.unpack_from(buffer, 1), 9
        else:
            size, start = buffer[1], 2
        limit = MAX_COMMAND if flags & COMMAND else self.limit
        if flags & ~(MORE | LONG | COMMAND) or size > limit:
            raise ZmtpError(
                f"frame must have known flags and at most {limit} bytes, not flags {flags:#x} and {size} bytes"
            )
        if len(buffer) < start + size:
            return False
        body = bytes(buffer[start : start + size])
        del buffer[: start + size]
        self._take(flags, body, messages)
        return True

    def _greet(self, greeting: bytes) -> None:
        if greeting[0] != 0xFF or greeting[9] != 0x7F or greeting[10] < 3:
            raise ZmtpError(f"peer must speak ZMTP 3 or later, not {greeting[:12].hex()}")
        if greeting[12:32] != MECHANISM:
            raise ZmtpError(f"security mechanism must be NULL here, not {greeting[12:32].rstrip(bytes(1))!r}")
        self.greeted = True

    def _take(self, flags: int, body: bytes, messages: list[bytes]) -> None:
        if flags & COMMAND:
            if not self.ready:
                found = properties(body)
                self.identity, self.socket_type = found.get(b"identity", b""), found.get(b"socket-type", b"")
                self.ready = True
            elif body.startswith(b"\x04PING"):
                pong = b"\x04PONG" + body[7:]
                self.reply += header(len(pong), COMMAND) + pong
            return
        if not self.ready:
            raise ZmtpError("a message must not come before the READY command")
        self._parts.append(body)
        if len(self._parts) > MAX_PARTS:
            raise ZmtpError(f"a message must have at most {MAX_PARTS} parts")
        if not flags & MORE:
            parts, self._parts = self._parts, []
            messages.append(parts[-1] if len(parts) == 1 else b"")
