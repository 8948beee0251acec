"""The vfio-user protocol: bytes to messages and back, without I/O (QEMU, docs/interop/vfio-user.rst; linux/vfio.h).

A message is a header of 16 bytes and a payload; numbers are in the host's byte order. Decoding is total: any bytes give a
`Message`, a request, or one of two errors: `StreamError` when the stream can't be read any further, `Refused` when a request is
answered with an errno and the next one may follow.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any, NamedTuple

VERSION = (0, 0)
HEADER = Struct("=HHIII")
MAX_TRANSFER = 1 << 20
"""Data bytes of one read or write that we take and ask for."""
MAX_FDS = 16
"""File descriptors in one message; QEMU's client takes no larger number."""
MAX_MESSAGE = HEADER.size + 16 + MAX_TRANSFER
MAX_VERSION_DATA = 4096
PAGE = 4096

TYPE_MASK, TYPE_COMMAND, TYPE_REPLY = 0xF, 0, 1
NO_REPLY, ERROR = 0x10, 0x20


class Command(IntEnum):
    """Message commands; those from server to client are DMA_READ and DMA_WRITE."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class Region(IntEnum):
    """Indices of a PCI device's regions; BAR n is n."""

    ROM = 6
    CONFIG = 7
    VGA = 8


REGIONS = 9


class Irq(IntEnum):
    """Indices of a PCI device's interrupts."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


IRQS = 5


class IrqSet(IntFlag):
    """Flags of DEVICE_SET_IRQS: what the data are, and the action."""

    NONE = 1
    BOOL = 2
    EVENTFD = 4
    MASK = 8
    UNMASK = 16
    TRIGGER = 32


DEVICE_RESET_SUPPORTED, DEVICE_PCI = 1, 2
REGION_READABLE, REGION_WRITEABLE = 1, 2
IRQ_EVENTFD, IRQ_MASKABLE = 1, 2
DMA_READABLE, DMA_WRITEABLE = 1, 2
UNMAP_ALL = 2


class StreamError(Exception):
    """The peer's bytes are no vfio-user stream: nothing after them can be understood."""


class Refused(Exception):
    """A request that is answered with `code`, an errno; the text says why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Message(NamedTuple):
    """A header's fields and the payload; `error` is an errno, valid if `failed`."""

    id: int
    command: int
    flags: int
    error: int
    payload: bytes

    @property
    def is_reply(self) -> bool:
        """Whether it answers a command."""
        return self.flags & TYPE_MASK == TYPE_REPLY

    @property
    def wants_reply(self) -> bool:
        """Whether the sender of this command waits for an answer."""
        return not self.flags & NO_REPLY

    @property
    def failed(self) -> bool:
        """Whether this reply is an error."""
        return bool(self.flags & ERROR)


# -- bytes -> messages -------------------------------------------------------------------------------------------------


class Receiver:
    """Puts one message after the other together. Ask the socket for at most `wanted` bytes at a time: so no read reaches into
    the next message, and the file descriptors that come with a read belong to the message at hand."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._size = HEADER.size
        self.fds: list[int] = []

    @property
    def wanted(self) -> int:
        """Bytes that are missing from the part at hand; at least 1."""
        return self._size - len(self._bytes)

    def feed(self, data: bytes, fds: list[int] | None = None) -> Message | None:
        """Take at most `wanted` bytes; the message, once it is whole. Its descriptors are then in `fds`, for `take_fds`.

        Raises:
            StreamError: a size out of bounds, or a type that is neither command nor reply.
        """
        if len(data) > self.wanted:
            raise ValueError(f"at most {self.wanted} bytes are wanted, not {len(data)}")
        self.fds += fds or []
        self._bytes += data
        if len(self._bytes) < self._size:
            return None
        number, command, size, flags, error = HEADER.unpack_from(self._bytes)
        if len(self._bytes) == HEADER.size:
            if not HEADER.size <= size <= MAX_MESSAGE:
                raise StreamError(f"a message's size must be {HEADER.size} to {MAX_MESSAGE} bytes, not {size}")
            if flags & TYPE_MASK not in (TYPE_COMMAND, TYPE_REPLY):
                raise StreamError(f"a message must be a command (0) or a reply (1), not of type {flags & TYPE_MASK}")
            self._size = size
            if size > HEADER.size:
                return None
        payload = bytes(self._bytes[HEADER.size :])
        self._bytes.clear()
        self._size = HEADER.size
        return Message(number, command, flags, error, payload)

    def take_fds(self) -> list[int]:
        """The descriptors received so far, which are the caller's to close from now on."""
        fds, self.fds = self.fds, []
        return fds


