"""Devices, collections, vPEs and events: look-ups with their checks, and changes.

Every look-up may raise `Miss` (see `nodes.its.tables`) or `Fault` with the cause that a command's syndrome carries
(Arm GIC-600 TRM's numbers as in the Linux kernel's virtual ITS; from 0x11 on the model's own, since none are published for
virtual commands).
"""

from __future__ import annotations

from enum import IntEnum

from cosim.api import Future, MmioInitiator
from nodes.arch.intid import LPI_BASE, NO_DOORBELL
from nodes.its.config import Config
from nodes.its.entries import CTE_BYTES, DTE_BYTES, INVALID_ITE, VTE_BYTES, Cte, Dte, Ite, Vte
from nodes.its.tables import Clock, Lines, Miss, OutOfTable, Table


class Cause(IntEnum):
    """Why a command or a translation fails: the lowest byte of a syndrome."""

    DEVICE_OOR = 0x01
    SIZE_OR_PROCNUM_OOR = 0x02
    COLLECTION_OOR = 0x03
    UNMAPPED_DEVICE = 0x04
    ID_OOR = 0x05
    INTID_OOR = 0x06
    UNMAPPED_INTERRUPT = 0x07
    UNMAPPED_COLLECTION = 0x09
    VPE_OOR = 0x11
    UNMAPPED_VPE = 0x12
    DOORBELL_OOR = 0x13
    TABLE_ACCESS = 0x14
    UNKNOWN_COMMAND = 0x15
    VPE_ALLOC = 0x16
    """VMAPP with Alloc=1 of a vPE that has an entry, or with Alloc=0 of one that has none."""
    ITS_LIST = 0x17
    """VMOVP whose ITSList does not name this ITS."""


