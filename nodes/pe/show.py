"""The System registers of the GIC CPU interface as a register table, for `cosim regs CPU_INTERFACE`.

System registers have encodings, not offsets: a row's offset is op0:op1:CRn:CRm:op2 (16 bits) times eight, so that the table
is in the order of the encodings.
"""

from __future__ import annotations

from cosim.api import Access, Block, F, Reg
from nodes.pe.regs import REGISTERS, SysReg

_ACCESS = {"rw": Access.RW, "ro": Access.RO, "wo": Access.WO}


def _row(reg: SysReg) -> Reg:
    encoding = reg.op0 << 14 | reg.op1 << 11 | reg.crn << 7 | reg.crm << 3 | reg.op2
    fields = []
    top = -1
    for bits in sorted(reg.fields, key=lambda bits: bits.lo):
        if bits.lo > top:  # ICH_LR<n>_EL2.EOI is a bit of pINTID when HW is 1: the table has one of the two
            fields.append(F(bits.name, bits.hi, bits.lo))
            top = bits.hi
    name = f"S{reg.op0}_{reg.op1}_C{reg.crn}_C{reg.crm}_{reg.op2}"
    return Reg(encoding * 8, 64, reg.name, _ACCESS[reg.access], fields=fields, doc=name)


CPU_INTERFACE = Block(
    "CPU_INTERFACE",
    0x8_0000,
    [_row(reg) for reg in REGISTERS],
    source="IHI 0069H chapter 12; offset = op0:op1:CRn:CRm:op2 x 8",
)
