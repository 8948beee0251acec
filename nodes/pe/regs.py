"""System registers of the GIC CPU interface: names, encodings, access, fields.

One table, in the manual's names. Every ICV_ register shares the encoding of its ICC_ twin, so only ICC_ names
are here; which of the two an access reaches is decided in ``access.py``.

Source: IHI 0069H chapter 12 (AArch64 System registers); ESR_ELx ISS for EC 0x18: Arm ARM, ESR_ELx.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = [
    "EC_SYSREG", "BY_ENCODING", "BY_NAME", "REGISTERS", "Bits", "Kind", "SysReg", "decode", "encoding",
    "esr_for_sysreg", "iss_for_sysreg", "lookup",
]  # fmt: skip

EC_SYSREG: Final = 0x18
"""ESR_ELx.EC of a trapped MSR, MRS or System instruction in AArch64 state."""


class Kind(Enum):
    """The group of registers that one set of access rules covers (IHI 0069H 12.2, accessibility)."""

    GROUP0 = "group0"  # FMO, ICH_HCR_EL2.TALL0, SCR_EL3.FIQ
    GROUP1 = "group1"  # IMO, ICH_HCR_EL2.TALL1, SCR_EL3.IRQ
    COMMON = "common"  # FMO or IMO, ICH_HCR_EL2.TC, both bits of SCR_EL3
    DIR = "dir"  # as COMMON, and ICH_HCR_EL2.TDIR
    SGI = "sgi"  # as COMMON, but there is no virtual twin: EL1 traps
    SRE_EL1 = "sre_el1"
    SRE_EL2 = "sre_el2"
    EL3 = "el3"
    ICH = "ich"
    ABSENT = "absent"  # an encoding of an extension that this interface does not have: UNDEFINED


class Bits(NamedTuple):
    """One field: bits ``hi`` to ``lo``, both included."""

    name: str
    hi: int
    lo: int


class SysReg(NamedTuple):
    """One System register; ``access`` is "rw", "ro" or "wo", ``number`` its place in an array (AP1R<n>: n)."""

    name: str
    op0: int
    op1: int
    crn: int
    crm: int
    op2: int
    access: str
    kind: Kind
    number: int = 0
    fields: tuple[Bits, ...] = ()


def _f(*spec: str) -> tuple[Bits, ...]:
    """Fields from texts such as "INTID 23:0" and "En 0"."""
    fields = []
    for text in spec:
        name, where = text.split()
        hi, _, lo = where.partition(":")
        fields.append(Bits(name, int(hi), int(lo or hi)))
    return tuple(fields)


_INTID = _f("INTID 23:0")
_PRIORITY = _f("Priority 7:0")
_BINARY_POINT = _f("BinaryPoint 2:0")
_ENABLE = _f("Enable 0")
_ACTIVE = _f("P 31:0")
_SRE = ("SRE 0", "DFB 1", "DIB 2")
_SGI = _f("TargetList 15:0", "Aff1 23:16", "INTID 27:24", "Aff2 39:32", "IRM 40", "RS 47:44", "Aff3 55:48")
_CTLR_ID = ("PMHE 6", "PRIbits 10:8", "IDbits 13:11", "SEIS 14", "A3V 15")
_STATUS = _f("Status 15:0")
_LR = _f(
    "vINTID 31:0", "pINTID 44:32", "EOI 41", "Priority 55:48", "NMI 59", "Group 60", "HW 61", "State 63:62"
)  # EOI is a field of its own when HW=0, a bit of pINTID when HW=1
_ICH_HCR = _f(
    "En 0", "UIE 1", "LRENPIE 2", "NPIE 3", "VGrp0EIE 4", "VGrp0DIE 5", "VGrp1EIE 6", "VGrp1DIE 7",
    "vSGIEOICount 8", "TC 10", "TALL0 11", "TALL1 12", "TSEI 13", "TDIR 14", "DVIM 15", "EOIcount 31:27",
)  # fmt: skip
_ICH_VTR = _f(
    "ListRegs 4:0", "DVIM 18", "TDS 19", "nV4 20", "A3V 21", "SEIS 22", "IDbits 25:23", "PREbits 28:26",
    "PRIbits 31:29",
)  # fmt: skip
_ICH_MISR = _f("EOI 0", "U 1", "LRENP 2", "NP 3", "VGrp0E 4", "VGrp0D 5", "VGrp1E 6", "VGrp1D 7")
_ICH_VMCR = _f(
    "VENG0 0", "VENG1 1", "VAckCtl 2", "VFIQEn 3", "VCBPR 4", "VEOIM 9", "VBPR1 20:18", "VBPR0 23:21", "VPMR 31:24"
)

_G0, _G1, _COMMON = Kind.GROUP0, Kind.GROUP1, Kind.COMMON

REGISTERS: Final[tuple[SysReg, ...]] = (
    SysReg("ICC_PMR_EL1", 3, 0, 4, 6, 0, "rw", _COMMON, 0, _PRIORITY),
    SysReg("ICC_IAR0_EL1", 3, 0, 12, 8, 0, "ro", _G0, 0, _INTID),
    SysReg("ICC_EOIR0_EL1", 3, 0, 12, 8, 1, "wo", _G0, 0, _INTID),
    SysReg("ICC_HPPIR0_EL1", 3, 0, 12, 8, 2, "ro", _G0, 0, _INTID),
    SysReg("ICC_BPR0_EL1", 3, 0, 12, 8, 3, "rw", _G0, 0, _BINARY_POINT),
    *(SysReg(f"ICC_AP0R{n}_EL1", 3, 0, 12, 8, 4 + n, "rw", _G0, n, _ACTIVE) for n in range(4)),
    *(SysReg(f"ICC_AP1R{n}_EL1", 3, 0, 12, 9, n, "rw", _G1, n, _ACTIVE) for n in range(4)),
    SysReg("ICC_NMIAR1_EL1", 3, 0, 12, 9, 5, "ro", Kind.ABSENT, 0, _INTID),
    SysReg("ICC_DIR_EL1", 3, 0, 12, 11, 1, "wo", Kind.DIR, 0, _INTID),
    SysReg("ICC_RPR_EL1", 3, 0, 12, 11, 3, "ro", _COMMON, 0, _PRIORITY),
    SysReg("ICC_SGI1R_EL1", 3, 0, 12, 11, 5, "wo", Kind.SGI, 0, _SGI),
    SysReg("ICC_ASGI1R_EL1", 3, 0, 12, 11, 6, "wo", Kind.SGI, 0, _SGI),
    SysReg("ICC_SGI0R_EL1", 3, 0, 12, 11, 7, "wo", Kind.SGI, 0, _SGI),
    SysReg("ICC_IAR1_EL1", 3, 0, 12, 12, 0, "ro", _G1, 0, _INTID),
    SysReg("ICC_EOIR1_EL1", 3, 0, 12, 12, 1, "wo", _G1, 0, _INTID),
    SysReg("ICC_HPPIR1_EL1", 3, 0, 12, 12, 2, "ro", _G1, 0, _INTID),
    SysReg("ICC_BPR1_EL1", 3, 0, 12, 12, 3, "rw", _G1, 0, _BINARY_POINT),
    SysReg("ICC_CTLR_EL1", 3, 0, 12, 12, 4, "rw", _COMMON, 0,
           _f("CBPR 0", "EOImode 1", *_CTLR_ID, "RSS 18", "ExtRange 19")),
    SysReg("ICC_SRE_EL1", 3, 0, 12, 12, 5, "rw", Kind.SRE_EL1, 0, _f(*_SRE)),
    SysReg("ICC_IGRPEN0_EL1", 3, 0, 12, 12, 6, "rw", _G0, 0, _ENABLE),
    SysReg("ICC_IGRPEN1_EL1", 3, 0, 12, 12, 7, "rw", _G1, 0, _ENABLE),
    *(SysReg(f"ICH_AP0R{n}_EL2", 3, 4, 12, 8, n, "rw", Kind.ICH, n, _ACTIVE) for n in range(4)),
    *(SysReg(f"ICH_AP1R{n}_EL2", 3, 4, 12, 9, n, "rw", Kind.ICH, n, _ACTIVE) for n in range(4)),
    SysReg("ICC_SRE_EL2", 3, 4, 12, 9, 5, "rw", Kind.SRE_EL2, 0, _f(*_SRE, "Enable 3")),
    SysReg("ICH_HCR_EL2", 3, 4, 12, 11, 0, "rw", Kind.ICH, 0, _ICH_HCR),
    SysReg("ICH_VTR_EL2", 3, 4, 12, 11, 1, "ro", Kind.ICH, 0, _ICH_VTR),
    SysReg("ICH_MISR_EL2", 3, 4, 12, 11, 2, "ro", Kind.ICH, 0, _ICH_MISR),
    SysReg("ICH_EISR_EL2", 3, 4, 12, 11, 3, "ro", Kind.ICH, 0, _STATUS),
    SysReg("ICH_ELRSR_EL2", 3, 4, 12, 11, 5, "ro", Kind.ICH, 0, _STATUS),
    SysReg("ICH_VMCR_EL2", 3, 4, 12, 11, 7, "rw", Kind.ICH, 0, _ICH_VMCR),
    *(SysReg(f"ICH_LR{n}_EL2", 3, 4, 12, 12 + n // 8, n % 8, "rw", Kind.ICH, n, _LR) for n in range(16)),
    SysReg("ICC_CTLR_EL3", 3, 6, 12, 12, 4, "rw", Kind.EL3, 0,
           _f("CBPR_EL1S 0", "CBPR_EL1NS 1", "EOImode_EL3 2", "EOImode_EL1S 3", "EOImode_EL1NS 4", "RM 5",
              *_CTLR_ID, "nDS 17", "RSS 18", "ExtRange 19")),
    SysReg("ICC_SRE_EL3", 3, 6, 12, 12, 5, "rw", Kind.EL3, 0, _f(*_SRE, "Enable 3")),
    SysReg("ICC_IGRPEN1_EL3", 3, 6, 12, 12, 7, "rw", Kind.EL3, 0, _f("EnableGrp1NS 0", "EnableGrp1S 1")),
)  # fmt: skip

BY_NAME: Final[dict[str, SysReg]] = {reg.name: reg for reg in REGISTERS}


def encoding(reg: SysReg) -> tuple[int, int, int, int, int]:
    """``(op0, op1, CRn, CRm, op2)`` as in MRS and MSR."""
    return reg.op0, reg.op1, reg.crn, reg.crm, reg.op2


BY_ENCODING: Final[dict[tuple[int, int, int, int, int], SysReg]] = {encoding(reg): reg for reg in REGISTERS}
"""Registers by ``(op0, op1, CRn, CRm, op2)``; what is not here is no register of the GIC CPU interface."""


def lookup(name: str) -> SysReg:
    """The register of that name. ``ValueError`` names the closest ones when there is none."""
    try:
        return BY_NAME[name]
    except KeyError:
        near = [known for known in BY_NAME if known.split("_")[1][:3] == name.partition("_")[2][:3]]
        hint = f"; did you mean {', '.join(near[:4])}" if near else "; see nodes/pe/regs.py for the table"
        raise ValueError(f"name must be a register of the GIC CPU interface, not {name!r}{hint}") from None


def iss_for_sysreg(name: str, rt: int, is_read: bool) -> int:
    """ISS of ESR_ELx for a trapped access to ``name`` through general register ``rt`` (0 to 31).

    Op0 [21:20], Op2 [19:17], Op1 [16:14], CRn [13:10], Rt [9:5], CRm [4:1], Direction [0] (1 = read).
    """
    if not 0 <= rt <= 31:
        raise ValueError(f"rt must be 0 to 31, not {rt!r}")
    reg = lookup(name)
    where = reg.op0 << 20 | reg.op2 << 17 | reg.op1 << 14 | reg.crn << 10 | reg.crm << 1
    return where | rt << 5 | int(is_read)


def esr_for_sysreg(name: str, rt: int, is_read: bool) -> int:
    """ESR_ELx of a trapped access: EC 0x18, IL 1 and the ISS (ICC_SGI1R_EL1 from X0: 0x623A3016)."""
    return EC_SYSREG << 26 | 1 << 25 | iss_for_sysreg(name, rt, is_read)


def decode(name: str, value: int) -> dict[str, int]:
    """Field name to value, for people and logs."""
    return {f.name: value >> f.lo & ((1 << f.hi - f.lo + 1) - 1) for f in lookup(name).fields}