class Fault(Exception):
    """A check failed; nothing was changed."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.name)
        self.cause = cause


def need(condition: bool, cause: Cause) -> None:
    """Raise Fault unless the condition holds."""
    if not condition:
        raise Fault(cause)


class Mappings:
    """The tables of one ITS."""

    def __init__(self, config: Config, clock: Clock, bus: MmioInitiator) -> None:
        self.config = config
        self._clock = clock
        self._bus = bus
        self.devices = Table(clock, bus, DTE_BYTES)
        self.collections = Table(clock, bus, CTE_BYTES)
        self.vpes = Table(clock, bus, VTE_BYTES)
        self._itts: dict[int, Lines] = {}
        self._format = config.ite
        # With GICv4.1 one table serves several ITSs: an entry is written by VMAPP with Alloc = 1, and each ITS knows
        # by itself which vPEs were mapped on it.
        self._mapped: dict[int, None] = {}
        self._moving: dict[int, Future[None]] = {}

    def configure(self, number: int, value: int) -> None:
        """GITS_BASER<number> has a new value."""
        table = (self.devices, self.collections, self.vpes)[number]
        before = table.layout
        table.configure(value)
        if table is self.devices:
            self._itts = {}
        if table is self.vpes and before != table.layout:
            self._mapped = {}

    def drop(self) -> None:
        """Forget what is cached (GITS_TYPER.INV)."""
        self.devices.drop()
        self.collections.drop()
        self.vpes.drop()
        self._itts = {}

    # -- devices and events --------------------------------------------------------------------------------------------

    def device(self, device_id: int) -> Dte:
        """Entry of a device, valid or not; raises Fault(DEVICE_OOR)."""
        need(device_id >> self.config.device_bits == 0, Cause.DEVICE_OOR)
        try:
            return Dte.unpack(self.devices.read(device_id))
        except OutOfTable:
            raise Fault(Cause.DEVICE_OOR) from None

    def set_device(self, device_id: int, entry: Dte) -> None:
        """Map or unmap a device that has been looked up; its old events are gone."""
        self._itts.pop(device_id, None)
        self.devices.write(device_id, entry.pack())

    def event(self, device_id: int, event_id: int) -> Ite:
        """Entry of an event, valid or not; raises Fault (DEVICE_OOR, UNMAPPED_DEVICE, ID_OOR)."""
        lines, address, end = self._place(device_id, event_id)
        return self._format.unpack(lines.read(address, self._format.size, end))

    def interrupt(self, device_id: int, event_id: int) -> Ite:
        """Entry of a mapped event; raises Fault, also UNMAPPED_INTERRUPT."""
        entry = self.event(device_id, event_id)
        need(entry.valid, Cause.UNMAPPED_INTERRUPT)
        return entry

    def set_event(self, device_id: int, event_id: int, entry: Ite = INVALID_ITE) -> None:
        """Change an event that has been looked up."""
        lines, address, _ = self._place(device_id, event_id)
        lines.write(address, self._format.pack(entry), self._format.size)

    def _place(self, device_id: int, event_id: int) -> tuple[Lines, int, int]:
        device = self.device(device_id)
        need(device.valid, Cause.UNMAPPED_DEVICE)
        need(event_id >> device.size + 1 == 0, Cause.ID_OOR)
        lines = self._itts.get(device_id)
        if lines is None:
            lines = self._itts[device_id] = Lines(self._clock, self._bus)
        size = self._format.size
        return lines, device.itt + event_id * size, device.itt + (size << device.size + 1)

    # -- collections ---------------------------------------------------------------------------------------------------

    def collection(self, icid: int) -> Cte:
        """Entry of a collection, valid or not; raises Fault(COLLECTION_OOR)."""
        need(icid >> self.config.collection_bits == 0, Cause.COLLECTION_OOR)
        try:
            return Cte.unpack(self.collections.read(icid))
        except OutOfTable:
            raise Fault(Cause.COLLECTION_OOR) from None

    def mapped_collection(self, icid: int) -> Cte:
        """Entry of a mapped collection; raises Fault, also UNMAPPED_COLLECTION."""
        entry = self.collection(icid)
        need(entry.valid, Cause.UNMAPPED_COLLECTION)
        return entry

    # -- vPEs ----------------------------------------------------------------------------------------------------------

    def vpe(self, vpeid: int, fresh: bool = False) -> Vte:
        """Entry of a vPE, valid or not; raises Fault(VPE_OOR); waits while VMOVP moves the vPE.

        `fresh`: the home that memory has now, since with a shared table another ITS may have moved the vPE. Without it a
        message can go to a former home, which passes it on.
        """
        need(vpeid >> self.config.vpe_bits == 0, Cause.VPE_OOR)
        moving = self._moving.get(vpeid)
        if moving is not None:
            if not moving.done:
                raise Miss(moving.wait)
            del self._moving[vpeid]
        try:
            entry = Vte.unpack(self.vpes.read(vpeid, fresh and self.config.shared_vpes))
        except OutOfTable:
            raise Fault(Cause.VPE_OOR) from None
        if self.config.shared_vpes and vpeid not in self._mapped:
            return entry._replace(valid=False)
        return entry

    def shared_vpe(self, vpeid: int) -> Vte:
        """Entry of a vPE as the shared table has it now, whichever ITS it is mapped on; raises as `vpe` does."""
        self.vpe(vpeid, fresh=True)
        return Vte.unpack(self.vpes.read(vpeid))

    def mapped_vpe(self, vpeid: int, fresh: bool = False) -> Vte:
        """Entry of a mapped vPE; raises Fault, also UNMAPPED_VPE."""
        entry = self.vpe(vpeid, fresh)
        need(entry.valid, Cause.UNMAPPED_VPE)
        return entry

    def map_vpe(self, vpeid: int, entry: Vte, owner: bool) -> None:
        """Map or unmap a vPE that has been looked up. In a shared table only the `owner` (Alloc = 1) writes the entry."""
        if not self.config.shared_vpes:
            self.vpes.write(vpeid, entry.pack())
            return
        if entry.valid:
            self._mapped[vpeid] = None
        else:
            self._mapped.pop(vpeid, None)
        if owner or entry.valid:
            self.vpes.write(vpeid, entry.pack(), post=owner)

    def move_vpe(self, vpeid: int, entry: Vte, moved: Future[None]) -> None:
        """Give a mapped vPE another home; translations to it wait for `moved`."""
        self.vpes.write(vpeid, entry.pack())
        self._moving[vpeid] = moved

    # -- values of commands --------------------------------------------------------------------------------------------

    def check_lpi(self, intid: int, bits: int | None = None) -> None:
        """Raise Fault(INTID_OOR) unless the INTID is an LPI of `bits` bits (default: physical LPIs)."""
        limit = 1 << (self.config.id_bits if bits is None else bits)
        need(LPI_BASE <= intid < limit, Cause.INTID_OOR)

    def doorbell(self, intid: int) -> int:
        """The individual doorbell that a command asks for: none where they are not supported; raises Fault(DOORBELL_OOR)."""
        if not self.config.individual_doorbells:
            return NO_DOORBELL
        return self.checked_doorbell(intid)

    def checked_doorbell(self, intid: int) -> int:
        """The doorbell unless it is neither 1023 nor an LPI: Fault(DOORBELL_OOR)."""
        need(intid == NO_DOORBELL or LPI_BASE <= intid < 1 << self.config.id_bits, Cause.DOORBELL_OOR)
        return intid
