"""Identification registers that all blocks of a GIC have at the end of their first 64 KB frame.

CoreSight layout (IHI 0029, "Component and Peripheral ID registers"); Arm's JEP106 code is 0x3B in bank 4.
"""

from __future__ import annotations

from cosim.api import Access, F, Reg

RO = Access.RO

GIC700_IIDR = 0x0400_043B
"""ProductID 4, implementer 0x43B (Arm): GICD_IIDR, GICR_IIDR and GITS_IIDR of GIC-700 at r0p0."""

MODEL_IIDR = 0xC000_043B
"""GICD_IIDR, GICR_IIDR and GITS_IIDR of the GICv3 and GICv4.0 variants: a ProductID of this model's own, since GIC-700 is
GICv4.1 and software must not take the others for it."""

IIDR_FIELDS = (F("Implementer", 11, 0), F("Revision", 15, 12), F("Variant", 19, 16), F("ProductID", 31, 24))


def pidr2(arch_rev: int) -> int:
    """PIDR2 for GICv3 (``arch_rev`` 3) or GICv4 (4): JEDEC code used, JEP106 code bits [6:4] 3."""
    return arch_rev << 4 | 1 << 3 | 3


def id_registers(prefix: str, part: int) -> list[Reg]:
    """PIDR4..7, PIDR0..3 and CIDR0..3 of ``prefix`` (``"GICD"``) for a GICv4 block of 12-bit number ``part``."""
    pidr = {
        4: (0xFFD0, [F("DES_2", 3, 0, reset=4), F("SIZE", 7, 4, reset=4)]),
        5: (0xFFD4, []),
        6: (0xFFD8, []),
        7: (0xFFDC, []),
        0: (0xFFE0, [F("PART_0", 7, 0, reset=part & 0xFF)]),
        1: (0xFFE4, [F("PART_1", 3, 0, reset=part >> 8), F("DES_0", 7, 4, reset=0xB)]),
        2: (0xFFE8, [F("DES_1", 2, 0, reset=3), F("JEDEC", 3, reset=1), F("ArchRev", 7, 4, reset=4)]),
        3: (0xFFEC, [F("CMOD", 3, 0), F("REVAND", 7, 4)]),
    }
    regs = [Reg(offset, 32, f"{prefix}_PIDR{n}", RO, fields=fields) for n, (offset, fields) in pidr.items()]
    cidr = (0x0D, 0xF0, 0x05, 0xB1)
    regs += [Reg(0xFFF0 + 4 * n, 32, f"{prefix}_CIDR{n}", RO, reset=value) for n, value in enumerate(cidr)]
    return regs
