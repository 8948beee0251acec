"""A vCPU on a PE, from Enter to Exit: carries out the context's operations, takes its interrupts, decides what exits.

Between two operations, in this order: a physical interrupt exits to EL2 (HCR_EL2.IMO routes it there, whatever PSTATE.I
says); a virtual one is taken if it isn't masked; else the operation is carried out. Loads, stores and `dsb` in flight
are completed before an exit, and posted stores too (the world switch has a barrier): EL2 sees what the guest wrote.

A WFI that finds an interrupt pending completes; only one that would suspend the PE is trapped by HCR_EL2.TWI.

Source: Arm ARM D1.3 and D1.7 (WFI), D19.2 (ESR_EL2, HCR_EL2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cosim.api import BusFault, ModelError
from nodes.arch.cpu import ExternalAbort, UndefinedInstruction
from nodes.arch.intid import is_special
from nodes.arch.trap import (
    HCR_FMO,
    HCR_IMO,
    HCR_TWI,
    REASON_ABORT,
    REASON_CRASH,
    REASON_HVC,
    REASON_IRQ,
    REASON_SYSREG,
    REASON_WFX,
)
from nodes.pe.access import Trap, Undefined
from nodes.pe.context import Crash, ProgramContext
from nodes.pe.operations import Delay, Dsb, Hvc, Load, Mrs, Msr, Operation, Result, Store, Wfi
from nodes.pe.timer import TIMER_REGISTERS

if TYPE_CHECKING:
    from nodes.pe.model import Pe

IL = 1 << 25
ESR_HVC = 0x16 << 26 | IL
ESR_WFI = 0x01 << 26 | IL | 1 << 24 | 0xE << 20
"""EC 0x01 with CV = 1, COND = 0b1110, TI = 0b00 (WFI)."""
EC_DATA_ABORT_LOWER = 0x24
DFSC_TRANSLATION_L3 = 0x07
_SAS = {1: 0, 2: 1, 4: 2, 8: 3}

MAX_OPERATIONS = 100_000
"""Operations of a vCPU at one instant, after which it is taken for a loop without simulated time."""

Range = tuple[int, int, int]
"""Stage 2: (ipa, size, pa), in bytes."""


def esr_for_abort(size: int, write: bool, block: bool, rt: int = 0) -> int:
    """ESR_EL2 of a stage-2 data abort (translation fault, level 3).

    ISV, SAS, SRT and SF describe an access of `size` bytes by one register; a block, which none holds, has ISV = 0.
    """
    esr = EC_DATA_ABORT_LOWER << 26 | IL | int(write) << 6 | DFSC_TRANSLATION_L3
    if block:
        return esr
    return esr | 1 << 24 | _SAS[size] << 22 | rt << 16 | int(size == 8) << 15


class Cause(NamedTuple):
    """Why a vCPU leaves the PE: the fields of Exit, and `detail` for the mark."""

    reason: str
    esr: int = 0
    far: int = 0
    ipa: int = 0
    data: int | bytes | str | tuple[int, ...] = 0
    detail: str = ""


class Vcpu:
    """A context loaded on this PE. `trapped`: it left in the middle of an operation, which the next Enter completes."""

    __slots__ = ("context", "dead", "fault", "mpidr", "name", "trapped")

    def __init__(self, name: str, context: ProgramContext, mpidr: int) -> None:
        self.name = name
        self.context = context
        self.mpidr = mpidr
        self.trapped = False
        self.dead = False
        self.fault: BusFault | None = None


class Guest:
    """One stay of a vCPU on a PE, with the HCR_EL2 and the stage-2 ranges of its Enter."""

    def __init__(self, pe: Pe, vcpu: Vcpu, hcr: int, stage2: tuple[Range, ...]) -> None:
        self.pe = pe
        self.vcpu = vcpu
        self.hcr = hcr
        self.stage2 = stage2
        self._instant, self._operations = -1, 0
        self._execute: dict[type[Any], Callable[[Any], Awaitable[Cause | None]]] = {
            Load: self._load,
            Store: self._store,
            Dsb: self._dsb,
            Mrs: self._mrs,
            Msr: self._msr,
            Hvc: self._hvc,
            Wfi: self._wfi,
            Delay: self._delay,
        }

    async def run(self) -> Cause:
        """Run until the vCPU must exit; what it posted is complete then."""
        try:
            cause = None
            while cause is None:
                self._count_operation()
                cause = await self._step()
        except Crash as crash:
            cause = Cause(REASON_CRASH, data=str(crash))
        try:
            await self.pe.bus.dsb()
        except BusFault as fault:
            self.vcpu.fault = self.vcpu.fault or fault
        self.vcpu.dead = cause.reason == REASON_CRASH
        self.vcpu.trapped = cause.reason not in (REASON_IRQ, REASON_CRASH)
        return cause

    def _count_operation(self) -> None:
        if self.pe.now != self._instant:
            self._instant, self._operations = self.pe.now, 0
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise Crash(
                f"more than {MAX_OPERATIONS} operations of {self.vcpu.name} at one instant, the last of them "
                f"{self.vcpu.context.fetch()}: a loop needs a delay, an access or a WFI that waits"
            )

    def resume(self, value: Any) -> None:
        """Complete the operation that trapped with what EL2 gave.

        Raises:
            ModelError: a value that doesn't fit the operation.
        """
        if not self.vcpu.trapped:
            return
        self.vcpu.trapped = False
        operation = self.vcpu.context.fetch()
        self.vcpu.context.complete(self._resumed(operation, value))

    def _resumed(self, operation: Operation, value: Any) -> Result:
        if isinstance(operation, Load):
            if isinstance(value, int) and value >= 0:
                value = value.to_bytes(max(operation.size, 8), "little")[: operation.size]
            if isinstance(value, bytes) and len(value) == operation.size:
                return value if operation.block else int.from_bytes(value, "little")
        elif isinstance(operation, Mrs):
            if isinstance(value, int) and not value >> 64:
                return value
        elif isinstance(operation, Hvc):
            if isinstance(value, (tuple, list)) and len(value) == 4:
                return tuple(value)
        else:
            return None
        raise ModelError(f"resume of {self.vcpu.name} must be the result of its {operation}, not {value!r}")

    # -- between two operations ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Is a virtual interrupt pending, masked or not?"""
        gic, hcr = self.pe.interface, self.hcr
        return bool((hcr & HCR_IMO and gic.virq) or (hcr & HCR_FMO and gic.vfiq))

    async def _step(self) -> Cause | None:
        if self.pe.interface.irq:
            return Cause(REASON_IRQ)
        context = self.vcpu.context
        operation = context.fetch()
        if not context.masked and self.hcr & HCR_IMO and self.pe.interface.virq:
            if isinstance(operation, Wfi):
                context.complete(None)
            context.interrupt()
            return None
        return await self._execute[type(operation)](operation)

    # -- memory --------------------------------------------------------------------------------------------------------

    def translate(self, address: int, size: int) -> int | None:
        """Physical address of an access that lies inside one direct range."""
        for ipa, length, pa in self.stage2:
            if ipa <= address and address + size <= ipa + length:
                return pa + address - ipa
        return None

    async def _load(self, operation: Load) -> Cause | None:
        address, size, block = operation
        pa = self.translate(address, size)
        if pa is None:
            esr = esr_for_abort(size, False, block)
            return Cause(REASON_ABORT, esr, address, address, size, f"read {address:#x}")
        bus = self.pe.bus
        try:
            result = await (bus.read_block(pa, size) if block else bus.read(pa, size))
        except BusFault as fault:
            self._abort(fault, address)
        else:
            self.vcpu.context.complete(result)
        return None

    async def _store(self, operation: Store) -> Cause | None:
        address, data, size, posted = operation
        pa = self.translate(address, size)
        if pa is None:
            esr = esr_for_abort(size, True, isinstance(data, bytes))
            return Cause(REASON_ABORT, esr, address, address, data, f"write {address:#x}")
        bus = self.pe.bus
        try:
            if isinstance(data, bytes):
                if posted:
                    bus.post_block(pa, data)
                else:
                    await bus.write_block(pa, data)
            elif posted:
                bus.post(pa, data, size)
            else:
                await bus.write(pa, data, size)
        except BusFault as fault:
            self._abort(fault, address)
        else:
            self.vcpu.context.complete(None)
        return None

    async def _dsb(self, operation: Dsb) -> Cause | None:
        fault, self.vcpu.fault = self.vcpu.fault, None
        try:
            await self.pe.bus.dsb()
        except BusFault as own:
            fault = fault or own
        if fault is not None:
            self._abort(fault, fault.address)
        else:
            self.vcpu.context.complete(None)
        return None

    def _abort(self, fault: BusFault, address: int) -> None:
        self.pe.count["external_aborts"] += 1
        self.pe.log("external abort", vcpu=self.vcpu.name, address=f"{address:#x}", why=str(fault))
        self.vcpu.context.fail(ExternalAbort(f"external abort at {address:#x}: {fault}"))

    # -- system registers ----------------------------------------------------------------------------------------------

    async def _mrs(self, operation: Mrs) -> Cause | None:
        name, rt = operation
        pe, context = self.pe, self.vcpu.context
        if name == "MPIDR_EL1":
            context.complete(self.vcpu.mpidr)
        elif name in TIMER_REGISTERS:
            context.complete(pe.timer.read(name, pe.now))
        else:
            try:
                value = pe.interface.read(name, el=1, hcr=self.hcr, rt=rt)
            except Trap as trap:
                return self._trapped(trap, 0)
            except (Undefined, ValueError) as error:
                self._undefined(error)
            else:
                if name in ("ICC_IAR1_EL1", "ICC_IAR0_EL1") and not is_special(value):
                    self._acknowledged(value)
                context.complete(value)
            pe.settle_gic()
        return None

    def _acknowledged(self, intid: int) -> None:
        direct = any(packet[0] == "VActivate" and packet[2] == intid for packet in self.pe.interface.up)
        source = "direct" if direct else "lr"
        self.pe.count[f"acks_{source}"] += 1
        self.pe.mark("ack", self.vcpu.name, intid, source)

    async def _msr(self, operation: Msr) -> Cause | None:
        name, value, rt = operation
        pe, context = self.pe, self.vcpu.context
        if name in TIMER_REGISTERS:
            if pe.timer.write(name, value, pe.now):
                pe.update_timer()
                context.complete(None)
            else:
                self._undefined(UndefinedInstruction(f"{name} can't be written at EL1"))
            return None
        try:
            pe.interface.write(name, value, el=1, hcr=self.hcr, rt=rt)
        except Trap as trap:
            return self._trapped(trap, value)
        except (Undefined, ValueError) as error:
            self._undefined(error)
        else:
            context.complete(None)
        pe.settle_gic()
        return None

    def _trapped(self, trap: Trap, value: int) -> Cause | None:
        if trap.target_el == 2:
            return Cause(REASON_SYSREG, trap.esr, data=value, detail=trap.name)
        self._undefined(trap)
        return None

    def _undefined(self, error: Exception) -> None:
        self.pe.count["undefined_instructions"] += 1
        self.pe.log("undefined instruction", vcpu=self.vcpu.name, why=str(error))
        self.vcpu.context.fail(UndefinedInstruction(str(error)))

    # -- exceptions and time -------------------------------------------------------------------------------------------

    async def _hvc(self, operation: Hvc) -> Cause | None:
        return Cause(REASON_HVC, ESR_HVC, data=operation.arguments, detail=f"{operation.arguments[0]:#x}")

    async def _wfi(self, operation: Wfi) -> Cause | None:
        if self.pending:
            self.vcpu.context.complete(None)
            return None
        if self.hcr & HCR_TWI:
            return Cause(REASON_WFX, ESR_WFI, detail="wfi")
        self.pe.count["wfi_sleeps"] += 1
        await self.pe.change(None, f"an interrupt for {self.vcpu.name} in WFI")
        return None

    async def _delay(self, operation: Delay) -> Cause | None:
        context, now = self.vcpu.context, self.pe.now
        if context.until is None:
            context.begin_delay(now + operation.span)
        until = cast(int, context.until)
        if now >= until:
            context.complete(None)
        else:
            await self.pe.change(until, f"the end of a delay of {self.vcpu.name}")
        return None
