"""What a foreign node is told in WELCOME, and what its ports may carry; docs/protocol.md is the specification.

A port's *role* says what travels over it: ``mmio_target``, ``mmio_initiator``, ``wire``, ``power`` or ``channel:PROTOCOL``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgpack

from cosim.core.message import MMIO, POWER, WIRE, Kind

LAYOUT = 1
"""First item of the plan; another number means another layout."""

MMIO_TARGET, MMIO_INITIATOR, WIRE_ROLE, POWER_ROLE, CHANNEL = (
    "mmio_target",
    "mmio_initiator",
    "wire",
    "power",
    "channel:",
)

DELIVER = "deliver"
"""Capability of a node that takes grants of sequence number 0, which only deliver."""

_REQUESTS = frozenset((MMIO.Read.code, MMIO.Write.code, MMIO.WritePosted.code))
_ANSWERS = frozenset((MMIO.Completion.code,))


class PlanError(ValueError):
    """The plan in WELCOME is not one; the text says what was expected."""


class KindRow(NamedTuple):
    """A message kind: `code` on the wire, `name` such as ``mmio.Read``, `priority` of the order key, field names."""

    code: int
    name: str
    priority: int
    fields: tuple[str, ...]

    @classmethod
    def of(cls, kind: Kind) -> KindRow:
        """The row of a kind that this process knows."""
        return cls(kind.code, f"{kind.protocol}.{kind.name}", kind.priority, tuple(kind.fields))


class LinkRow(NamedTuple):
    """A one-way link of this node.

    id          of the link, as in messages
    port        this node's
    out         1: messages leave by it, 0: they come in by it
    peer        ``node.port`` at the other end
    latency     ps; arrival = send time + latency
    returns     out: ps after an arrival there at which its consequences may be here (2**63 - 1: never); in: 0
    peer_id     node id of the peer, part of the order key
    attributes  facts of the topology about the link
    """

    id: int
    port: str
    out: int
    peer: str
    latency: int
    returns: int
    peer_id: int
    attributes: dict[str, Any]


class RegionRow(NamedTuple):
    """Accesses of an initiator to [base, base + size) go over `link`, with addr = address - base + offset."""

    base: int
    size: int
    link: int
    offset: int
    name: str


class AttachPlan(NamedTuple):
    """The plan of one foreign node. Times in ps; `wall_limit_ms` is that of one grant, 0 for none."""

    node: int
    name: str
    kind: str
    seed: int
    reaction: int
    wall_limit_ms: int
    links: tuple[LinkRow, ...]
    ports: tuple[tuple[str, str], ...]
    maps: tuple[tuple[str, tuple[RegionRow, ...]], ...]
    kinds: tuple[KindRow, ...]
    params: dict[str, Any]

    def to_msgpack(self) -> bytes:
        """The bytes for WELCOME."""
        packed: bytes = msgpack.packb((LAYOUT, *self), use_bin_type=True)
        return packed

    @classmethod
    def from_msgpack(cls, data: bytes) -> AttachPlan:
        """The inverse of `to_msgpack`.

        Raises:
            PlanError: another layout, or no plan.
        """
        try:
            body = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
        except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeError and its own
            raise PlanError(f"plan in WELCOME must be msgpack, not {type(error).__name__}: {error}") from None
        if type(body) is not list or not body or body[0] != LAYOUT or len(body) != 1 + len(cls._fields):
            raise PlanError(f"plan in WELCOME must be an array of layout {LAYOUT} with {1 + len(cls._fields)} items")
        node, name, kind, seed, reaction, wall, links, ports, maps, kinds, params = body[1:]
        try:
            return cls(
                node,
                name,
                kind,
                seed,
                reaction,
                wall,
                tuple(LinkRow(*row) for row in links),
                tuple((port, role) for port, role in ports),
                tuple((port, tuple(RegionRow(*row) for row in rows)) for port, rows in maps),
                tuple(KindRow(code, text, priority, tuple(fields)) for code, text, priority, fields in kinds),
                params,
            )
        except (TypeError, ValueError) as error:
            raise PlanError(f"plan in WELCOME must have rows of the documented lengths: {error}") from None


def may_carry(role: str, out: bool, code: int, kinds: Mapping[int, KindRow]) -> bool:
    """Whether a message of kind `code` may leave (`out`) or enter a node by a port of this role."""
    if role == MMIO_TARGET:
        return code in (_ANSWERS if out else _REQUESTS)
    if role == MMIO_INITIATOR:
        return code in (_REQUESTS if out else _ANSWERS)
    row = kinds.get(code)
    if row is None:
        return False
    return row.name.partition(".")[0] == role.removeprefix(CHANNEL)


def core_kinds() -> list[KindRow]:
    """The kinds of the bus, wire and power protocols, which every node may meet."""
    return [KindRow.of(kind) for protocol in (MMIO, WIRE, POWER) for kind in protocol]


def kinds_of(role: str, channel: Iterable[KindRow]) -> list[KindRow]:
    """The kinds that a port of a role may meet; `channel` are those of its protocol when it is a channel."""
    if role.startswith(CHANNEL):
        return list(channel)
    protocol = {WIRE_ROLE: "wire", POWER_ROLE: "power"}.get(role, "mmio")
    return [row for row in core_kinds() if row.name.startswith(protocol + ".")]
