"""Registers that hold one field per interrupt: IGROUPR, ISENABLER … IPRIORITYR, ICFGR (sheet 1 and 2.3).

`FIELDS` is one table for the virtual Distributor and the SGI frame of the virtual Redistributors: base offset, bits per
interrupt, how to read one interrupt's field, how to write it. A write handler returns True when a vSGI in hardware needs its
configuration sent.

Source: Linux vgic-mmio.c (behaviour).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from nodes.hypervisor.kvm.irq import Hw, VgicIrq
from nodes.hypervisor.kvm.vgic import PRI_BITS_MASK, Vgic


class FieldRange(NamedTuple):
    """A run of registers: `base` offset of INTID 0's field, `bits` per interrupt (1, 2 or 8)."""

    name: str
    base: int
    bits: int
    read: Callable[[VgicIrq], int]
    write: Callable[[Vgic, VgicIrq, int], bool]

    @property
    def end(self) -> int:
        """Offset after the field of INTID 1023."""
        return self.base + 1024 * self.bits // 8

    def first(self, offset: int) -> int:
        """INTID of the field at a byte offset."""
        return (offset - self.base) * 8 // self.bits


def _group(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    changed = irq.group != value
    irq.group = value
    if not irq.direct:
        vgic.queue(irq)
    return changed and irq.hw is Hw.SGI


def _set_enable(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if not value:
        return False
    changed = not irq.enabled
    irq.enabled = True
    if irq.hw is Hw.SGI:
        return changed
    if irq.pending:
        vgic.queue(irq)
    return False


def _clear_enable(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if not value or not irq.enabled:
        return False
    irq.enabled = False
    return irq.hw is Hw.SGI


def _set_pending(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if value and not irq.direct:
        vgic.set_pending(irq)
    return False


def _clear_pending(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if value and not irq.direct:
        irq.pending_latch = False
    return False


def _set_active(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if value and not irq.direct:
        irq.active = True
        vgic.queue(irq)
    return False


def _clear_active(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if value and not irq.direct:
        irq.active = False
    return False


def _priority(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    value &= PRI_BITS_MASK
    changed = irq.priority != value
    irq.priority = value
    return changed and irq.hw is Hw.SGI


def _config(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    if irq.intid >= 16:
        irq.level = not value & 2
        if irq.level:
            irq.pending_latch = irq.line_level
    return False


def _none(vgic: Vgic, irq: VgicIrq, value: int) -> bool:
    return False


FIELDS: Final = (
    FieldRange("IGROUPR", 0x0080, 1, lambda irq: irq.group, _group),
    FieldRange("ISENABLER", 0x0100, 1, lambda irq: int(irq.enabled), _set_enable),
    FieldRange("ICENABLER", 0x0180, 1, lambda irq: int(irq.enabled), _clear_enable),
    FieldRange("ISPENDR", 0x0200, 1, lambda irq: int(irq.pending), _set_pending),
    FieldRange("ICPENDR", 0x0280, 1, lambda irq: int(irq.pending), _clear_pending),
    FieldRange("ISACTIVER", 0x0300, 1, lambda irq: int(irq.active), _set_active),
    FieldRange("ICACTIVER", 0x0380, 1, lambda irq: int(irq.active), _clear_active),
    FieldRange("IPRIORITYR", 0x0400, 8, lambda irq: irq.priority, _priority),
    FieldRange("ICFGR", 0x0C00, 2, lambda irq: 0 if irq.level else 2, _config),
    FieldRange("IGRPMODR", 0x0D00, 1, lambda irq: 0, _none),
    FieldRange("NSACR", 0x0E00, 2, lambda irq: 0, _none),
)


def find(offset: int) -> FieldRange | None:
    """The range that holds a register offset."""
    for field in FIELDS:
        if field.base <= offset < field.end:
            return field
    return None
