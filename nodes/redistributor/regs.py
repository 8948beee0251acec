"""Registers of a Redistributor: RD_base, SGI_base and VLPI_base frames (IHI 0069H chapter 12; GIC-700 ID values).

``TABLES`` has one table per GIC version: the VLPI_base frame begins with GICv4.0, whose VPROPBASER and VPENDBASER
point at a VM's own tables, where GICv4.1's name a vPE. Values that follow from parameters (TYPER, CTLR.CES and IR, for
GICv3 and GICv4.0 also IIDR and PIDR2) are zero or GIC-700's here: the model sets them by ``Bank.configure``.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg
from nodes.arch.idregs import GIC700_IIDR, IIDR_FIELDS, id_registers

RW, RO, WO, W1C, W1S = Access.RW, Access.RO, Access.WO, Access.W1C, Access.W1S

SGI = 0x1_0000
VLPI = 0x2_0000
RESERVED = 0x3_0000

PART = 0x493

RD_FRAME = [
    Reg(
        0x0000,
        32,
        "GICR_CTLR",
        fields=[
            F("EnableLPIs", 0),
            F("CES", 1, access=RO),
            F("IR", 2, access=RO),
            F("RWP", 3, access=RO),
            F("DPG0", 24),
            F("DPG1NS", 25),
            F("DPG1S", 26),
            F("UWP", 31, access=RO),
        ],
    ),
    Reg(0x0004, 32, "GICR_IIDR", RO, reset=GIC700_IIDR, fields=IIDR_FIELDS),
    Reg(
        0x0008,
        64,
        "GICR_TYPER",
        RO,
        fields=[
            F("PLPIS", 0),
            F("VLPIS", 1),
            F("Dirty", 2),
            F("DirectLPI", 3),
            F("Last", 4),
            F("DPGS", 5),
            F("MPAM", 6),
            F("RVPEID", 7),
            F("ProcessorNumber", 23, 8),
            F("CommonLPIAff", 25, 24),
            F("VSGI", 26),
            F("PPInum", 31, 27),
            F("Aff0", 39, 32),
            F("Aff1", 47, 40),
            F("Aff2", 55, 48),
            F("Aff3", 63, 56),
        ],
    ),
    Reg(0x0010, 32, "GICR_STATUSR", W1C, fields=[F("RRD", 0), F("WRD", 1), F("RWOD", 2), F("WROD", 3)]),
    Reg(
        0x0014,
        32,
        "GICR_WAKER",
        security="secure",
        fields=[
            F("Sleep", 0),
            F("ProcessorSleep", 1, reset=1),
            F("ChildrenAsleep", 2, access=RO, reset=1),
            F("Quiescent", 31, access=RO),
        ],
        doc="Sleep and Quiescent are Arm's own. RAZ/WI for Non-secure accesses unless GICD_CTLR.DS is 1.",
    ),
    Reg(0x0018, 32, "GICR_MPAMIDR", RO, fields=[F("PARTIDmax", 15, 0), F("PMGmax", 23, 16)]),
    Reg(0x001C, 32, "GICR_PARTIDR", fields=[F("PARTID", 15, 0), F("PMG", 23, 16)]),
    Reg(0x0040, 64, "GICR_SETLPIR", WO, fields=[F("pINTID", 31, 0)], doc="Only if TYPER.DirectLPI is 1."),
    Reg(0x0048, 64, "GICR_CLRLPIR", WO, fields=[F("pINTID", 31, 0)], doc="Only if TYPER.DirectLPI is 1."),
    Reg(
        0x0070,
        64,
        "GICR_PROPBASER",
        fields=[
            F("IDbits", 4, 0),
            F("InnerCache", 9, 7),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 12),
            F("OuterCache", 58, 56),
        ],
    ),
    Reg(
        0x0078,
        64,
        "GICR_PENDBASER",
        fields=[
            F("InnerCache", 9, 7),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 16),
            F("OuterCache", 58, 56),
            F("PTZ", 62, access=WO),
        ],
    ),
    Reg(0x00A0, 64, "GICR_INVLPIR", WO, fields=[F("INTID", 31, 0), F("vPEID", 47, 32), F("V", 63)]),
    Reg(0x00B0, 64, "GICR_INVALLR", WO, fields=[F("vPEID", 47, 32), F("V", 63)]),
    Reg(0x00C0, 32, "GICR_SYNCR", RO, fields=[F("Busy", 0)]),
    *id_registers("GICR", PART),
]


EDGE = [F(f"Int_config{n}", 2 * n + 1, doc="1 edge-triggered, 0 level-sensitive") for n in range(16)]

SGI_FRAME = [
    Reg(SGI + 0x0080, 32, "GICR_IGROUPR0", security="secure", doc="1 is Group 1."),
    Reg(SGI + 0x0084, 32, "GICR_IGROUPRnE", count=2, first=1, security="secure"),
    Reg(SGI + 0x0100, 32, "GICR_ISENABLER0", W1S),
    Reg(SGI + 0x0104, 32, "GICR_ISENABLERnE", W1S, count=2, first=1),
    Reg(SGI + 0x0180, 32, "GICR_ICENABLER0", W1C, shares="GICR_ISENABLER0"),
    Reg(SGI + 0x0184, 32, "GICR_ICENABLERnE", W1C, count=2, first=1, shares="GICR_ISENABLERnE"),
    Reg(SGI + 0x0200, 32, "GICR_ISPENDR0", W1S),
    Reg(SGI + 0x0204, 32, "GICR_ISPENDRnE", W1S, count=2, first=1),
    Reg(SGI + 0x0280, 32, "GICR_ICPENDR0", W1C, shares="GICR_ISPENDR0"),
    Reg(SGI + 0x0284, 32, "GICR_ICPENDRnE", W1C, count=2, first=1, shares="GICR_ISPENDRnE"),
    Reg(SGI + 0x0300, 32, "GICR_ISACTIVER0", W1S),
    Reg(SGI + 0x0304, 32, "GICR_ISACTIVERnE", W1S, count=2, first=1),
    Reg(SGI + 0x0380, 32, "GICR_ICACTIVER0", W1C, shares="GICR_ISACTIVER0"),
    Reg(SGI + 0x0384, 32, "GICR_ICACTIVERnE", W1C, count=2, first=1, shares="GICR_ISACTIVERnE"),
    Reg(SGI + 0x0400, 32, "GICR_IPRIORITYR", count=8, lanes=True, doc="One byte per INTID."),
    Reg(SGI + 0x0420, 32, "GICR_IPRIORITYRnE", count=16, first=8, lanes=True),
    Reg(SGI + 0x0C00, 32, "GICR_ICFGR0", RO, reset=0xAAAA_AAAA, doc="SGIs are always edge-triggered."),
    Reg(SGI + 0x0C04, 32, "GICR_ICFGR1", fields=EDGE),
    Reg(SGI + 0x0C08, 32, "GICR_ICFGRnE", count=4, first=2, fields=EDGE),
    Reg(SGI + 0x0D00, 32, "GICR_IGRPMODR0", security="secure"),
    Reg(SGI + 0x0D04, 32, "GICR_IGRPMODRnE", count=2, first=1, security="secure"),
    Reg(SGI + 0x0E00, 32, "GICR_NSACR", security="secure", doc="Two bits per SGI."),
    Reg(SGI + 0x0F80, 32, "GICR_INMIR0", doc="Only with GICD_TYPER.NMI."),
    Reg(SGI + 0x0F84, 32, "GICR_INMIRnE", count=2, first=1),
]

VLPI_FRAME_V41 = [
    Reg(
        VLPI + 0x0070,
        64,
        "GICR_VPROPBASER",
        fields=[
            F("Size", 6, 0, doc="pages - 1"),
            F("InnerCache", 9, 7),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 12),
            F("Z", 52, doc="The table is all zero."),
            F("Page_Size", 54, 53),
            F("Indirect", 55),
            F("OuterCache", 58, 56),
            F("Entry_Size", 61, 59, RO, doc="64-bit words - 1"),
            F("Valid", 63),
        ],
    ),
    Reg(
        VLPI + 0x0078,
        64,
        "GICR_VPENDBASER",
        fields=[
            F("vPEID", 15, 0),
            F("VGrp1En", 58),
            F("VGrp0En", 59),
            F("Dirty", 60, access=RO),
            F("PendingLast", 61),
            F("Doorbell", 62),
            F("Valid", 63),
        ],
    ),
    Reg(VLPI + 0x0080, 32, "GICR_VSGIR", WO, fields=[F("vPEID", 15, 0)]),
    Reg(VLPI + 0x0088, 32, "GICR_VSGIPENDR", RO, fields=[F("Pending", 15, 0), F("Busy", 31)]),
]

VLPI_FRAME_V40 = [
    Reg(
        VLPI + 0x0070,
        64,
        "GICR_VPROPBASER",
        fields=[
            F("IDbits", 4, 0),
            F("InnerCache", 9, 7),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 12),
            F("OuterCache", 58, 56),
        ],
    ),
    Reg(
        VLPI + 0x0078,
        64,
        "GICR_VPENDBASER",
        fields=[
            F("InnerCache", 9, 7),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 16),
            F("OuterCache", 58, 56),
            F("Dirty", 60, access=RO),
            F("PendingLast", 61),
            F("IDAI", 62),
            F("Valid", 63),
        ],
    ),
]

SOURCE = "IHI 0069H chapter 12"
FRAMES = {"RD_base": 0, "SGI_base": SGI}
FRAMES_V4 = {**FRAMES, "VLPI_base": VLPI, "reserved": RESERVED}

GICR = Block("GICR", 0x4_0000, RD_FRAME + SGI_FRAME + VLPI_FRAME_V41, source=SOURCE, frames=FRAMES_V4)
GICR_V40 = Block("GICR", 0x4_0000, RD_FRAME + SGI_FRAME + VLPI_FRAME_V40, source=SOURCE, frames=FRAMES_V4)
GICR_V3 = Block("GICR", 0x2_0000, RD_FRAME + SGI_FRAME, source=SOURCE, frames=FRAMES)

TABLES = {"3": GICR_V3, "4.0": GICR_V40, "4.1": GICR}
"""By the machine's ``gic_version``; the block's size is the stride from one Redistributor to the next."""