# -- messages -> bytes -------------------------------------------------------------------------------------------------


def command(number: int, code: Command, payload: bytes = b"") -> bytes:
    """A command that wants an answer."""
    return HEADER.pack(number, code, HEADER.size + len(payload), TYPE_COMMAND, 0) + payload


def reply(to: Message, payload: bytes = b"") -> bytes:
    """The answer to a command."""
    return HEADER.pack(to.id, to.command, HEADER.size + len(payload), TYPE_REPLY, 0) + payload


def error(to: Message, code: int) -> bytes:
    """The refusal of a command, by errno."""
    return HEADER.pack(to.id, to.command, HEADER.size, TYPE_REPLY | ERROR, code)


# -- requests ----------------------------------------------------------------------------------------------------------

_VERSION = Struct("=HH")
_ARGSZ = Struct("=I")
_MAP = Struct("=IIQQQ")
_UNMAP = Struct("=IIQQ")
_INFO = Struct("=IIII")
_REGION_INFO = Struct("=IIIIQQ")
_SET_IRQS = Struct("=IIIII")
_ACCESS = Struct("=QII")
_DMA = Struct("=QQ")
_DMA_SHORT = Struct("=QI")


class Version(NamedTuple):
    """VERSION: what the sender speaks, and its capabilities (those that it named)."""

    major: int
    minor: int
    capabilities: dict[str, Any]


class Map(NamedTuple):
    """DMA_MAP: bytes `address` to `address + size` of the client's memory, at `offset` of the descriptor that came along."""

    flags: int
    offset: int
    address: int
    size: int


class Unmap(NamedTuple):
    """DMA_UNMAP: a window that was mapped, or all of them."""

    flags: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Info:
    """DEVICE_GET_INFO, DEVICE_GET_REGION_INFO and DEVICE_GET_IRQ_INFO: `index` is 0 in the first."""

    argsz: int
    index: int


@dataclass(frozen=True, slots=True)
class SetIrqs:
    """DEVICE_SET_IRQS: `count` interrupts of an index from `start`; `data` are the booleans, if flags have BOOL."""

    flags: IrqSet
    index: int
    start: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Access:
    """REGION_READ (no data) and REGION_WRITE."""

    offset: int
    region: int
    count: int
    data: bytes


def _unpack(layout: Struct, message: Message, what: str) -> tuple[Any, ...]:
    if len(message.payload) < layout.size:
        raise Refused(
            errno.EINVAL, f"{what} needs a payload of {layout.size} bytes or more, not {len(message.payload)}"
        )
    return layout.unpack_from(message.payload)


def parse_version(message: Message) -> Version:
    """VERSION, command or reply; raises Refused."""
    major, minor = _unpack(_VERSION, message, "VERSION")
    data = message.payload[_VERSION.size :]
    if len(data) > MAX_VERSION_DATA:
        raise Refused(errno.EINVAL, f"version data must not be longer than {MAX_VERSION_DATA} bytes, not {len(data)}")
    if not data:
        return Version(major, minor, {})
    if data[-1]:
        raise Refused(errno.EINVAL, "version data must end with a zero byte")
    try:
        found = json.loads(data[:-1].decode())
    except (ValueError, RecursionError) as why:
        raise Refused(errno.EINVAL, f"version data must be JSON: {why}") from None
    capabilities = found.get("capabilities", {}) if isinstance(found, dict) else None
    if not isinstance(capabilities, dict):
        raise Refused(errno.EINVAL, "version data must be an object, whose capabilities are an object")
    for name in ("max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"):
        value = capabilities.get(name, 1)
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise Refused(errno.EINVAL, f"capability {name} must be a number below 2**64, not {value!r}")
    return Version(major, minor, capabilities)


def pack_version(capabilities: dict[str, Any]) -> bytes:
    """Payload of VERSION."""
    return _VERSION.pack(*VERSION) + json.dumps({"capabilities": capabilities}).encode() + b"\0"


def parse_map(message: Message) -> Map:
    """DMA_MAP; raises Refused, also for a window that is not made of whole pages."""
    _, flags, offset, address, size = _unpack(_MAP, message, "DMA_MAP")
    if address % PAGE or size % PAGE or size == 0 or address + size > 1 << 64:
        raise Refused(errno.EINVAL, f"a DMA window must be whole 4 KiB pages, not {size:#x} bytes at {address:#x}")
    return Map(flags, offset, address, size)


def parse_unmap(message: Message) -> Unmap:
    """DMA_UNMAP; raises Refused."""
    _, flags, address, size = _unpack(_UNMAP, message, "DMA_UNMAP")
    return Unmap(flags, address, size)


