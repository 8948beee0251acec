"""What a program's author knows: helpers that read the last observation, and what was acknowledged so far."""

from __future__ import annotations

from typing import NamedTuple

from tests.differential import layout
from tests.differential.layout import CPUS, DEVICES, EVENTS, VALID

View = dict[str, object]

PRIORITIES = (0xA0, 0x00, 0x10, 0x40, 0x80, 0x88, 0xA8, 0xC0, 0xF0, 0xF8)
PRIVATE = (0, 1, 2, 3, 25, 27, 30)
"""SGIs and PPIs that programs touch; 25 is the maintenance interrupt."""
SPURIOUS = 1020
EVERY_EVENT = [(device, event) for device in DEVICES for event in range(EVENTS)]
NO_DOORBELL = 1023


class Draw(NamedTuple):
    """A kind of step and numbers that the kind reads as it likes."""

    kind: str
    a: int
    b: int
    c: int
    d: int


def mask_of(number: int, intids: tuple[int, ...]) -> int:
    """Bits of `number` as a set of INTIDs, as a register has them."""
    return sum(1 << intid for n, intid in enumerate(intids) if number >> n & 1)


def priorities(number: int) -> int:
    """Four priority bytes."""
    size = len(PRIORITIES)
    return sum(PRIORITIES[number // size**n % size] << 8 * n for n in range(4))


class Book:
    """Base of the authors: `acked` and `dropped` are by (CPU, Exception level)."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.acked: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.dropped: dict[tuple[int, int], list[int]] = {}

    def _event(self, d: Draw, view: View) -> tuple[int, int]:
        """A mapped event, or one that is nowhere mapped if there is none."""
        found = [(device, event) for device, event in EVERY_EVENT if view[f"event {device}/{event}"] is not None]
        return found[d.b % len(found)] if found else (DEVICES[0], EVENTS)

    def _in_list_register(self, view: View, cpu: int, intid: int) -> bool:
        """Is this vINTID active in an LR?"""
        values = [value_of(view, f"ICH_LR{n}_EL2.{cpu}") for n in range(4)]
        return any(value >> 63 and value & 0xFFFF_FFFF == intid for value in values)

    def _running(self, view: View) -> bool:
        """Commands are executed as they come, so that what was looked at still holds."""
        return value_of(view, "GITS_CTLR") & 1 == 1

    def _lpis_everywhere(self, view: View) -> bool:
        """What moves to a redistributor with EnableLPIs 0 is lost or stays (5.1.2): IMPLEMENTATION DEFINED."""
        return self._running(view) and all(value_of(view, f"GICR_CTLR.{cpu}") & 1 for cpu in range(CPUS))

    def _groups(self, view: View) -> bool:
        """Are interrupts of both groups about? Then both enables of a CPU interface go together: see `accepted`."""
        private = sum(1 << intid for intid in PRIVATE)
        bits = [value_of(view, f"GICR_IGROUPR0.{cpu}") & private for cpu in range(CPUS)]
        shared = value_of(view, "GICD_IGROUPR1") & 0xFF
        return not (all(value == private for value in bits) and shared == 0xFF)

    def _enables_differ(self, view: View) -> bool:
        return any(view[f"ICC_IGRPEN0_EL1.{cpu}"] != view[f"ICC_IGRPEN1_EL1.{cpu}"] for cpu in range(CPUS))

    def _free(self, view: View, device: int, event: int) -> bool:
        return self._running(view) and view[f"event {device}/{event}"] is None

    def _resident(self, view: View, vpe: int) -> bool:
        table = VALID | layout.VPENDING + vpe * layout.STEP_64K
        found = [value_of(view, f"GICR_VPENDBASER.{cpu}") for cpu in range(CPUS)]
        return any(value & (VALID | 0xFFFF_FFFF_0000) == table for value in found)


def value_of(view: View, name: str) -> int:
    """What a register reads as."""
    found = view[name]
    assert isinstance(found, int), f"{name} must be a register, not {found!r}"
    return found


def pending(view: View, name: str) -> tuple[int, ...]:
    """Pending LPIs of "lpi.CPU", vLPIs of "vlpi.VPE"."""
    found = view[f"pending {name}"]
    assert isinstance(found, tuple)
    return found


def entries(view: View) -> list[object]:
    """Mappings of all events."""
    return [view[f"event {device}/{event}"] for device, event in EVERY_EVENT]


def physical(entry: object) -> int | None:
    """LPI of an event's mapping, if it is to one."""
    return entry[1] if isinstance(entry, tuple) and entry[0] == "LPI" else None


def virtual(entry: object) -> tuple[int | None, int | None]:
    """(vLPI, vPE) of an event's mapping, if it is to them."""
    return (entry[1], entry[3]) if isinstance(entry, tuple) and entry[0] == "vLPI" else (None, None)
