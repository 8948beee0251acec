"""What `cosim regs pe0` shows: the CPU interface as it stands, unchanged by being looked at."""

from __future__ import annotations

from nodes.arch.groups import GROUP1_NS
from nodes.pe.cpu_interface import ACKNOWLEDGING
from nodes.pe.regs import REGISTERS
from nodes.pe.show import CPU_INTERFACE
from tests.machine.cpu_interface_bench import NS_A0, booted


def test_looking_takes_no_interrupt() -> None:
    """A pending interrupt is in ICC_HPPIR1_EL1, before and after; the IARs are not among what is read; two looks are equal."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    first = bench.cpu.snapshot()
    assert first["ICC_HPPIR1_EL1"] == bench.host("ICC_HPPIR1_EL1") == 40
    assert first == bench.cpu.snapshot()
    assert not ACKNOWLEDGING & set(first)
    assert bench.host("ICC_IAR1_EL1") == 40


def test_values_are_those_that_software_reads() -> None:
    """List registers and ICH_ as EL2 sees them, EL3's at EL3; list registers that are not implemented are left out."""
    bench = booted()
    bench.host("ICH_LR2_EL2", 1 << 62 | 1 << 60 | 27)
    values = bench.cpu.snapshot()
    assert values["ICH_LR2_EL2"] == 1 << 62 | 1 << 60 | 27
    assert values["ICC_CTLR_EL3"] == bench.el3("ICC_CTLR_EL3")
    assert "ICH_LR4_EL2" not in values
    assert "ICC_SGI1R_EL1" not in values


def test_the_table_has_every_register_in_the_order_of_encodings() -> None:
    """One row per System register, named by its encoding, 64 bits wide; fields do not overlap."""
    assert {reg.name for reg in CPU_INTERFACE.regs} == {reg.name for reg in REGISTERS}
    assert CPU_INTERFACE["ICC_PMR_EL1"].doc == "S3_0_C4_C6_0"
    assert CPU_INTERFACE["ICC_PMR_EL1"].offset == 0b11_000_0100_0110_000 * 8
    assert [f.name for f in CPU_INTERFACE["ICH_LR0_EL2"].fields] == [
        "vINTID",
        "pINTID",
        "Priority",
        "NMI",
        "Group",
        "HW",
        "State",
    ]