def pack_unmapped(request: Unmap) -> bytes:
    """Payload of the answer to DMA_UNMAP."""
    return _UNMAP.pack(_UNMAP.size, request.flags, request.address, request.size)


def parse_info(message: Message, fixed: int) -> Info:
    """A request for information whose answer has `fixed` bytes; raises Refused when the client has no room for these."""
    if len(message.payload) < 4:
        raise Refused(errno.EINVAL, "a request for information must begin with argsz")
    (argsz,) = _ARGSZ.unpack_from(message.payload)
    index = _INFO.unpack_from(message.payload.ljust(_INFO.size, b"\0"))[2]
    if argsz < fixed:
        raise Refused(errno.EINVAL, f"argsz must be at least {fixed}, not {argsz}")
    return Info(argsz, index)


DEVICE_INFO_SIZE, REGION_INFO_SIZE, IRQ_INFO_SIZE = _INFO.size, _REGION_INFO.size, _INFO.size


def pack_device_info(flags: int) -> bytes:
    """Payload of the answer to DEVICE_GET_INFO."""
    return _INFO.pack(_INFO.size, flags, REGIONS, IRQS)


def pack_region_info(index: int, size: int) -> bytes:
    """Payload of the answer to DEVICE_GET_REGION_INFO: read and write by messages; a region of size 0 does not exist."""
    flags = REGION_READABLE | REGION_WRITEABLE if size else 0
    return _REGION_INFO.pack(_REGION_INFO.size, flags, index, 0, size, 0)


def pack_irq_info(index: int, flags: int, count: int) -> bytes:
    """Payload of the answer to DEVICE_GET_IRQ_INFO."""
    return _INFO.pack(_INFO.size, flags, index, count)


def parse_set_irqs(message: Message) -> SetIrqs:
    """DEVICE_SET_IRQS; raises Refused, also unless there is exactly one kind of data and one action."""
    _, bits, index, start, count = _unpack(_SET_IRQS, message, "DEVICE_SET_IRQS")
    data = message.payload[_SET_IRQS.size :]
    if bits & 7 not in (1, 2, 4) or bits & ~7 not in (8, 16, 32):
        raise Refused(errno.EINVAL, f"flags must be one kind of data and one action, not {bits:#x}")
    flags = IrqSet(bits)
    if IrqSet.BOOL in flags and len(data) != count:
        raise Refused(errno.EINVAL, f"there must be a boolean for each of {count} interrupts, not {len(data)}")
    return SetIrqs(flags, index, start, count, data)


def parse_access(message: Message) -> Access:
    """REGION_READ or REGION_WRITE; raises Refused."""
    offset, region, count = _unpack(_ACCESS, message, "a region access")
    data = message.payload[_ACCESS.size :]
    if count > MAX_TRANSFER:
        raise Refused(errno.EINVAL, f"an access must not have more than {MAX_TRANSFER} bytes, not {count}")
    if message.command == Command.REGION_WRITE and len(data) != count:
        raise Refused(errno.EINVAL, f"a write of {count} bytes must bring as many, not {len(data)}")
    return Access(offset, region, count, data)


def pack_access(request: Access, data: bytes = b"") -> bytes:
    """Payload of the answer to a region access."""
    return _ACCESS.pack(request.offset, request.region, request.count) + data


# -- DMA towards the client --------------------------------------------------------------------------------------------


def pack_dma(address: int, count: int, data: bytes = b"") -> bytes:
    """Payload of DMA_READ (no data) and DMA_WRITE."""
    return _DMA.pack(address, count) + data


def parse_dma_reply(message: Message, address: int, count: int) -> bytes:
    """Data of the answer to a DMA_READ, b"" to a DMA_WRITE of `count` bytes; raises StreamError if it is about something else.

    The count of an answer to DMA_WRITE may have 4 bytes, as the specification's table shows, or 8.
    """
    reading, payload = message.command == Command.DMA_READ, message.payload
    if len(payload) < (_DMA.size if reading else _DMA_SHORT.size):
        raise StreamError(f"the answer to a DMA request must have address and count, not {len(payload)} bytes")
    at, length = (_DMA if len(payload) >= _DMA.size else _DMA_SHORT).unpack_from(payload)
    if (at, length) != (address, count):
        raise StreamError(
            f"the answer to a DMA request of {count} bytes at {address:#x} must be about these, not {length} at {at:#x}"
        )
    data = payload[_DMA.size :] if reading else b""
    if reading and len(data) != count:
        raise StreamError(f"the answer to a DMA_READ of {count} bytes must bring as many, not {len(data)}")
    return data
