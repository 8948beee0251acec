"""A guest's view of its GICv3: kvmtool's memory map, registers, and what kvm-unit-tests and Linux do to switch it on.

Register offsets and values: IHI 0069; order of the steps: the gic library of kvm-unit-tests and Linux' irq-gic-v3 (facts).
"""

from __future__ import annotations

from typing import NamedTuple

from nodes.arch.cpu import Cpu

GICD = 0x3FFF_0000
GICR_STRIDE = 0x2_0000
GITS_SIZE = 0x2_0000

GICD_CTLR, GICD_TYPER, GICD_TYPER2, GICD_IGROUPR = 0x0000, 0x0004, 0x000C, 0x0080
CTLR_G1, CTLR_G1A, CTLR_ARE, CTLR_NASSGIREQ, CTLR_RWP = 1 << 0, 1 << 1, 1 << 4, 1 << 8, 1 << 31
CTLR_ON = CTLR_ARE | CTLR_G1A | CTLR_G1
TYPER2_NASSGICAP = 1 << 8

GICR_CTLR, GICR_TYPER, GICR_PROPBASER, GICR_PENDBASER = 0x0000, 0x0008, 0x0070, 0x0078
RD_ENABLE_LPIS = 1 << 0
TYPER_LAST = 1 << 4
PENDBASER_PTZ = 1 << 62
SGI_FRAME = 0x1_0000
GICR_IGROUPR0, GICR_ISENABLER0, GICR_IPRIORITYR = 0x0080, 0x0100, 0x0400

PRIORITY = 0xA0
PRIORITIES = 0xA0A0_A0A0
PMR_ALL = 0xF0
ALL = 0xFFFF_FFFF
SGIS = 0x0000_FFFF
SPURIOUS = 1023


class GuestGicError(Exception):
    """The GIC doesn't look as the guest needs it; the text says what was expected where."""


class Layout(NamedTuple):
    """Guest-physical addresses of GICR (first frame), GITS and GITS_TRANSLATER; GICD is at `GICD`."""

    gicr: int
    gits: int
    translater: int


def layout(vcpus: int) -> Layout:
    """kvmtool's map: the Redistributors end where the Distributor begins, the ITS lies below them."""
    gicr = GICD - vcpus * GICR_STRIDE
    gits = gicr - GITS_SIZE
    return Layout(gicr, gits, gits + 0x1_0040)


def affinity_of(mpidr: int) -> int:
    """Aff3.Aff2.Aff1.Aff0 packed as in GICR_TYPER[63:32]."""
    return (mpidr >> 32 & 0xFF) << 24 | mpidr & 0xFF_FFFF


def sgi1r_values(targets: list[int], intid: int) -> list[int]:
    """ICC_SGI1R_EL1 values that send SGI `intid` to the CPUs with these MPIDRs: one for each group that differs above Aff0."""
    groups: dict[int, int] = {}
    for mpidr in targets:
        affinity = affinity_of(mpidr)
        key = (affinity >> 24) << 48 | (affinity >> 16 & 0xFF) << 32 | (affinity >> 8 & 0xFF) << 16
        groups[key] = groups.get(key, 0) | 1 << (affinity & 0xF)
    return [key | intid << 24 | target_list for key, target_list in groups.items()]


def sgi1r_broadcast(intid: int) -> int:
    """ICC_SGI1R_EL1 with IRM = 1: all CPUs but the sender."""
    return 1 << 40 | intid << 24


async def _wait_rwp(cpu: Cpu) -> None:
    for _ in range(1_000_000):
        if not await cpu.load(GICD + GICD_CTLR, 4) & CTLR_RWP:
            return
        await cpu.delay(1_000_000)
    raise GuestGicError("GICD_CTLR.RWP must clear within a second")


async def switch_on_distributor(cpu: Cpu, want_nassgi: bool) -> bool:
    """Disable and enable the Distributor, with nASSGIreq in both writes if wanted and TYPER2 offers it; returns whether.

    With nASSGIreq in the enabling write only it would be lost as soon as another CPU went through this.
    """
    request = 0
    if want_nassgi and await cpu.load(GICD + GICD_TYPER2, 4) & TYPER2_NASSGICAP:
        request = CTLR_NASSGIREQ
    await cpu.store(GICD + GICD_CTLR, request, 4)
    await _wait_rwp(cpu)
    await cpu.store(GICD + GICD_CTLR, request | CTLR_ON, 4)
    await _wait_rwp(cpu)
    return bool(request)


async def interrupt_lines(cpu: Cpu) -> int:
    """Number of INTIDs up to the last SPI, from GICD_TYPER.ITLinesNumber."""
    lines = await cpu.load(GICD + GICD_TYPER, 4) & 0x1F
    return min(32 * (lines + 1), 1020)


async def find_redistributor(cpu: Cpu, first: int) -> int:
    """RD_base of this CPU: walk frames of 128 KiB until GICR_TYPER has its affinity. Raises GuestGicError."""
    wanted = affinity_of(await cpu.mrs("MPIDR_EL1"))
    base = first
    while True:
        typer = await cpu.load(base + GICR_TYPER, 8)
        if typer >> 32 == wanted:
            return base
        if typer & TYPER_LAST:
            raise GuestGicError(f"GICR frames from {first:#x} must have one of affinity {wanted:#x}; last at {base:#x}")
        base += GICR_STRIDE


async def switch_on_cpu_interface(cpu: Cpu) -> None:
    """Priority mask open, Group 1 enabled; EOImode stays 0."""
    await cpu.msr("ICC_PMR_EL1", PMR_ALL)
    await cpu.msr("ICC_IGRPEN1_EL1", 1)


async def enable_defaults(cpu: Cpu, vcpus: int, want_nassgi: bool) -> None:
    """What each CPU of kvm-unit-tests does to use SGIs.

    The number of GICD_IGROUPR words is that of kvm-unit-tests: one for four INTIDs, eight times more than exist.
    """
    lines = await interrupt_lines(cpu)
    await switch_on_distributor(cpu, want_nassgi)
    for n in range(lines // 4):
        await cpu.store(GICD + GICD_IGROUPR + 4 * n, ALL, 4)
    sgi = await find_redistributor(cpu, layout(vcpus).gicr) + SGI_FRAME
    await cpu.store(sgi + GICR_IGROUPR0, ALL, 4)
    for n in range(4):
        await cpu.store(sgi + GICR_IPRIORITYR + 4 * n, PRIORITIES, 4)
    await cpu.store(sgi + GICR_ISENABLER0, SGIS, 4)
    await switch_on_cpu_interface(cpu)
