"""Registers of the Distributor (IHI 0069H chapter 12; GIC-700 ID values), affinity routing enabled for good.

INTIDs 0 to 31 live in the Redistributors, so that arrays begin with the register of INTID 32; below them, and in
what affinity routing leaves without function (ITARGETSR, SGIR), the block is RAZ/WI. GICD_CTLR is stored in the
Secure view's layout; the model maps the Non-secure view, by ``Bank.secure``. TYPER, TYPER2 and, for GICv3 and
GICv4.0, IIDR and PIDR2 follow from parameters: set by ``Bank.configure``.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg
from nodes.arch.idregs import GIC700_IIDR, IIDR_FIELDS, id_registers

RO, WO, W1C, W1S, RES0 = Access.RO, Access.WO, Access.W1C, Access.W1S, Access.RES0

PART = 0x492

INTID = [F("INTID", 12, 0)]
EDGE = [F(f"Int_config{n}", 2 * n + 1, doc="1 edge-triggered, 0 level-sensitive") for n in range(16)]
AFFINITY = [F("Aff0", 7, 0), F("Aff1", 15, 8), F("Aff2", 23, 16), F("IRM", 31), F("Aff3", 39, 32)]

CONTROL = [
    Reg(
        0x0000,
        32,
        "GICD_CTLR",
        fields=[
            F("EnableGrp0", 0),
            F("EnableGrp1NS", 1, doc="Non-secure view: EnableGrp1A"),
            F("EnableGrp1S", 2),
            F("ARE_S", 4, doc="Non-secure view: ARE_NS"),
            F("ARE_NS", 5),
            F("DS", 6),
            F("E1NWF", 7),
            F("nASSGIreq", 8, doc="Only with one Security state and TYPER2.nASSGIcap; else RES0"),
            F("RWP", 31, access=RO),
        ],
    ),
    Reg(
        0x0004,
        32,
        "GICD_TYPER",
        RO,
        fields=[
            F("ITLinesNumber", 4, 0),
            F("CPUNumber", 7, 5),
            F("ESPI", 8),
            F("NMI", 9),
            F("SecurityExtn", 10),
            F("num_LPIs", 15, 11),
            F("MBIS", 16),
            F("LPIS", 17),
            F("DVIS", 18),
            F("IDbits", 23, 19),
            F("A3V", 24),
            F("No1N", 25),
            F("RSS", 26),
            F("ESPI_range", 31, 27),
        ],
    ),
    Reg(0x0008, 32, "GICD_IIDR", RO, reset=GIC700_IIDR, fields=IIDR_FIELDS),
    Reg(0x000C, 32, "GICD_TYPER2", RO, fields=[F("VID", 4, 0), F("VIL", 7), F("nASSGIcap", 8)]),
    Reg(0x0010, 32, "GICD_STATUSR", W1C, fields=[F("RRD", 0), F("WRD", 1), F("RWOD", 2), F("WROD", 3)]),
    Reg(0x0040, 32, "GICD_SETSPI_NSR", WO, fields=INTID),
    Reg(0x0048, 32, "GICD_CLRSPI_NSR", WO, fields=INTID),
    Reg(0x0050, 32, "GICD_SETSPI_SR", WO, fields=INTID, security="secure"),
    Reg(0x0058, 32, "GICD_CLRSPI_SR", WO, fields=INTID, security="secure"),
]

SPIS = [
    Reg(0x0084, 32, "GICD_IGROUPR", count=31, first=1, security="secure", doc="1 is Group 1."),
    Reg(0x0104, 32, "GICD_ISENABLER", W1S, count=31, first=1),
    Reg(0x0184, 32, "GICD_ICENABLER", W1C, count=31, first=1, shares="GICD_ISENABLER"),
    Reg(0x0204, 32, "GICD_ISPENDR", W1S, count=31, first=1),
    Reg(0x0284, 32, "GICD_ICPENDR", W1C, count=31, first=1, shares="GICD_ISPENDR"),
    Reg(0x0304, 32, "GICD_ISACTIVER", W1S, count=31, first=1),
    Reg(0x0384, 32, "GICD_ICACTIVER", W1C, count=31, first=1, shares="GICD_ISACTIVER"),
    Reg(0x0420, 32, "GICD_IPRIORITYR", count=247, first=8, lanes=True, doc="One byte per INTID."),
    Reg(0x0800, 32, "GICD_ITARGETSR", RES0, count=255, lanes=True),
    Reg(0x0C08, 32, "GICD_ICFGR", count=62, first=2, fields=EDGE),
    Reg(0x0D04, 32, "GICD_IGRPMODR", count=31, first=1, security="secure"),
    Reg(0x0E08, 32, "GICD_NSACR", count=62, first=2, security="secure", doc="Two bits per INTID."),
    Reg(0x0F00, 32, "GICD_SGIR", RES0),
    Reg(0x0F10, 32, "GICD_CPENDSGIR", RES0, count=4, lanes=True),
    Reg(0x0F20, 32, "GICD_SPENDSGIR", RES0, count=4, lanes=True),
    Reg(0x0F84, 32, "GICD_INMIR", count=31, first=1, doc="Only with TYPER.NMI."),
    Reg(0x6100, 64, "GICD_IROUTER", count=988, first=32, fields=AFFINITY),
]

EXTENDED_SPIS = [
    Reg(0x1000, 32, "GICD_IGROUPRnE", count=32, security="secure"),
    Reg(0x1200, 32, "GICD_ISENABLERnE", W1S, count=32),
    Reg(0x1400, 32, "GICD_ICENABLERnE", W1C, count=32, shares="GICD_ISENABLERnE"),
    Reg(0x1600, 32, "GICD_ISPENDRnE", W1S, count=32),
    Reg(0x1800, 32, "GICD_ICPENDRnE", W1C, count=32, shares="GICD_ISPENDRnE"),
    Reg(0x1A00, 32, "GICD_ISACTIVERnE", W1S, count=32),
    Reg(0x1C00, 32, "GICD_ICACTIVERnE", W1C, count=32, shares="GICD_ISACTIVERnE"),
    Reg(0x2000, 32, "GICD_IPRIORITYRnE", count=256, lanes=True),
    Reg(0x3000, 32, "GICD_ICFGRnE", count=64, fields=EDGE),
    Reg(0x3400, 32, "GICD_IGRPMODRnE", count=32, security="secure"),
    Reg(0x3600, 32, "GICD_NSACRnE", count=64, security="secure"),
    Reg(0x3B00, 32, "GICD_INMIRnE", count=32),
    Reg(0x8000, 64, "GICD_IROUTERnE", count=1024, fields=AFFINITY),
]

GICD = Block(
    "GICD",
    0x1_0000,
    CONTROL + SPIS + EXTENDED_SPIS + id_registers("GICD", PART),
    source="IHI 0069H chapter 12",
)
