"""Everything that the author of a model imports; see docs/writing-a-node.md."""

from cosim.core.message import DECERR, MMIO, OKAY, POWER, SLVERR, WIRE, Kind, Protocol
from cosim.core.order import PRIORITY_LEVEL, PRIORITY_REQUEST, PRIORITY_RESPONSE
from cosim.core.regs import Access, AccessError, Bank, Block, F, Reg
from cosim.core.route import AddressMap, Region
from cosim.core.tasks import Future, Lock, Queue, Signal, Task
from cosim.core.time import NEVER, Instant, Span, fmt, ms, ns, parse_span, ps, seconds, us
from cosim.node.node import ModelError, Node, Peer, on
from cosim.node.ports import (
    NONSECURE,
    SECURE,
    BusError,
    BusFault,
    Channel,
    MmioInitiator,
    MmioTarget,
    Request,
    Wire,
)

__all__ = [
    "Access",
    "AccessError",
    "AddressMap",
    "Bank",
    "Block",
    "BusError",
    "BusFault",
    "Channel",
    "DECERR",
    "F",
    "Future",
    "Instant",
    "Kind",
    "Lock",
    "MMIO",
    "MmioInitiator",
    "MmioTarget",
    "ModelError",
    "NEVER",
    "NONSECURE",
    "Node",
    "OKAY",
    "POWER",
    "PRIORITY_LEVEL",
    "PRIORITY_REQUEST",
    "PRIORITY_RESPONSE",
    "Peer",
    "Protocol",
    "Queue",
    "Reg",
    "Region",
    "Request",
    "SECURE",
    "SLVERR",
    "Signal",
    "Span",
    "Task",
    "WIRE",
    "Wire",
    "fmt",
    "ms",
    "ns",
    "on",
    "parse_span",
    "ps",
    "seconds",
    "us",
]
