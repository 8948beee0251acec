"""PSCI calls of a guest, by HVC (Arm DEN 0022D, chapter 5)."""

from __future__ import annotations

from nodes.arch.cpu import Cpu

CPU_ON = 0xC400_0003
SYSTEM_OFF = 0x8400_0008
SUCCESS = 0
_NAMES = {
    -1: "NOT_SUPPORTED",
    -2: "INVALID_PARAMETERS",
    -3: "DENIED",
    -4: "ALREADY_ON",
    -5: "ON_PENDING",
    -6: "INTERNAL_FAILURE",
    -7: "NOT_PRESENT",
    -8: "DISABLED",
    -9: "INVALID_ADDRESS",
}


class PsciError(Exception):
    """A PSCI call failed; the text has the function, the target and PSCI's name of the error."""


async def cpu_on(cpu: Cpu, mpidr: int, entry: int, context: int = 0) -> None:
    """Start the CPU with that MPIDR at `entry`, with `context` in x0. Raises PsciError."""
    affinity = mpidr & 0xFF_00FF_FFFF
    result = (await cpu.hvc(CPU_ON, affinity, entry, context))[0]
    if result != SUCCESS:
        signed = result - (1 << 64) if result >> 63 else result - (1 << 32) if result >> 31 else result
        raise PsciError(f"CPU_ON of CPU {affinity:#x} must succeed, not return {_NAMES.get(signed, signed)}")


async def system_off(cpu: Cpu) -> None:
    """Power the machine off; doesn't return (it waits, should the call do so)."""
    await cpu.hvc(SYSTEM_OFF)
    cpu.irq_disable()
    while True:
        await cpu.delay(10**12)
