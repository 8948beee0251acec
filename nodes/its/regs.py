"""Registers of an ITS: control, translation and vSGI frames (IHI 0069H chapter 12; GIC-700 ID values).

One table serves all GIC versions: bases stay 256 KB apart, and the model says by ``Bank.absent`` that GITS_SGIR or the
upper GITS_BASERs are missing. TYPER, MPIDR and GITS_BASER<n>'s Type and Entry_Size follow from parameters: zero here,
set by ``Bank.configure``.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg
from nodes.arch.idregs import GIC700_IIDR, IIDR_FIELDS, id_registers

RO, WO, W1C = Access.RO, Access.WO, Access.W1C

TRANSLATION = 0x1_0000
VSGI = 0x2_0000

PART = 0x494

BASER_DEVICES = 0x0107_0000_0000_0000
"""GITS_BASER0 at reset: Type 1 (devices), entries of 8 bytes."""
BASER_COLLECTIONS = 0x0401_0000_0000_0000
"""GITS_BASER1 at reset: Type 4 (collections), entries of 2 bytes."""

QUEUE_OFFSET = F("Offset", 19, 5, doc="Bytes / 32 into the command queue.")

CONTROL_FRAME = [
    Reg(
        0x0000,
        32,
        "GITS_CTLR",
        fields=[
            F("Enabled", 0),
            F("ImDe", 1),
            F("ITS_Number", 7, 4),
            F("UMSIirq", 8),
            F("Quiescent", 31, access=RO, reset=1),
        ],
    ),
    Reg(0x0004, 32, "GITS_IIDR", RO, reset=GIC700_IIDR, fields=IIDR_FIELDS),
    Reg(
        0x0008,
        64,
        "GITS_TYPER",
        RO,
        fields=[
            F("Physical", 0),
            F("Virtual", 1),
            F("CCT", 2),
            F("ITT_entry_size", 7, 4, doc="bytes - 1"),
            F("ID_bits", 12, 8, doc="EventID bits - 1"),
            F("Devbits", 17, 13, doc="DeviceID bits - 1"),
            F("SEIS", 18),
            F("PTA", 19),
            F("HCC", 31, 24),
            F("CIDbits", 35, 32, doc="ICID bits - 1"),
            F("CIL", 36),
            F("VMOVP", 37),
            F("MPAM", 38),
            F("VSGI", 39),
            F("VMAPP", 40),
            F("SVPET", 42, 41),
            F("nID", 43),
            F("UMSI", 44),
            F("UMSIirq", 45),
            F("INV", 46),
        ],
    ),
    Reg(0x0010, 32, "GITS_MPAMIDR", RO, fields=[F("PARTIDmax", 15, 0), F("PMGmax", 23, 16)]),
    Reg(0x0014, 32, "GITS_PARTIDR", fields=[F("PARTID", 15, 0), F("PMG", 23, 16)]),
    Reg(0x0018, 32, "GITS_MPIDR", RO, fields=[F("Aff1", 15, 8), F("Aff2", 23, 16), F("Aff3", 31, 24)]),
    Reg(
        0x0020,
        32,
        "GITS_FCTLR",
        modelled=False,
        fields=[
            F("CEE", 3),
            F("CGO", 6, 4),
            F("LEO", 7),
            F("AEE", 8),
            F("ICC", 16),
            F("IEC", 17),
            F("IDC", 18),
        ],
        doc="IMPLEMENTATION DEFINED, Arm GIC TRMs: function control.",
    ),
    Reg(0x0028, 64, "GITS_OPR", modelled=False, doc="IMPLEMENTATION DEFINED, Arm GIC TRMs: operations."),
    Reg(0x0030, 64, "GITS_OPSR", RO, modelled=False, doc="IMPLEMENTATION DEFINED, Arm GIC TRMs."),
    Reg(
        0x0040,
        32,
        "GITS_STATUSR",
        W1C,
        fields=[
            F("RRD", 0),
            F("WRD", 1),
            F("RWOD", 2),
            F("WROD", 3),
            F("UMSI", 4),
            F("Overflow", 5),
            F("Syndrome", 9, 6, RO),
        ],
    ),
    Reg(0x0048, 64, "GITS_UMSIR", RO, fields=[F("EventID", 31, 0), F("DeviceID", 63, 32)]),
    Reg(
        0x0080,
        64,
        "GITS_CBASER",
        fields=[
            F("Size", 7, 0, doc="4 KB pages - 1"),
            F("Shareability", 11, 10),
            F("Physical_Address", 51, 12),
            F("OuterCache", 55, 53),
            F("InnerCache", 61, 59),
            F("Valid", 63),
        ],
    ),
    Reg(0x0088, 64, "GITS_CWRITER", fields=[F("Retry", 0), QUEUE_OFFSET]),
    Reg(0x0090, 64, "GITS_CREADR", RO, fields=[F("Stalled", 0), QUEUE_OFFSET]),
    Reg(
        0x0100,
        64,
        "GITS_BASER",
        count=8,
        fields=[
            F("Size", 7, 0, doc="pages - 1"),
            F("Page_Size", 9, 8, doc="0 4 KB, 1 16 KB, 2 64 KB"),
            F("Shareability", 11, 10),
            F("Physical_Address", 47, 12),
            F("Entry_Size", 52, 48, RO, doc="bytes - 1"),
            F("OuterCache", 55, 53),
            F("Type", 58, 56, RO, doc="0 none, 1 devices, 2 vPEs, 4 collections"),
            F("InnerCache", 61, 59),
            F("Indirect", 62),
            F("Valid", 63),
        ],
    ),
    Reg(0xF000, 32, "GITS_CFGID", RO, modelled=False, doc="IMPLEMENTATION DEFINED, Arm GIC TRMs."),
    *id_registers("GITS", PART),
]

TRANSLATION_FRAME = [
    Reg(
        TRANSLATION + 0x0040,
        32,
        "GITS_TRANSLATER",
        WO,
        sizes=(2, 4),
        fields=[F("EventID", 31, 0)],
        doc="The DeviceID comes with the bus transaction.",
    ),
]

VSGI_FRAME = [
    Reg(
        VSGI + 0x0020,
        64,
        "GITS_SGIR",
        WO,
        halves=False,
        fields=[F("vINTID", 3, 0), F("vPEID", 47, 32)],
        doc="Only if TYPER.VSGI is 1.",
    ),
]

GITS = Block(
    "GITS",
    0x4_0000,
    CONTROL_FRAME + TRANSLATION_FRAME + VSGI_FRAME,
    source="IHI 0069H chapter 12",
    frames={"control": 0, "translation": TRANSLATION, "vSGI": VSGI, "reserved": 0x3_0000},
)
