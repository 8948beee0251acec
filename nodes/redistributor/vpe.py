"""A virtual PE as the redistributor that owns it sees it: pending vLPIs, vSGIs, doorbell (IHI 0069H sections 5.3 to 5.5).

Pure state, which moves as one tuple when the vPE moves. Exactly one redistributor has it at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nodes.arch.intid import LPI_BASE
from nodes.arch.lpi import config_address
from nodes.redistributor.config import lpi_offers
from nodes.redistributor.effects import Done
from nodes.redistributor.stream import Offer
from nodes.redistributor.tables import changes, intids_of
from nodes.redistributor.vsgi import Vsgis

VGROUP1 = 1
"""vLPIs are Group 1."""


class Op(NamedTuple):
    """A request for a vPE that waits: kind, fields (the vPEID first), and what to call when it has taken effect."""

    kind: str
    fields: tuple[Any, ...]
    done: Done | None


class Vpe:
    """One vPE.

    Attributes: `home`, the redistributor (ProcessorNumber) that VMAPP or VMOVP named, whose LPIs the doorbell belongs to;
    `vpt`, `vconf`, physical addresses of its pending and configuration table (`vconf` 0: not known, GICv4.0 before it was
    resident); `id_bits` of vINTIDs; `group0` and `group1`, the enables of its last residency; `resident`, on this very
    redistributor; `requested` and `rung`, the default doorbell's state; `maps`, VMAPPs without their unmapping (GICv4.0);
    `busy`, why requests must wait ("" if they need not) and `parked`, those that do.
    """

    __slots__ = (
        "busy", "doorbell", "group0", "group1", "home", "id_bits", "leaving", "maps", "parked", "pending", "requested",
        "resident", "rung", "sgi", "stored", "stored_sgi", "vconf", "vpeid", "vpt",
    )  # fmt: skip

    def __init__(self, vpeid: int, home: int, vpt: int, vconf: int, id_bits: int, doorbell: int) -> None:
        self.vpeid = vpeid
        self.home = home
        self.vpt = vpt
        self.vconf = vconf
        self.id_bits = id_bits
        self.doorbell = doorbell
        self.pending: set[int] = set()
        self.sgi = Vsgis()
        self.stored: set[int] = set()
        self.stored_sgi = Vsgis().store()
        self.group0 = self.group1 = False
        self.requested = self.rung = False
        self.resident = False
        self.maps = 1
        self.busy = ""
        self.parked: list[Op] = []
        self.leaving: set[int] = set()

    @property
    def config_range(self) -> tuple[int, int]:
        """(address, size in bytes) of the configuration table."""
        return self.vconf, max(0, (1 << self.id_bits) - LPI_BASE)

    def config(self, intid: int) -> int:
        """Address of a vLPI's configuration byte."""
        return config_address(self.vconf, intid)

    def offers(self, config: Callable[[int], int | None], current: Offer | None) -> Iterator[Offer]:
        """The deliverable ones: pending, enabled, of an enabled group. `config(address)` gives a byte or None: then a vLPI
        that the CPU interface holds already (`current`) stays, another one must wait."""
        yield from self.sgi.offers(self.group0, self.group1)
        if not self.group1:
            return
        yield from lpi_offers(
            self.pending, self.leaving, lambda intid: config(self.config(intid)), current, VGROUP1, lower_half=False
        )

    def activated(self, intid: int) -> None:
        """Acknowledged by the guest: no longer pending, and never active."""
        if intid < LPI_BASE:
            self.sgi.pending &= ~(1 << intid)
        else:
            self.pending.discard(intid)

    # -- memory ----------------------------------------------------------------------------------------------------------

    def load(self, table: bytes) -> None:
        """The pending table as memory has it: what is pending there becomes pending here."""
        self.stored = intids_of(table[LPI_BASE // 8 :], LPI_BASE)
        self.pending |= self.stored
        self.stored_sgi = table[: len(self.stored_sgi)]
        self.sgi.load(self.stored_sgi)

    def store(self) -> list[tuple[int, bytes]]:
        """(address, bytes) to write so that the pending table in memory is current; from then on it counts as such."""
        pieces = [(self.vpt + offset, data) for offset, data in changes(self.stored, self.pending)]
        sgi = self.sgi.store()
        if sgi != self.stored_sgi:
            pieces.insert(0, (self.vpt, sgi))
        self.stored = set(self.pending)
        self.stored_sgi = sgi
        return pieces

    # -- transfer --------------------------------------------------------------------------------------------------------

    def pack(self) -> tuple[Any, ...]:
        """The state as it travels to another redistributor."""
        return (
            self.home, self.vpt, self.vconf, self.id_bits, self.doorbell, int(self.group0), int(self.group1),
            int(self.requested), int(self.rung), self.maps, tuple(sorted(self.pending)), tuple(sorted(self.stored)),
            self.sgi.store(), self.stored_sgi,
        )  # fmt: skip

    @classmethod
    def unpack(cls, vpeid: int, state: tuple[Any, ...]) -> Vpe:
        """The vPE of a `pack`."""
        home, vpt, vconf, id_bits, doorbell, group0, group1, requested, rung, maps, pending, stored, sgi, stored_sgi = (
            state
        )
        vpe = cls(vpeid, home, vpt, vconf, id_bits, doorbell)
        vpe.group0, vpe.group1 = bool(group0), bool(group1)
        vpe.requested, vpe.rung, vpe.maps = bool(requested), bool(rung), maps
        vpe.pending, vpe.stored = set(pending), set(stored)
        vpe.sgi.load(sgi)
        vpe.stored_sgi = stored_sgi
        return vpe
