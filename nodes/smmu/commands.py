"""Command queue (IHI 0070 chapter 4): 16-byte commands in memory, consumed in order up to CMDQ_PROD.

An illegal command stops the queue: CONS stays at it with ERR set and GERROR.CMDQ_ERR becomes active; acknowledging that in
GERRORN starts the queue again at CONS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cosim.api import OKAY, Bank, MmioInitiator, Signal
from nodes.smmu.config import FETCH_ATTR
from nodes.smmu.translate import Translator
from nodes.smmu.walk import bits

CMD_SIZE = 16
BATCH = 4096
CERROR_ILL, CERROR_ABT = 1, 2

PREFETCH_CFG, PREFETCH_ADDR = 0x01, 0x02
CFGI_STE, CFGI_STE_RANGE, CFGI_CD, CFGI_CD_ALL = 0x03, 0x04, 0x05, 0x06
TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA = 0x10, 0x11, 0x12, 0x13
TLBI_S12_VMALL, TLBI_S2_IPA, TLBI_NSNH_ALL = 0x28, 0x2A, 0x30
SYNC = 0x46
CS_NONE, CS_IRQ, CS_SEV = 0, 1, 2
SSEC = 1 << 10
ADDRESS = 0xFFFF_FFFF_FFFF_F000


class IllegalCommand(Exception):
    """CERROR_ILL: a command or field that this SMMU does not have."""


class CommandQueue:
    """Fetches and executes commands. `quiet()` waits for the transactions that are under way, `sync_irq(address, data)` is
    the signal of a CMD_SYNC with CS = IRQ."""

    def __init__(
        self,
        bank: Bank,
        bus: MmioInitiator,
        translator: Translator,
        *,
        running: Callable[[], bool],
        error: Callable[[int, str], None],
        quiet: Callable[[], Awaitable[None]],
        sync_irq: Callable[[int, int], None],
        count: Callable[[str], None],
        max_log2: int,
    ) -> None:
        self._bank = bank
        self._bus = bus
        self._translator = translator
        self._running = running
        self._error = error
        self._quiet = quiet
        self._sync_irq = sync_irq
        self._count = count
        self._max_log2 = max_log2
        self._work = Signal("a command")
        self.busy = False

    def wake(self) -> None:
        """PROD, CR0 or GERRORN changed."""
        self._work.notify()

    async def run(self) -> None:
        """The queue's task."""
        while True:
            if self._running() and self._pending():
                self.busy = True
                await self._batch()
                self.busy = False
            else:
                await self._work.wait()

    def _log2(self) -> int:
        return min(self._bank["SMMU_CMDQ_BASE"] & 0x1F, self._max_log2)

    def _pending(self) -> int:
        """Commands between CONS and PROD."""
        wrap = (2 << self._log2()) - 1
        return (self._bank["SMMU_CMDQ_PROD"] - self._bank["SMMU_CMDQ_CONS"]) & wrap

    async def _batch(self) -> None:
        """Fetch a run of commands that neither wraps nor crosses 4 KiB, and execute it."""
        bank, log2 = self._bank, self._log2()
        slots = 1 << log2
        cons = bank["SMMU_CMDQ_CONS"] & 2 * slots - 1
        base = bank["SMMU_CMDQ_BASE"] & 0xF_FFFF_FFFF_FFE0 & ~((CMD_SIZE << log2) - 1)
        address = base + (cons & slots - 1) * CMD_SIZE
        room = (BATCH - address % BATCH) // CMD_SIZE
        number = min(self._pending(), slots - (cons & slots - 1), room)
        status, data = await self._bus.issue(address, number * CMD_SIZE, None, FETCH_ATTR)
        if status != OKAY:
            self._error(CERROR_ABT, f"fetch of commands from {address:#x} was aborted")
            return
        for n in range(number):
            if not self._running():
                return
            low, high = (int.from_bytes(data[at : at + 8], "little") for at in (n * CMD_SIZE, n * CMD_SIZE + 8))
            try:
                await self._execute(low, high)
            except IllegalCommand as illegal:
                self._error(CERROR_ILL, f"{illegal} at {address + n * CMD_SIZE:#x}: {low:#x} {high:#x}")
                return
            cons = cons + 1 & 2 * slots - 1
            bank.set_field("SMMU_CMDQ_CONS", "RD", cons)
            self._count("commands")

    async def _execute(self, low: int, high: int) -> None:
        opcode = low & 0xFF
        if low & SSEC:
            raise IllegalCommand("SSec must be 0 in the Non-secure queue")
        if opcode in (CFGI_STE, CFGI_STE_RANGE, CFGI_CD, CFGI_CD_ALL):
            self._configuration(opcode, low, high)
        elif opcode in (TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA):
            self._stage1(opcode, low, high)
        elif opcode in (TLBI_S12_VMALL, TLBI_S2_IPA, TLBI_NSNH_ALL):
            self._stage2(opcode, low, high)
        elif opcode == SYNC:
            await self._sync(low, high)
        elif opcode not in (PREFETCH_CFG, PREFETCH_ADDR):  # prefetches are hints
            raise IllegalCommand(f"opcode {opcode:#04x} is not one of this SMMU (no EL2 contexts, ATS, PRI, stall)")

    def _has_stage1(self, opcode: int) -> None:
        if not self._translator.features.stage1:
            raise IllegalCommand(f"opcode {opcode:#04x} needs stage 1, which this SMMU does not have")

    def _configuration(self, opcode: int, low: int, high: int) -> None:
        """CFGI_*. With an STE go the contexts that were reached through it, as from a cache of both combined."""
        translator, sid = self._translator, low >> 32
        if opcode in (CFGI_CD, CFGI_CD_ALL):
            self._has_stage1(opcode)
            translator.contexts.invalidate(sid, sid, bits(low, 31, 12) if opcode == CFGI_CD else None)
            return
        size = 1 << bits(high, 4, 0) + 1 if opcode == CFGI_STE_RANGE else 1
        first = sid & ~(size - 1)
        translator.streams.invalidate(first, first + size - 1)
        translator.contexts.invalidate(first, first + size - 1)

    def _stage1(self, opcode: int, low: int, high: int) -> None:
        """TLBI_NH_*: what a VMID's stage 1 says; all of it, or by ASID, by address, or by both."""
        self._has_stage1(opcode)
        asid = bits(low, 63, 48) if opcode in (TLBI_NH_ASID, TLBI_NH_VA) else None
        address = high & ADDRESS if opcode in (TLBI_NH_VA, TLBI_NH_VAA) else None
        self._translator.tlb1.invalidate(vmid=bits(low, 47, 32), asid=asid, address=address)

    def _stage2(self, opcode: int, low: int, high: int) -> None:
        translator = self._translator
        vmid = bits(low, 47, 32)
        if opcode == TLBI_S2_IPA:
            translator.tlb2.invalidate(vmid=vmid, address=high & 0xF_FFFF_FFFF_F000)
            return
        which = None if opcode == TLBI_NSNH_ALL else vmid
        translator.tlb1.invalidate(vmid=which)
        translator.tlb2.invalidate(vmid=which)

    async def _sync(self, low: int, high: int) -> None:
        signal = bits(low, 13, 12)
        if signal not in (CS_NONE, CS_IRQ):
            raise IllegalCommand(f"CMD_SYNC.CS must be 0 or 1 (no SEV), not {signal}")
        await self._quiet()
        if signal == CS_IRQ:
            self._sync_irq(high & 0xF_FFFF_FFFF_FFFC, low >> 32)
