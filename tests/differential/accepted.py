"""The accepted differences: for each, who is right, why, and how it is kept out of the comparison.

Either a part of what is seen is left out (`names`, `bits`, `when`), or, because the difference would spread to what happens
next, programs do not go there: `avoided` says how, and `witness` is a program (with `tables` as in `Setup`) that shows the
difference. A test proves that it is still there, so that no entry outlives its cause. What the architecture leaves
UNPREDICTABLE is not here: the authors of steps do not write such programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.differential import layout
from tests.differential.oracle import Observed
from tests.differential.steps import Command, Mrs, Msi, Msr, Step, Store, Write

EITHER, OURS = "both are right", "ours is right"

View = dict[str, object]


def _always(view: View, name: str) -> bool:
    return True


def _interface_off(view: View, name: str) -> bool:
    """ICH_HCR_EL2.En of the CPU that `name` ends with."""
    return not int(str(view[f"ICH_HCR_EL2.{name.split('.')[1][0]}"])) & 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """`names` are prefixes of what is compared, `bits` what is left out of it (-1: all of it) where `when` holds."""

    what: str
    right: str
    why: str
    names: tuple[str, ...] = ()
    bits: int = 0
    when: Callable[[View, str], bool] = _always
    avoided: str = ""
    witness: tuple[Step, ...] = ()
    tables: int = 0


_VGRP0DIE, _VGRP1DIE = 1 << 5, 1 << 7

ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "GITS_CTLR.Quiescent while Enabled is 1",
        EITHER,
        "UNKNOWN while enabled before GICv4.1 (IHI 0069H 12.19.3); QEMU leaves it 1",
        ("GITS_CTLR",),
        1 << 31,
    ),
    Accepted(
        "GITS_BASER1.Entry_Size",
        EITHER,
        "the implementation chooses it: 2 bytes here, 8 in QEMU; tables are compared decoded",
        ("GITS_BASER1",),
        0x1F << 48,
    ),
    Accepted(
        "ICV_HPPIR1 of a direct vLPI while ICH_HCR_EL2.En is 0",
        EITHER,
        "with En 0 nothing is signalled and IAR is spurious, but HPPIR is not mentioned (ICH_HCR_EL2.En); QEMU shows the vLPI",
        ("ICC_HPPIR0_EL1.0@EL1", "ICC_HPPIR0_EL1.1@EL1", "ICC_HPPIR1_EL1.0@EL1", "ICC_HPPIR1_EL1.1@EL1"),
        -1,
        _interface_off,
    ),
    Accepted(
        "a pending interrupt whose group the CPU interface has disabled",
        OURS,
        "QEMU's redistributor does not see ICC_IGRPEN<n>: such an interrupt hides one of lower priority of the other group",
        avoided="with interrupts of both groups about, both enables change together",
        witness=(
            (Write("GICD_IGROUPR1", 0xFE),),
            (Write("GICD_IPRIORITYR8", 0x10A0),),
            (Write("GICD_ISPENDR1", 0x3),),
            (Msr("ICC_IGRPEN0_EL1", 0), Msr("ICC_IGRPEN1_EL1", 0), Write("GICD_IPRIORITYR8", 0xA010)),
            (Msr("ICC_IGRPEN1_EL1", 1),),
        ),
    ),
    Accepted(
        "ICC_SGI1R_EL1 and an SGI of Group 0 at its target",
        OURS,
        "with one Security state SGI1R generates SGIs of either group, as KVM's vgic has it too; QEMU drops those of Group 0",
        avoided="SGI1R only for SGIs that are Group 1 on every CPU",
        witness=((Write("GICR_IGROUPR0", 0, 1),), (Msr("ICC_SGI1R_EL1", 0x2),)),
    ),
    Accepted(
        "ICH_MISR_EL2.VGrp0D",
        OURS,
        "it depends on ICH_VMCR_EL2.VENG0; QEMU 7.2 looks at VENG1",
        avoided="ICH_HCR_EL2.VGrp0DIE is never set",
        witness=((Msr("ICH_HCR_EL2", _VGRP0DIE | _VGRP1DIE),), (Msr("ICC_IGRPEN0_EL1", 0, 0, 1),)),
    ),
    Accepted(
        "ICH_HCR_EL2.EOIcount with ICV_CTLR.EOImode 1",
        OURS,
        "an EOIR without list register counts only where it would deactivate, that is with EOImode 0; QEMU counts always",
        avoided="with EOImode 1 a guest ends only what is active in a list register",
        witness=(
            (Msr("ICC_CTLR_EL1", 2, 0, 1),),
            (Msr("ICH_LR0_EL2", 1 << 62 | 1 << 60 | 40),),
            (Mrs("ICC_IAR1_EL1", 0, 1),),
            (Msr("ICH_LR0_EL2", 0),),
            (Msr("ICC_EOIR1_EL1", 40, 0, 1),),
        ),
    ),
    Accepted(
        "ICH_VMCR_EL2.VPMR with priority bits that are not implemented",
        OURS,
        "they are RES0 as in ICC_PMR_EL1; QEMU keeps what ICH_VMCR_EL2 was given",
        avoided="VPMR is written with implemented bits only",
        witness=((Msr("ICH_VMCR_EL2", 0xFF << 24 | 3),),),
    ),
    Accepted(
        "GICR_WAKER.ProcessorSleep",
        OURS,
        "a redistributor that sleeps forwards nothing (IHI 0069H 11.1); QEMU only mirrors the bit in ChildrenAsleep",
        avoided="redistributors stay awake",
        witness=((Write("GICR_WAKER", 2),), (Write("GICR_ISPENDR0", 1),)),
    ),
    Accepted(
        "GICR_PENDBASER.PTZ",
        OURS,
        "it reads as 0; QEMU gives back what was written, and reads the table in any case",
        avoided="PENDBASER is written by the set-up only, PTZ 0",
        witness=((Write("GICR_CTLR", 0),), (Write("GICR_PENDBASER", 1 << 62 | layout.PENDING),)),
    ),
    Accepted(
        "an LPI's configuration that changed without an INV",
        EITHER,
        "it may be cached until INV or INVALL (5.1); ours keeps it, QEMU reads it when the LPI becomes pending",
        avoided="a store to a configuration table comes with the command that makes it visible",
        witness=(
            (Msi(8, 1),),
            (Command.of("CLEAR", device_id=8, event_id=1),),
            (Store(layout.CONFIG + 3, 0xA3, 1),),
            (Msi(8, 1),),
        ),
    ),
    Accepted(
        "INVALL of another collection, or of one that is not mapped",
        EITHER,
        "it need not reach LPIs of other collections; QEMU looks at every CPU's LPIs again whatever ICID says",
        avoided="a configuration change is followed by INVALL of a collection of each CPU",
        witness=((Msi(8, 1),), (Store(layout.CONFIG + 3, 0xA3, 1),), (Command.of("INVALL", icid=2),)),
    ),
    Accepted(
        "MAPTI to a collection whose level 1 table entry is invalid",
        EITHER,
        "the ICID is out of range of the table that there is, or unmapped: ours refuses the command, QEMU drops the MSIs",
        avoided="MAPTI with such an ICID only where the table is flat",
        witness=((Command.of("MAPTI", device_id=0, event_id=2, pintid=8196, icid=0xFFF0),),),
        tables=1,
    ),
)


def normalise(observed: list[Observed]) -> list[Observed]:
    """What is left of one side's observations."""
    return [(result, {name: _mask(view, name) for name in view}) for result, view in observed]


def _mask(view: View, name: str) -> object:
    value = view[name]
    if isinstance(value, int) and name.startswith(_MASKED):
        for entry in ACCEPTED:
            if entry.names and name.startswith(entry.names) and entry.when(view, name):
                value &= ~entry.bits
    return value


_MASKED = tuple(name for entry in ACCEPTED for name in entry.names)
