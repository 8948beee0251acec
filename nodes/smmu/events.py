"""Faults, their event records, and the event queue (IHI 0070 chapter 7.2 and 7.3)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from cosim.api import OKAY, Bank, MmioInitiator, Queue

EVENT_SIZE = 32
WRAP_FLAG = 1 << 31


class Event(IntEnum):
    """Type of an event record (IHI 0070, 7.3).

    Those that this SMMU never has reason for are absent: F_BAD_ATS_TREQ and F_TRANSL_FORBIDDEN (no ATS), F_TLB_CONFLICT and
    F_CFG_CONFLICT (its caches hold one entry for an address), E_PAGE_REQUEST (no PRI), F_VMS_FETCH (no MPAM).
    """

    F_UUT = 0x01
    C_BAD_STREAMID = 0x02
    F_STE_FETCH = 0x03
    C_BAD_STE = 0x04
    F_STREAM_DISABLED = 0x06
    C_BAD_SUBSTREAMID = 0x08
    F_CD_FETCH = 0x09
    C_BAD_CD = 0x0A
    F_WALK_EABT = 0x0B
    F_TRANSLATION = 0x10
    F_ADDR_SIZE = 0x11
    F_ACCESS = 0x12
    F_PERMISSION = 0x13


CLASS_CD, CLASS_TT, CLASS_IN = 0, 1, 2
"""What a fault is about: the fetch of a context descriptor, of a translation table descriptor, or the input address."""
WITHOUT_SSV = (Event.F_STREAM_DISABLED, Event.C_BAD_SUBSTREAMID)


class Wanted(Protocol):
    """What a transaction wants."""

    @property
    def write(self) -> bool:
        """Whether it is a write."""

    @property
    def privileged(self) -> bool:
        """Whether it is privileged."""

    @property
    def instruction(self) -> bool:
        """Whether it fetches instructions."""


class Fault(Exception):
    """A transaction that is terminated; `event` None means without a record (STE.Config = abort, GBPA.ABORT).

    `silent`: translation faults are not recorded (STE.S2R or CD.R is 0). `ssid`: the transaction's SubstreamID. `access`: what it
    wanted, as the STE has it.
    """

    def __init__(self, event: Event | None, why: str, *, stage2: bool = False, klass: int = CLASS_IN) -> None:
        super().__init__(why)
        self.event = event
        self.stage2 = stage2
        self.klass = klass
        self.fetch = 0
        self.ipa = 0
        self.silent = False
        self.ssid: int | None = None
        self.access: Wanted | None = None

    @property
    def recorded(self) -> bool:
        """Whether an event record is written of it, as far as the stream's own configuration says."""
        event = self.event
        if event is None:
            return False
        return not (self.silent and Event.F_TRANSLATION <= event <= Event.F_PERMISSION)

    def at_fetch(self, address: int) -> Fault:
        """The same, of a fetch from that physical address."""
        self.fetch = address
        return self

    def at_ipa(self, ipa: int) -> Fault:
        """The same, with the intermediate physical address that stage 2 was given."""
        self.ipa = ipa
        return self


def record(fault: Fault, sid: int, address: int, wanted: Wanted) -> bytes:
    """The 32 bytes of a fault's event record.

    Configuration errors carry StreamID and SubstreamID (a failed fetch also its address); translation faults say what the
    access was.
    """
    assert fault.event is not None
    event = fault.event
    words = [int(event) | sid << 32, 0, 0, 0]
    if fault.ssid is not None and event != Event.F_STREAM_DISABLED:
        words[0] |= (event not in WITHOUT_SSV) << 11 | fault.ssid << 12
    if event in (Event.F_STE_FETCH, Event.F_CD_FETCH, Event.F_WALK_EABT):
        words[3] = fault.fetch & 0xF_FFFF_FFFF_FFF8
    elif fault.stage2:
        words[3] = fault.ipa & 0xF_FFFF_FFFF_F000
    if event >= Event.F_WALK_EABT or event == Event.F_UUT:
        words[2] = address
    if event >= Event.F_WALK_EABT:
        words[1] = wanted.privileged << 33 | wanted.instruction << 34 | (not wanted.write) << 35
        words[1] |= fault.stage2 << 39 | fault.klass << 40
    return b"".join(word.to_bytes(8, "little") for word in words)


class EventQueue:
    """Writes records into memory in the order of the faults; PROD moves once a record is there."""

    def __init__(
        self,
        bank: Bank,
        bus: MmioInitiator,
        enabled: Callable[[], bool],
        error: Callable[[str], None],
        became_non_empty: Callable[[], None],
        count: Callable[[str], None],
        max_log2: int,
    ) -> None:
        self._bank = bank
        self._bus = bus
        self._enabled = enabled
        self._error = error
        self._became_non_empty = became_non_empty
        self._count = count
        self._max_log2 = max_log2
        self._records: Queue[bytes] = Queue("an event to record")

    def put(self, data: bytes) -> None:
        """Record an event: 32 bytes."""
        self._records.put(data)

    async def run(self) -> None:
        """The queue's task."""
        while True:
            data = await self._records.get()
            if self._enabled():
                await self._write(data)
            else:
                self._count("events_dropped")

    async def _write(self, data: bytes) -> None:
        bank = self._bank
        base = bank["SMMU_EVENTQ_BASE"]
        log2 = min(base & 0x1F, self._max_log2)
        wrap, slots = (2 << log2) - 1, 1 << log2
        prod = bank["SMMU_EVENTQ_PROD"] & wrap
        if prod ^ bank["SMMU_EVENTQ_CONS"] & wrap == slots:
            self._overflow()
            return
        address = (base & 0xF_FFFF_FFFF_FFE0) & ~((EVENT_SIZE << log2) - 1)
        status, _ = await self._bus.issue(address + (prod & slots - 1) * EVENT_SIZE, EVENT_SIZE, data, 3)
        if status != OKAY:
            self._count("events_lost")
            self._error("EVENTQ_ABT_ERR")
            return
        self._count("events")
        empty = bank["SMMU_EVENTQ_CONS"] & wrap == prod
        bank.set_field("SMMU_EVENTQ_PROD", "WR", prod + 1 & wrap)
        if empty:
            self._became_non_empty()

    def _overflow(self) -> None:
        bank = self._bank
        self._count("events_lost")
        if not (bank["SMMU_EVENTQ_PROD"] ^ bank["SMMU_EVENTQ_CONS"]) & WRAP_FLAG:
            bank["SMMU_EVENTQ_PROD"] ^= WRAP_FLAG
