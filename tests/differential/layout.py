"""Where things are in memory, the same on both sides, and the machine's registers by name.

Addresses of devices: QEMU's `virt` board. Registers: IHI 0069H chapter 12.
"""

from __future__ import annotations

CPUS = 2
DEVICES = (0, 8, 16)
"""DeviceIDs: 0 is the CPUs' own (what a CPU writes to GITS_TRANSLATER), the others PCI functions 00:01.0 and 00:02.0."""
EVENTS = 6
COLLECTIONS = 4
VPES = 3
LPI_BASE = 8192
LPIS = 64
"""LPIs and vLPIs whose pending state is compared; programs use the first ones."""
SPI = 32
LINE = 33
"""INTID of the UART."""
SPIS = 8

GICD, GITS, GICR = 0x0800_0000, 0x0808_0000, 0x080A_0000
TRANSLATER = GITS + 0x1_0040
UART = 0x0900_0000
PCI_MMIO, ECAM = 0x1000_0000, 0x40_1000_0000

AGENT, PROGRAM0, PROGRAM1, MAILBOX, LOG = 0x4010_0000, 0x4020_0000, 0x4028_0000, 0x4030_0000, 0x4040_0000

TABLES = 0x4100_0000
QUEUE = TABLES
QUEUE_BYTES = 0x1000
DEVICE_TABLE, COLLECTION_TABLE, VPE_TABLE = TABLES + 0x1_0000, TABLES + 0x2_0000, TABLES + 0x3_0000
LEVEL1 = TABLES + 0xF_0000
"""Level 1 of two-level tables, 64 KiB apart; their level 2 is where the flat table would be."""
ITT = TABLES + 0x5_0000
CONFIG = TABLES + 0x6_0000
PENDING = TABLES + 0x7_0000
VCONFIG = TABLES + 0x9_0000
VPENDING = TABLES + 0xC_0000
TABLES_END = TABLES + 0x12_0000

STEP_64K = 0x1_0000
VALID = 1 << 63
INDIRECT = 1 << 62


def itt(device_id: int) -> int:
    """The interrupt translation table of a device."""
    return ITT + device_id * 0x100


def stride(version: str) -> int:
    """Between two redistributors."""
    return 0x2_0000 if version == "3" else 0x4_0000


def frame(block: str, cpu: int, version: str) -> int:
    """Base address of "gicd", "gicr" (of a CPU) or "gits"."""
    return {"gicd": GICD, "gicr": GICR + cpu * stride(version), "gits": GITS}[block]


REGISTERS: dict[str, tuple[str, int, int]] = {  # name: block, offset, bytes
    "GICD_CTLR": ("gicd", 0x0, 4),
    "GICD_IGROUPR1": ("gicd", 0x84, 4),
    "GICD_ISENABLER1": ("gicd", 0x104, 4),
    "GICD_ICENABLER1": ("gicd", 0x184, 4),
    "GICD_ISPENDR1": ("gicd", 0x204, 4),
    "GICD_ICPENDR1": ("gicd", 0x284, 4),
    "GICD_ISACTIVER1": ("gicd", 0x304, 4),
    "GICD_ICACTIVER1": ("gicd", 0x384, 4),
    **{f"GICD_IPRIORITYR{8 + n}": ("gicd", 0x420 + 4 * n, 4) for n in range(2)},
    "GICD_ICFGR2": ("gicd", 0xC08, 4),
    **{f"GICD_IROUTER{SPI + n}": ("gicd", 0x6000 + 8 * (SPI + n), 8) for n in range(SPIS)},
    "GICR_CTLR": ("gicr", 0x0, 4),
    "GICR_WAKER": ("gicr", 0x14, 4),
    "GICR_PROPBASER": ("gicr", 0x70, 8),
    "GICR_PENDBASER": ("gicr", 0x78, 8),
    "GICR_IGROUPR0": ("gicr", 0x1_0080, 4),
    "GICR_ISENABLER0": ("gicr", 0x1_0100, 4),
    "GICR_ICENABLER0": ("gicr", 0x1_0180, 4),
    "GICR_ISPENDR0": ("gicr", 0x1_0200, 4),
    "GICR_ICPENDR0": ("gicr", 0x1_0280, 4),
    "GICR_ISACTIVER0": ("gicr", 0x1_0300, 4),
    "GICR_ICACTIVER0": ("gicr", 0x1_0380, 4),
    **{f"GICR_IPRIORITYR{n}": ("gicr", 0x1_0400 + 4 * n, 4) for n in range(8)},
    "GICR_ICFGR1": ("gicr", 0x1_0C04, 4),
    "GICR_VPROPBASER": ("gicr", 0x2_0070, 8),
    "GICR_VPENDBASER": ("gicr", 0x2_0078, 8),
    "GITS_CTLR": ("gits", 0x0, 4),
    "GITS_CBASER": ("gits", 0x80, 8),
    "GITS_CWRITER": ("gits", 0x88, 8),
    "GITS_CREADR": ("gits", 0x90, 8),
    **{f"GITS_BASER{n}": ("gits", 0x100 + 8 * n, 8) for n in range(3)},
    # Parts of registers, for writes.
    "GICD_IPRIORITYR8[15:8]": ("gicd", 0x421, 1),
    "GICD_IPRIORITYR9[31:24]": ("gicd", 0x427, 1),
    "GICR_IPRIORITYR0[7:0]": ("gicr", 0x1_0400, 1),
    "GICR_IPRIORITYR6[31:24]": ("gicr", 0x1_041B, 1),
    "GICD_IROUTER33[31:0]": ("gicd", 0x6108, 4),
    "GICD_IROUTER33[63:32]": ("gicd", 0x610C, 4),
    "GITS_CBASER[31:0]": ("gits", 0x80, 4),
    "GITS_CBASER[63:32]": ("gits", 0x84, 4),
}

UNSEEN = ("ICENABLER", "ICPENDR", "ICACTIVER", "[")
"""Registers that read as their setting twin does, and parts of registers."""

EL2_REGISTERS = (
    "ICC_PMR_EL1", "ICC_BPR0_EL1", "ICC_BPR1_EL1", "ICC_CTLR_EL1", "ICC_IGRPEN0_EL1", "ICC_IGRPEN1_EL1",
    "ICC_AP0R0_EL1", "ICC_AP1R0_EL1", "ICC_HPPIR0_EL1", "ICC_HPPIR1_EL1", "ICC_RPR_EL1", "ISR_EL1",
    "ICH_HCR_EL2", "ICH_VMCR_EL2", "ICH_AP0R0_EL2", "ICH_AP1R0_EL2", "ICH_MISR_EL2", "ICH_EISR_EL2", "ICH_ELRSR_EL2",
    "ICH_LR0_EL2", "ICH_LR1_EL2", "ICH_LR2_EL2", "ICH_LR3_EL2",
)  # fmt: skip
EL1_REGISTERS = (
    "ICC_PMR_EL1", "ICC_BPR0_EL1", "ICC_BPR1_EL1", "ICC_CTLR_EL1", "ICC_IGRPEN0_EL1", "ICC_IGRPEN1_EL1",
    "ICC_AP0R0_EL1", "ICC_AP1R0_EL1", "ICC_HPPIR0_EL1", "ICC_HPPIR1_EL1", "ICC_RPR_EL1", "ISR_EL1",
)  # fmt: skip
"""Read at EL1 with HCR_EL2.IMO and FMO: the virtual twins; ISR_EL1 shows the virtual lines."""
