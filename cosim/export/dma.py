"""The client's memory, as a device's DMA sees it: windows that the client maps, with a file descriptor or without.

Memory with a descriptor is mapped into this process and accessed at once. Memory without one is accessed by messages to the
client: the access completes when the client's answer comes, and the simulation goes on meanwhile.
"""

from __future__ import annotations

import errno
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from cosim.api import DECERR, SLVERR, BusError, Future
from cosim.export.function import DOORBELL
from cosim.export.vfio_user import DMA_READABLE, DMA_WRITEABLE, MAX_TRANSFER, UNMAP_ALL, Map, Refused, Unmap

MAX_WINDOWS = 65535

Send = Callable[[int, int, bytes | None], "Future[bytes]"]
"""Ask the client for `count` bytes at an address, or to write the data there."""


class Window(NamedTuple):
    """Addresses `base` to `base + size`; `memory` is None when the client has to be asked."""

    base: int
    size: int
    flags: int
    memory: mmap.mmap | None


class ClientMemory:
    """The windows. `send` carries accesses to memory without a descriptor; no piece is larger than `max_transfer` bytes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._bases: list[int] = []
        self._windows: list[Window] = []
        self.max_transfer = MAX_TRANSFER

    def __len__(self) -> int:
        return len(self._windows)

    def map(self, request: Map, fd: int | None) -> None:
        """Add a window; `fd` stays the caller's.

        Raises:
            Refused: EEXIST when it overlaps another, ENOSPC when there are too many, EINVAL above 52 bits, else what mmap says.
        """
        if not request.flags & (DMA_READABLE | DMA_WRITEABLE):
            raise Refused(errno.EINVAL, "a DMA window must be readable or writeable")
        if request.address + request.size > DOORBELL:
            raise Refused(errno.EINVAL, f"a DMA window must end at {DOORBELL:#x} or below: addresses have 52 bits here")
        at = bisect_right(self._bases, request.address)
        before, after = self._windows[at - 1 : at] if at else [], self._windows[at : at + 1]
        if any(w.base + w.size > request.address for w in before) or any(
            request.address + request.size > w.base for w in after
        ):
            raise Refused(errno.EEXIST, f"{request.size:#x} bytes at {request.address:#x} overlap another DMA window")
        if len(self._windows) >= MAX_WINDOWS:
            raise Refused(errno.ENOSPC, f"there must not be more than {MAX_WINDOWS} DMA windows")
        memory = None if fd is None else _mapped(fd, request)
        self._bases.insert(at, request.address)
        self._windows.insert(at, Window(request.address, request.size, request.flags, memory))

    def unmap(self, request: Unmap) -> list[Window]:
        """Take a window back, or all; the memory is released when this returns. Raises Refused (ENOENT): no such window."""
        if request.flags & UNMAP_ALL:
            if request.address or request.size:
                raise Refused(errno.EINVAL, "an unmap of all windows must have address and size 0")
            return self.clear()
        at = bisect_right(self._bases, request.address) - 1
        if at < 0 or self._windows[at][:2] != (request.address, request.size):
            raise Refused(errno.ENOENT, f"no DMA window has {request.size:#x} bytes at {request.address:#x}")
        window = self._windows.pop(at)
        del self._bases[at]
        if window.memory is not None:
            window.memory.close()
        return [window]

    def clear(self) -> list[Window]:
        """Take all windows back."""
        windows, self._windows = self._windows, []
        self._bases.clear()
        for window in windows:
            if window.memory is not None:
                window.memory.close()
        return windows

    # -- accesses ------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes | Future[bytes]:
        """Bytes of one window, or their future; raises BusError (DECERR outside, SLVERR when it is not readable)."""
        window = self._find(address, size, DMA_READABLE)
        if window.memory is not None:
            offset = address - window.base
            return window.memory[offset : offset + size]
        return self._ask(address, size, None)

    def write(self, address: int, data: bytes) -> Future[bytes] | None:
        """Write to one window; None when it is done. Raises BusError as `read` does."""
        window = self._find(address, len(data), DMA_WRITEABLE)
        if window.memory is not None:
            offset = address - window.base
            window.memory[offset : offset + len(data)] = data
            return None
        return self._ask(address, len(data), data)

    def _find(self, address: int, size: int, wanted: int) -> Window:
        at = bisect_right(self._bases, address) - 1
        if at < 0 or address + size > self._windows[at].base + self._windows[at].size:
            raise BusError(DECERR, f"no DMA window of the client has {size} bytes at {address:#x}")
        if not self._windows[at].flags & wanted:
            what = "readable" if wanted == DMA_READABLE else "writeable"
            raise BusError(SLVERR, f"the DMA window at {self._windows[at].base:#x} is not {what}")
        return self._windows[at]

    def _ask(self, address: int, size: int, data: bytes | None) -> Future[bytes]:
        step = self.max_transfer
        if size <= step:
            return self._send(address, size, data)
        parts = [
            self._send(address + n, min(step, size - n), None if data is None else data[n : n + step])
            for n in range(0, size, step)
        ]
        return _joined(parts)


def _joined(parts: list[Future[bytes]]) -> Future[bytes]:
    """All of the parts' bytes; the first error, once all have come."""
    whole: Future[bytes] = Future("the client's answers to a DMA access")
    missing = len(parts)

    def one_came() -> None:
        nonlocal missing
        missing -= 1
        if missing:
            return
        try:
            whole.set(b"".join(part.result() for part in parts))
        except BusError as error:
            whole.fail(error)

    for part in parts:
        part.when_done(one_came)
    return whole


def _mapped(fd: int, request: Map) -> mmap.mmap:
    """The file's part that the client shares."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if request.flags & DMA_WRITEABLE else 0)
    try:
        if os.fstat(fd).st_size < request.offset + request.size:
            raise Refused(
                errno.EINVAL, f"the file must have {request.size:#x} bytes at {request.offset:#x}, and it ends before"
            )
        return mmap.mmap(fd, request.size, mmap.MAP_SHARED, protection, offset=request.offset)
    except (ValueError, OverflowError) as why:
        raise Refused(errno.EINVAL, f"the descriptor must be of memory that can be mapped: {why}") from None
    except OSError as why:
        raise Refused(why.errno or errno.EINVAL, f"the client's memory can't be mapped: {why}") from None
