"""Registers of an SMMUv3, Non-secure programming interface: pages 0 and 1 (IHI 0070 chapter 6).

ID registers follow from parameters: zero here, set by ``Bank.configure``. The Secure page, the VATOS page and the
performance counters are not in the table: they are reserved, as on a part without them.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg

RO = Access.RO

PAGE1 = 0x1_0000


def _id(offset: int, name: str, *fields: tuple[str, int] | tuple[str, int, int]) -> Reg:
    return Reg(offset, 32, name, RO, fields=[F(*field) for field in fields])


ID_REGISTERS = [
    _id(
        0x0000,
        "SMMU_IDR0",
        ("S2P", 0),
        ("S1P", 1),
        ("TTF", 3, 2),
        ("COHACC", 4),
        ("BTM", 5),
        ("HTTU", 7, 6),
        ("DORMHINT", 8),
        ("HYP", 9),
        ("ATS", 10),
        ("NS1ATS", 11),
        ("ASID16", 12),
        ("MSI", 13),
        ("SEV", 14),
        ("ATOS", 15),
        ("PRI", 16),
        ("VMW", 17),
        ("VMID16", 18),
        ("CD2L", 19),
        ("VATOS", 20),
        ("TTENDIAN", 22, 21),
        ("STALL_MODEL", 25, 24),
        ("TERM_MODEL", 26),
        ("ST_LEVEL", 28, 27),
    ),
    _id(
        0x0004,
        "SMMU_IDR1",
        ("SIDSIZE", 5, 0),
        ("SSIDSIZE", 10, 6),
        ("PRIQS", 15, 11),
        ("EVENTQS", 20, 16),
        ("CMDQS", 25, 21),
        ("ATTR_PERMS_OVR", 26),
        ("ATTR_TYPES_OVR", 27),
        ("REL", 28),
        ("QUEUES_PRESET", 29),
        ("TABLES_PRESET", 30),
        ("ECMDQ", 31),
    ),
    _id(0x0008, "SMMU_IDR2", ("BA_VATOS", 9, 0)),
    _id(
        0x000C,
        "SMMU_IDR3",
        ("HAD", 2),
        ("PBHA", 3),
        ("XNX", 4),
        ("PPS", 5),
        ("MPAM", 7),
        ("FWB", 8),
        ("STT", 9),
        ("RIL", 10),
        ("BBML", 12, 11),
    ),
    Reg(0x0010, 32, "SMMU_IDR4", RO, doc="IMPLEMENTATION DEFINED."),
    _id(
        0x0014,
        "SMMU_IDR5",
        ("OAS", 2, 0),
        ("GRAN4K", 4),
        ("GRAN16K", 5),
        ("GRAN64K", 6),
        ("VAX", 11, 10),
        ("STALL_MAX", 31, 16),
    ),
    _id(
        0x0018,
        "SMMU_IIDR",
        ("Implementer", 11, 0),
        ("Revision", 15, 12),
        ("Variant", 19, 16),
        ("ProductID", 31, 20),
    ),
    _id(0x001C, "SMMU_AIDR", ("ArchMinorRev", 3, 0), ("ArchMajorRev", 7, 4)),
]

CR0 = [F("SMMUEN", 0), F("PRIQEN", 1), F("EVENTQEN", 2), F("CMDQEN", 3), F("ATSCHK", 4), F("VMW", 8, 6)]
IRQ_CTRL = [F("GERROR_IRQEN", 0), F("PRIQ_IRQEN", 1), F("EVENTQ_IRQEN", 2)]
GERROR = [
    F("CMDQ_ERR", 0),
    F("EVENTQ_ABT_ERR", 2),
    F("PRIQ_ABT_ERR", 3),
    F("MSI_CMDQ_ABT_ERR", 4),
    F("MSI_EVENTQ_ABT_ERR", 5),
    F("MSI_PRIQ_ABT_ERR", 6),
    F("MSI_GERROR_ABT_ERR", 7),
    F("SFM_ERR", 8),
]

CONTROL = [
    Reg(0x0020, 32, "SMMU_CR0", fields=CR0),
    Reg(0x0024, 32, "SMMU_CR0ACK", RO, fields=CR0),
    Reg(
        0x0028,
        32,
        "SMMU_CR1",
        fields=[
            F("QUEUE_IC", 1, 0),
            F("QUEUE_OC", 3, 2),
            F("QUEUE_SH", 5, 4),
            F("TABLE_IC", 7, 6),
            F("TABLE_OC", 9, 8),
            F("TABLE_SH", 11, 10),
        ],
    ),
    Reg(0x002C, 32, "SMMU_CR2", fields=[F("E2H", 0), F("RECINVSID", 1), F("PTM", 2)]),
    Reg(0x0040, 32, "SMMU_STATUSR", RO, fields=[F("DORMANT", 0)]),
    Reg(
        0x0044,
        32,
        "SMMU_GBPA",
        fields=[
            F("MemAttr", 3, 0),
            F("MTCFG", 4),
            F("ALLOCCFG", 11, 8),
            F("SHCFG", 13, 12),
            F("PRIVCFG", 17, 16),
            F("INSTCFG", 19, 18),
            F("ABORT", 20),
            F("Update", 31),
        ],
    ),
    Reg(0x0048, 32, "SMMU_AGBPA", doc="IMPLEMENTATION DEFINED."),
    Reg(0x0050, 32, "SMMU_IRQ_CTRL", fields=IRQ_CTRL),
    Reg(0x0054, 32, "SMMU_IRQ_CTRLACK", RO, fields=IRQ_CTRL),
    Reg(0x0060, 32, "SMMU_GERROR", RO, fields=GERROR, doc="An error is active where it differs from GERRORN."),
    Reg(0x0064, 32, "SMMU_GERRORN", fields=GERROR),
]


def _irq_cfg(offset: int, name: str) -> list[Reg]:
    """The address, data and attributes of an MSI that the SMMU itself writes."""
    attributes = [F("MemAttr", 3, 0), F("SH", 5, 4)]
    if name == "SMMU_PRIQ_IRQ_CFG":
        attributes.append(F("LO", 31, doc="Only for the last request of a group."))
    return [
        Reg(offset, 64, f"{name}0", fields=[F("ADDR", 51, 2)]),
        Reg(offset + 8, 32, f"{name}1", fields=[F("DATA", 31, 0)]),
        Reg(offset + 12, 32, f"{name}2", fields=attributes),
    ]


STREAM_TABLE = [
    Reg(0x0080, 64, "SMMU_STRTAB_BASE", fields=[F("ADDR", 51, 6), F("RA", 62)]),
    Reg(
        0x0088,
        32,
        "SMMU_STRTAB_BASE_CFG",
        fields=[F("LOG2SIZE", 5, 0), F("SPLIT", 10, 6), F("FMT", 17, 16)],
    ),
]

QUEUES = [
    Reg(0x0090, 64, "SMMU_CMDQ_BASE", fields=[F("LOG2SIZE", 4, 0), F("ADDR", 51, 5), F("RA", 62)]),
    Reg(0x0098, 32, "SMMU_CMDQ_PROD", fields=[F("WR", 19, 0)]),
    Reg(0x009C, 32, "SMMU_CMDQ_CONS", fields=[F("RD", 19, 0), F("ERR", 30, 24)]),
    Reg(0x00A0, 64, "SMMU_EVENTQ_BASE", fields=[F("LOG2SIZE", 4, 0), F("ADDR", 51, 5), F("WA", 62)]),
    Reg(PAGE1 + 0x00A8, 32, "SMMU_EVENTQ_PROD", fields=[F("WR", 19, 0), F("OVFLG", 31)]),
    Reg(PAGE1 + 0x00AC, 32, "SMMU_EVENTQ_CONS", fields=[F("RD", 19, 0), F("OVACKFLG", 31)]),
    Reg(0x00C0, 64, "SMMU_PRIQ_BASE", fields=[F("LOG2SIZE", 4, 0), F("ADDR", 51, 5), F("WA", 62)]),
    Reg(PAGE1 + 0x00C8, 32, "SMMU_PRIQ_PROD", fields=[F("WR", 19, 0), F("OVFLG", 31)]),
    Reg(PAGE1 + 0x00CC, 32, "SMMU_PRIQ_CONS", fields=[F("RD", 19, 0), F("OVACKFLG", 31)]),
]

INTERRUPTS = [
    *_irq_cfg(0x0068, "SMMU_GERROR_IRQ_CFG"),
    *_irq_cfg(0x00B0, "SMMU_EVENTQ_IRQ_CFG"),
    *_irq_cfg(0x00D0, "SMMU_PRIQ_IRQ_CFG"),
]

SMMU = Block(
    "SMMU",
    0x2_0000,
    ID_REGISTERS + CONTROL + STREAM_TABLE + QUEUES + INTERRUPTS,
    source="IHI 0070 chapter 6",
    frames={"page 0": 0, "page 1": PAGE1},
)
