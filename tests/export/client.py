"""A vfio-user client of our own, written from the specification and not with the codec that it tests."""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import struct
from typing import Any

VERSION, MAP, UNMAP, INFO, REGION, IRQ, SET_IRQS, READ, WRITE, DMA_READ, DMA_WRITE, RESET = (
    1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13,
)  # fmt: skip
CONFIG = 7
CAPABILITIES = {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20, "pgsizes": 4096, "write_multiple": True}
MEMCPY, RAND48, SUM64 = 2, 3, 4
HALTED, ERROR = 1, 0xFFFF_FFFF
TIMEOUT_S = 20


class Errno(Exception):
    """The server refused a request; `code` is its errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class Gone(Exception):
    """The server closed the connection."""


class Client:
    """One connection. `memory` is what it answers DMA requests with: {address: bytes}; with `deaf` it leaves them unanswered in
    `heard`."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(path)
        self.memory: dict[int, bytearray] = {}
        self.deaf = False
        self.heard: list[tuple[int, int, bytes]] = []
        self.asked = 0
        self.refuse_dma = 0
        self._id = 0
        self._fds: list[int] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        for fd in self._fds:
            os.close(fd)

    # -- messages ------------------------------------------------------------------------------------------------------

    def send(self, command: int, payload: bytes = b"", fds: list[int] | None = None, flags: int = 0) -> int:
        """Send a command; its message ID."""
        self._id = self._id + 1 & 0xFFFF
        data = struct.pack("=HHIII", self._id, command, 16 + len(payload), flags, 0) + payload
        if fds:
            socket.send_fds(self.sock, [data], fds)
        else:
            self.sock.sendall(data)
        return self._id

    def request(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> bytes:
        """Send a command and wait for its answer, serving DMA meanwhile; raises Errno."""
        number = self.send(command, payload, fds)
        while True:
            got, code, flags, error, data = self.receive()
            if flags & 0xF == 0:
                self.serve(got, code, data)
                continue
            assert (got, code) == (number, command)
            if flags & 0x20:
                assert data == b"", "an error has no payload"
                raise Errno(error)
            return data

    def receive(self) -> tuple[int, int, int, int, bytes]:
        """(id, command, flags, error, payload) of the next message."""
        number, command, size, flags, error = struct.unpack("=HHIII", self._exactly(16))
        return number, command, flags, error, self._exactly(size - 16)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self.sock.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Gone
            data += part
        return data

    def answer(self, number: int, command: int, payload: bytes, error: int = 0) -> None:
        """Answer a command of the server's."""
        flags = 0x21 if error else 1
        self.sock.sendall(struct.pack("=HHIII", number, command, 16 + len(payload), flags, error) + payload)

    def serve(self, number: int, command: int, data: bytes) -> None:
        """Answer a DMA_READ or DMA_WRITE from `memory`."""
        assert command in (DMA_READ, DMA_WRITE)
        self.asked += 1
        if self.deaf:
            self.heard.append((number, command, data))
            return
        address, count = struct.unpack_from("=QQ", data)
        base = max(b for b in self.memory if b <= address)
        chunk, at = self.memory[base], address - base
        assert at + count <= len(chunk), "the server asks for what was mapped only"
        if self.refuse_dma:
            self.answer(number, command, b"", self.refuse_dma)
        elif command == DMA_READ:
            self.answer(number, command, data[:16] + chunk[at : at + count])
        else:
            assert len(data) == 16 + count
            chunk[at : at + count] = data[16:]
            self.answer(number, command, struct.pack("=QI", address, count))

    # -- what QEMU does ------------------------------------------------------------------------------------------------

    def negotiate(self, major: int = 0, minor: int = 0, capabilities: Any = CAPABILITIES) -> tuple[int, int, Any]:
        """VERSION: (major, minor, capabilities) of the answer."""
        data = json.dumps({"capabilities": capabilities}).encode() + b"\0"
        reply = self.request(VERSION, struct.pack("=HH", major, minor) + data)
        assert reply[-1] == 0
        return (*struct.unpack_from("=HH", reply), json.loads(reply[4:-1])["capabilities"])

    def read(self, region: int, offset: int, count: int) -> bytes:
        """REGION_READ."""
        request = struct.pack("=QII", offset, region, count)
        reply = self.request(READ, request)
        assert reply[:16] == request and len(reply) == 16 + count
        return reply[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        """REGION_WRITE."""
        request = struct.pack("=QII", offset, region, len(data))
        assert self.request(WRITE, request + data) == request

    def config(self, offset: int, size: int = 4) -> int:
        """A configuration register."""
        return int.from_bytes(self.read(CONFIG, offset, size), "little")

    def set_config(self, offset: int, value: int, size: int = 4) -> None:
        """Write a configuration register."""
        self.write(CONFIG, offset, value.to_bytes(size, "little"))

    def region_size(self, index: int) -> int:
        """Bytes of a region; it must be readable and writeable if it has any."""
        reply = self.request(REGION, struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
        argsz, flags, got, cap, size, offset = struct.unpack("=IIIIQQ", reply)
        assert (argsz, got, cap, offset) == (32, index, 0, 0) and flags == (3 if size else 0)
        assert isinstance(size, int)
        return size

    def map(self, address: int, size: int, *, shared: bool = True, flags: int = 3) -> Any:
        """DMA_MAP of new memory: the client's own mapping of it, or the bytes that it answers with."""
        payload = struct.pack("=IIQQQ", 32, flags, 0, address, size)
        if not shared:
            self.memory[address] = bytearray(size)
            assert self.request(MAP, payload) == b""
            return self.memory[address]
        fd = os.memfd_create("guest")
        try:
            os.ftruncate(fd, size)
            assert self.request(MAP, payload, [fd]) == b""
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def unmap(self, address: int, size: int, flags: int = 0) -> None:
        """DMA_UNMAP."""
        reply = self.request(UNMAP, struct.pack("=IIQQ", 24, flags, address, size))
        assert struct.unpack("=IIQQ", reply)[2:] == (address, size)

    def set_irqs(self, flags: int, start: int, count: int, data: bytes = b"", index: int = 2, **more: Any) -> None:
        """DEVICE_SET_IRQS, of MSI-X vectors unless said otherwise."""
        payload = struct.pack("=IIIII", 20 + len(data), flags, index, start, count) + data
        assert self.request(SET_IRQS, payload, **more) == b""

    def event(self, vector: int) -> int:
        """Give a vector an eventfd."""
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._fds.append(fd)
        self.set_irqs(4 | 32, vector, 1, fds=[fd])
        return fd

    def enable(self) -> None:
        """Memory space, bus mastering and MSI-X on."""
        self.set_config(4, 6, 2)
        self.set_config(0x82, 1 << 15, 2)

    def wait(self, event: int) -> int:
        """Wait for an eventfd, serving DMA; the number of signals."""
        while True:
            ready = select.select([event, self.sock.fileno()], [], [], TIMEOUT_S)[0]
            assert ready, "neither an interrupt nor a request came"
            if event in ready:
                return os.eventfd_read(event)
            number, command, flags, _, data = self.receive()
            assert flags == 0
            self.serve(number, command, data)

    # -- what the engine's driver does ---------------------------------------------------------------------------------

    def start(self, command: int, begin: int, end: int, *, to: int = 0, seed: int = 0, vector: int | None = 0) -> None:
        """Program frame 0 and start it."""
        self.write(0, 0x1_000C, struct.pack("=I", 0xFFFF_FFFF))
        self.write(0, 0x10, struct.pack("=QII", vector is not None, vector or 0, 0))
        self.write(0, 0x20, struct.pack("=IIQQQQ", 0x42FF_42FF, seed, begin, end, 1, to))
        self.write(0, 0, struct.pack("=I", command))

    def register(self, offset: int, size: int = 4) -> int:
        """A register of frame 0."""
        return int.from_bytes(self.read(0, offset, size), "little")
