"""DRAM: bytes at absolute physical addresses, zero at reset, kept in 4 KiB pages that exist once something was written.

A message is carried out in one step, so that a read sees all of a write or nothing of it (within one access, at most
4096 bytes).
"""

from __future__ import annotations

from cosim.api import SLVERR, BusError, MmioTarget, Node, Request

PAGE = 4096
MAX_ACCESS = 4096


class Memory(Node):
    """Answers reads and writes of 1 to 4096 bytes at any alignment; `addr` of an access is the physical address."""

    kind = "memory"
    bus = MmioTarget("reads and writes; the region's offset equals its base")

    def setup(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.bus.serve(self._serve_read, self._serve_write)

    def peek(self, address: int, size: int) -> bytes:
        """The bytes at an address, without a bus access (for tools and tests)."""
        out = bytearray()
        for number, first, length in _pieces(address, size):
            page = self.pages.get(number)
            out += bytes(length) if page is None else page[first : first + length]
        return bytes(out)

    def poke(self, address: int, data: bytes) -> None:
        """Store bytes at an address, without a bus access (for loaders and tests)."""
        done = 0
        for number, first, length in _pieces(address, len(data)):
            page = self.pages.get(number)
            if page is None:
                page = self.pages[number] = bytearray(PAGE)
            page[first : first + length] = data[done : done + length]
            done += length

    def _serve_read(self, access: Request) -> bytes:
        _check(access)
        return self.peek(access.addr, access.size)

    def _serve_write(self, access: Request) -> None:
        _check(access)
        try:
            data = access.bytes
        except OverflowError:
            data = b""
        if len(data) != access.size:
            raise BusError(SLVERR, f"data of a write must be {access.size} bytes (at {access.addr:#x})")
        self.poke(access.addr, data)


def _check(access: Request) -> None:
    if not 1 <= access.size <= MAX_ACCESS:
        raise BusError(
            SLVERR, f"size of an access must be in 1..{MAX_ACCESS} bytes, not {access.size} (at {access.addr:#x})"
        )


def _pieces(address: int, size: int) -> list[tuple[int, int, int]]:
    """(page number, first byte in it, bytes) of a range."""
    pieces = []
    while size > 0:
        first = address % PAGE
        length = min(size, PAGE - first)
        pieces.append((address // PAGE, first, length))
        address += length
        size -= length
    return pieces
