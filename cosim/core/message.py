"""Messages and protocols: what may travel over a link.

A `Protocol` is a numbered table of kinds. A kind has a name, a priority (see `cosim.core.order`) and named fields; its code
on the wire is ``protocol.number * 64 + position`` and never changes. Field values are int, bytes, str, bool, None or (nested)
lists of these. Protocols register themselves when they are made, so that a code read from a frame finds its kind.

The bus protocols are defined here; those between hardware blocks (GIC, trap) are tables in `nodes.arch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cosim.core.order import PRIORITY_LEVEL, PRIORITY_POWER, PRIORITY_REQUEST, PRIORITY_RESPONSE

KINDS_PER_PROTOCOL = 64


class Kind:
    """One message kind of a protocol: `code` on the wire, `priority`, field names in order."""

    __slots__ = ("code", "fields", "name", "priority", "protocol")

    def __init__(self, protocol: str, name: str, code: int, priority: int, fields: tuple[str, ...]) -> None:
        self.protocol = protocol
        self.name = name
        self.code = code
        self.priority = priority
        self.fields = fields

    def __repr__(self) -> str:
        return f"{self.protocol}.{self.name}"


KINDS: dict[int, Kind] = {}
"""Every kind of every protocol known to this process, by code."""

PRIORITIES: dict[int, int] = {}
"""The priority of every kind known to this process, by code."""

_NUMBERS: dict[int, str] = {}


class Protocol:
    """A numbered table of message kinds; attribute access gives the `Kind`.

    Args:
        name: e.g. ``"mmio"``.
        number: unique over all protocols, 0 to 1023; 512 and above are free for users' own.
        kinds: (name, priority, field names) in the order of their codes; only ever appended to.

    Raises:
        ValueError: number already taken by another protocol, or too many kinds.
    """

    def __new__(cls, name: str, number: int, kinds: list[tuple[str, int, tuple[str, ...]]]) -> Protocol:
        """Each is of a class of its own, whose name is in the AttributeError for a kind that it has not: `__getattr__` could
        say that too, but would make every use of a kind slower."""
        return super().__new__(type(f"protocol {name} ({', '.join(kind for kind, *_ in kinds)})", (cls,), {}))

    def __init__(self, name: str, number: int, kinds: list[tuple[str, int, tuple[str, ...]]]) -> None:
        if not 0 <= number < 1024:
            raise ValueError(f"protocol number of {name!r} must be in 0..1023, not {number}")
        if _NUMBERS.setdefault(number, name) != name:
            raise ValueError(f"protocol number {number} of {name!r} is taken by {_NUMBERS[number]!r}: choose another")
        if len(kinds) > KINDS_PER_PROTOCOL:
            raise ValueError(f"protocol {name!r} must have at most {KINDS_PER_PROTOCOL} kinds, not {len(kinds)}")
        self.name = name
        self.number = number
        self._kinds: dict[str, Kind] = {}
        for position, (kind_name, priority, fields) in enumerate(kinds):
            kind = Kind(name, kind_name, number * KINDS_PER_PROTOCOL + position, priority, fields)
            self._kinds[kind_name] = kind
            if not hasattr(self, kind_name):
                setattr(self, kind_name, kind)
            KINDS[kind.code] = kind
            PRIORITIES[kind.code] = priority

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Kind:
            """The kind of that name."""

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())


class Record(NamedTuple):
    """A message as it travels: arrival time (ps), sequence number of the source, link id, kind code, fields.

    The source node follows from the link, the priority from the kind.
    """

    arrival: int
    seq: int
    link: int
    kind: int
    fields: tuple[Any, ...]


RecordTuple = tuple[int, int, int, int, tuple[Any, ...]]
"""A `Record` without its names, as the kernel makes and takes it: ten times cheaper to make."""

OKAY, EXOKAY, SLVERR, DECERR = 0, 1, 2, 3
"""Completion status: the AXI response codes."""
STATUS_NAMES = ("OKAY", "EXOKAY", "SLVERR", "DECERR")

ATTR_PRIVILEGED = 1
ATTR_NONSECURE = 2
ATTR_INSTRUCTION = 4
"""Access attributes: the bits of AXI's AxPROT."""

MMIO = Protocol(
    "mmio",
    1,
    [
        ("Read", PRIORITY_REQUEST, ("tag", "addr", "size", "attr")),
        ("Write", PRIORITY_REQUEST, ("tag", "addr", "size", "data", "attr")),
        ("WritePosted", PRIORITY_REQUEST, ("addr", "size", "data", "attr")),
        ("Completion", PRIORITY_RESPONSE, ("tag", "status", "data")),
    ],
)
"""Memory-mapped reads and writes. `size` in bytes, 1 to 4096; `data` is an int (little-endian value) for sizes 1, 2, 4 and 8
and bytes for every other size; a read that failed and every write complete with data 0. `addr` is the offset that the
initiator's address map gives for the target."""

WIRE = Protocol("wire", 2, [("Level", PRIORITY_LEVEL, ("line", "level"))])
"""Level-sensitive lines: `line` numbers the line on that link, `level` is 0 or 1. Duplicates are
ignored; the last level is kept."""

POWER = Protocol("power", 3, [("Off", PRIORITY_POWER, ()), ("Epoch", PRIORITY_POWER, ("number",))])
"""The machine's power line: a node that got Off has no more events; at Epoch each node notes its counters, so that what
happened between two of them can be told apart (one test from the next)."""


def to_bus(data: bytes) -> int | bytes:
    """Bytes of an access in wire form: an int for 1, 2, 4 and 8 bytes."""
    return int.from_bytes(data, "little") if len(data) in (1, 2, 4, 8) else data


def from_bus(data: int | bytes, size: int) -> bytes:
    """The `size` bytes of an access from their wire form."""
    return data.to_bytes(size, "little") if isinstance(data, int) else data
