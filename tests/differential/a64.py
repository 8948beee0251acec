"""A very small A64 assembler: what the agent inside QEMU is made of (Arm ARM C6.2, encodings of single instructions).

Registers are numbers 0 to 30; 31 is XZR or SP as the instruction has it. Every function gives one or more 32-bit words.
"""

from __future__ import annotations

import struct

XZR = 31

SYSREGS: dict[str, tuple[int, int, int, int, int]] = {  # op0, op1, CRn, CRm, op2
    "VBAR_EL2": (3, 4, 12, 0, 0),
    "HCR_EL2": (3, 4, 1, 1, 0),
    "ELR_EL2": (3, 4, 4, 0, 1),
    "SPSR_EL2": (3, 4, 4, 0, 0),
    "ISR_EL1": (3, 0, 12, 1, 0),
    "CNTV_CTL_EL0": (3, 3, 14, 3, 1),
    "ICC_PMR_EL1": (3, 0, 4, 6, 0),
    "ICC_IAR0_EL1": (3, 0, 12, 8, 0),
    "ICC_EOIR0_EL1": (3, 0, 12, 8, 1),
    "ICC_HPPIR0_EL1": (3, 0, 12, 8, 2),
    "ICC_BPR0_EL1": (3, 0, 12, 8, 3),
    "ICC_AP0R0_EL1": (3, 0, 12, 8, 4),
    "ICC_AP1R0_EL1": (3, 0, 12, 9, 0),
    "ICC_DIR_EL1": (3, 0, 12, 11, 1),
    "ICC_RPR_EL1": (3, 0, 12, 11, 3),
    "ICC_SGI1R_EL1": (3, 0, 12, 11, 5),
    "ICC_ASGI1R_EL1": (3, 0, 12, 11, 6),
    "ICC_SGI0R_EL1": (3, 0, 12, 11, 7),
    "ICC_IAR1_EL1": (3, 0, 12, 12, 0),
    "ICC_EOIR1_EL1": (3, 0, 12, 12, 1),
    "ICC_HPPIR1_EL1": (3, 0, 12, 12, 2),
    "ICC_BPR1_EL1": (3, 0, 12, 12, 3),
    "ICC_CTLR_EL1": (3, 0, 12, 12, 4),
    "ICC_SRE_EL1": (3, 0, 12, 12, 5),
    "ICC_IGRPEN0_EL1": (3, 0, 12, 12, 6),
    "ICC_IGRPEN1_EL1": (3, 0, 12, 12, 7),
    "ICH_AP0R0_EL2": (3, 4, 12, 8, 0),
    "ICH_AP1R0_EL2": (3, 4, 12, 9, 0),
    "ICH_HCR_EL2": (3, 4, 12, 11, 0),
    "ICH_VTR_EL2": (3, 4, 12, 11, 1),
    "ICH_MISR_EL2": (3, 4, 12, 11, 2),
    "ICH_EISR_EL2": (3, 4, 12, 11, 3),
    "ICH_ELRSR_EL2": (3, 4, 12, 11, 5),
    "ICH_VMCR_EL2": (3, 4, 12, 11, 7),
    **{f"ICH_LR{n}_EL2": (3, 4, 12, 12, n) for n in range(4)},
}

ERET = 0xD69F03E0
ISB = 0xD5033FDF
DSB = 0xD5033F9F
YIELD = 0xD503203F
HVC = 0xD4000002
SMC = 0xD4000003
BRANCH_SELF = 0x14000000


def load_immediate(rd: int, value: int) -> list[int]:
    """MOVZ and as many MOVKs as `value` (64 bits) needs."""
    words = [0xD2800000 | (value & 0xFFFF) << 5 | rd]
    for half in (1, 2, 3):
        part = value >> 16 * half & 0xFFFF
        if part:
            words.append(0xF2800000 | half << 21 | part << 5 | rd)
    return words


def load(rt: int, rn: int, size: int) -> int:
    """LDRB, LDRH, LDR Wt or Xt from [Xn]."""
    return {1: 0x39400000, 2: 0x79400000, 4: 0xB9400000, 8: 0xF9400000}[size] | rn << 5 | rt


def store(rt: int, rn: int, size: int) -> int:
    """STRB, STRH, STR Wt or Xt to [Xn]."""
    return {1: 0x39000000, 2: 0x79000000, 4: 0xB9000000, 8: 0xF9000000}[size] | rn << 5 | rt


def push(rt: int, rn: int) -> int:
    """STR Xt, [Xn], #8."""
    return 0xF8000400 | 8 << 12 | rn << 5 | rt


def _system(name: str) -> int:
    op0, op1, crn, crm, op2 = SYSREGS[name]
    return (op0 - 2) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5


def mrs(rt: int, name: str) -> int:
    """MRS Xt, name."""
    return 0xD5300000 | _system(name) | rt


def msr(name: str, rt: int) -> int:
    """MSR name, Xt."""
    return 0xD5100000 | _system(name) | rt


def move(rd: int, rm: int) -> int:
    """MOV Xd, Xm."""
    return 0xAA0003E0 | rm << 16 | rd


def branch_register(rn: int) -> int:
    """BR Xn."""
    return 0xD61F0000 | rn << 5


def call_register(rn: int) -> int:
    """BLR Xn."""
    return 0xD63F0000 | rn << 5


def ret(rn: int = 30) -> int:
    """RET Xn."""
    return 0xD65F0000 | rn << 5


def branch(words: int) -> int:
    """B, `words` instructions from here (negative: back)."""
    return 0x14000000 | words & 0x3FFFFFF


def branch_if_zero(rt: int, words: int) -> int:
    """CBZ Xt."""
    return 0xB4000000 | (words & 0x7FFFF) << 5 | rt


def branch_if_not_zero(rt: int, words: int) -> int:
    """CBNZ Xt."""
    return 0xB5000000 | (words & 0x7FFFF) << 5 | rt


def assemble(words: list[int]) -> bytes:
    """Instructions are little-endian."""
    return struct.pack(f"<{len(words)}I", *words)
