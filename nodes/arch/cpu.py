"""What a program on a PE sees: the processor as a set of awaitable instructions.

A program is a coroutine function `program(cpu, args, params)`, found by name among the entry points `cosim.programs`.
It runs at EL1 of one vCPU; programs on different vCPUs share simulated RAM and nothing else, so words shared between
them have one writer each. `params` holds at least "entry" (the PC at which the vCPU starts; Python programs use it as
an index into their own table of entry functions, the boot CPU has `BOOT_ENTRY`) and "x0", besides what the hypervisor
gave.

Interrupts are taken between two awaits: at once inside `delay` and `wfi`, otherwise before the next operation begins.
The handler is a new frame with interrupts masked; the frame below goes on when it returns. A program starts with
interrupts masked (PSTATE.I = 1, Arm ARM D1.3.1 and kvmtool's start state).

Anything that a program raises ends its vCPU with an exit of reason "crash".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

BOOT_ENTRY = 0x8000_0000
"""PC of the boot CPU: start of guest RAM in kvmtool's memory map."""

UART = 0x0100_0000
"""Guest-physical address of the console UART in kvmtool's memory map."""

MAX_BLOCK = 4096
"""Bytes of one block access; longer blocks are split, and none crosses a 4 KiB boundary."""


def vcpu_mpidr(index: int) -> int:
    """MPIDR_EL1 that KVM gives vCPU `index` (VMPIDR_EL2): 16 to an Aff1 group, 256 of those to an Aff2 group."""
    return 0x8000_0000 | index & 0xF | (index >> 4 & 0xFF) << 8 | (index >> 12 & 0xFF) << 16


class ExternalAbort(Exception):
    """A load, store or `dsb` ended with a bus error (external abort or SError); the text names the address."""


class UndefinedInstruction(Exception):
    """The system register doesn't exist, or not at EL1; the text names it."""


IrqHandler = Callable[[], Coroutine[Any, Any, None]]
"""Makes the coroutine of a handler frame."""


class Cpu(Protocol):
    """One vCPU, as its program uses it. Addresses are intermediate physical (the guest's MMU is off); sizes are bytes.

    Accesses inside the ranges that the hypervisor gave at entry go direct over the bus; all others exit to it.
    """

    @property
    def mpidr(self) -> int:
        """MPIDR_EL1 (VMPIDR_EL2 of the vCPU): 0x80000000 | n for vCPU n < 16."""
        ...

    def load(self, address: int, size: int = 8) -> Awaitable[int]:
        """Load 1, 2, 4 or 8 bytes, little endian. Raises ExternalAbort."""
        ...

    def store(self, address: int, value: int, size: int = 8) -> Awaitable[None]:
        """Store 1, 2, 4 or 8 bytes and wait for the completion. Raises ExternalAbort."""
        ...

    def load_block(self, address: int, size: int) -> Awaitable[bytes]:
        """Load any number of bytes, in accesses of up to 4 KiB. Raises ExternalAbort."""
        ...

    def store_block(self, address: int, data: bytes) -> Awaitable[None]:
        """Store bytes, in accesses of up to 4 KiB (one exit each where they exit). Raises ExternalAbort."""
        ...

    def post(self, address: int, value: int, size: int = 8) -> Awaitable[None]:
        """Store without waiting for the completion; outside the direct ranges the same as `store`."""
        ...

    def post_block(self, address: int, data: bytes) -> Awaitable[None]:
        """Store bytes without waiting for the completion; outside the direct ranges the same as `store_block`."""
        ...

    def dsb(self) -> Awaitable[None]:
        """Wait for all stores posted so far. Raises ExternalAbort for the first that failed."""
        ...

    def mrs(self, name: str) -> Awaitable[int]:
        """Read a system register by name ("ICC_IAR1_EL1", "CNTVCT_EL0", "MPIDR_EL1"). Raises UndefinedInstruction."""
        ...

    def msr(self, name: str, value: int) -> Awaitable[None]:
        """Write a system register by name. Raises UndefinedInstruction."""
        ...

    def hvc(self, x0: int, x1: int = 0, x2: int = 0, x3: int = 0) -> Awaitable[tuple[int, int, int, int]]:
        """HVC #0 with x0 to x3; the results in x0 to x3 (SMC Calling Convention, PSCI)."""
        ...

    def wfi(self) -> Awaitable[None]:
        """Wait until an interrupt is pending, masked or not; one that is not masked is taken first."""
        ...

    def delay(self, span: int) -> Awaitable[None]:
        """Be busy for `span` ps. Interrupts are taken inside it; it ends when it would have ended without them."""
        ...

    def set_irq_handler(self, handler: IrqHandler) -> None:
        """Install what runs when an IRQ is taken."""
        ...

    def irq_enable(self) -> None:
        """Clear PSTATE.I; a pending interrupt is taken before the next operation begins."""
        ...

    def irq_disable(self) -> None:
        """Set PSTATE.I."""
        ...

    def console(self, text: str) -> Awaitable[None]:
        """Write UTF-8 text to the UART: one exit per up to 4 KiB."""
        ...


Program = Callable[[Cpu, str, dict[str, Any]], Coroutine[Any, Any, None]]
"""`async def program(cpu, args, params)`."""
