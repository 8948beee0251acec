"""The register table of the CPU interface: encodings, syndromes, identification, bits that are kept."""

from typing import Any

import pytest

from nodes.pe import regs
from nodes.pe.cpu_interface import ICH_IMAGE_FIELDS, CpuInterface, esr_for_sysreg, ich_image_fields
from nodes.pe.list_registers import lr
from tests.machine.cpu_interface_bench import Bench, booted, in_guest

# Typed a second time from the assembler's generic names, not from the table under test.
SECOND_SOURCE = """
ICC_PMR_EL1 S3_0_C4_C6_0            ICC_IAR0_EL1 S3_0_C12_C8_0          ICC_EOIR0_EL1 S3_0_C12_C8_1
ICC_HPPIR0_EL1 S3_0_C12_C8_2        ICC_BPR0_EL1 S3_0_C12_C8_3          ICC_AP0R0_EL1 S3_0_C12_C8_4
ICC_AP0R1_EL1 S3_0_C12_C8_5         ICC_AP0R2_EL1 S3_0_C12_C8_6         ICC_AP0R3_EL1 S3_0_C12_C8_7
ICC_AP1R0_EL1 S3_0_C12_C9_0         ICC_AP1R1_EL1 S3_0_C12_C9_1         ICC_AP1R2_EL1 S3_0_C12_C9_2
ICC_AP1R3_EL1 S3_0_C12_C9_3         ICC_NMIAR1_EL1 S3_0_C12_C9_5        ICC_DIR_EL1 S3_0_C12_C11_1
ICC_RPR_EL1 S3_0_C12_C11_3          ICC_SGI1R_EL1 S3_0_C12_C11_5        ICC_ASGI1R_EL1 S3_0_C12_C11_6
ICC_SGI0R_EL1 S3_0_C12_C11_7        ICC_IAR1_EL1 S3_0_C12_C12_0         ICC_EOIR1_EL1 S3_0_C12_C12_1
ICC_HPPIR1_EL1 S3_0_C12_C12_2       ICC_BPR1_EL1 S3_0_C12_C12_3         ICC_CTLR_EL1 S3_0_C12_C12_4
ICC_SRE_EL1 S3_0_C12_C12_5          ICC_IGRPEN0_EL1 S3_0_C12_C12_6      ICC_IGRPEN1_EL1 S3_0_C12_C12_7
ICC_SRE_EL2 S3_4_C12_C9_5           ICH_HCR_EL2 S3_4_C12_C11_0          ICH_VTR_EL2 S3_4_C12_C11_1
ICH_MISR_EL2 S3_4_C12_C11_2         ICH_EISR_EL2 S3_4_C12_C11_3         ICH_ELRSR_EL2 S3_4_C12_C11_5
ICH_VMCR_EL2 S3_4_C12_C11_7         ICH_AP0R0_EL2 S3_4_C12_C8_0         ICH_AP0R1_EL2 S3_4_C12_C8_1
ICH_AP0R2_EL2 S3_4_C12_C8_2         ICH_AP0R3_EL2 S3_4_C12_C8_3         ICH_AP1R0_EL2 S3_4_C12_C9_0
ICH_AP1R1_EL2 S3_4_C12_C9_1         ICH_AP1R2_EL2 S3_4_C12_C9_2         ICH_AP1R3_EL2 S3_4_C12_C9_3
ICH_LR0_EL2 S3_4_C12_C12_0          ICH_LR1_EL2 S3_4_C12_C12_1          ICH_LR2_EL2 S3_4_C12_C12_2
ICH_LR3_EL2 S3_4_C12_C12_3          ICH_LR4_EL2 S3_4_C12_C12_4          ICH_LR5_EL2 S3_4_C12_C12_5
ICH_LR6_EL2 S3_4_C12_C12_6          ICH_LR7_EL2 S3_4_C12_C12_7          ICH_LR8_EL2 S3_4_C12_C13_0
ICH_LR9_EL2 S3_4_C12_C13_1          ICH_LR10_EL2 S3_4_C12_C13_2         ICH_LR11_EL2 S3_4_C12_C13_3
ICH_LR12_EL2 S3_4_C12_C13_4         ICH_LR13_EL2 S3_4_C12_C13_5         ICH_LR14_EL2 S3_4_C12_C13_6
ICH_LR15_EL2 S3_4_C12_C13_7         ICC_CTLR_EL3 S3_6_C12_C12_4         ICC_SRE_EL3 S3_6_C12_C12_5
ICC_IGRPEN1_EL3 S3_6_C12_C12_7
"""


def test_encodings_match_a_second_source() -> None:
    """Every register has the encoding that was typed independently, and there is none besides."""
    words = SECOND_SOURCE.split()
    expected = dict(zip(words[::2], words[1::2], strict=True))
    found = {r.name: f"S{r.op0}_{r.op1}_C{r.crn}_C{r.crm}_{r.op2}" for r in regs.REGISTERS}
    assert found == expected
    assert len(regs.BY_ENCODING) == len(regs.REGISTERS)


def test_fields_do_not_overlap() -> None:
    """In each register the fields are apart, except EOI of a list register, which HW=1 turns into pINTID."""
    for reg in regs.REGISTERS:
        taken = 0
        for field in reg.fields:
            mask = (1 << field.hi + 1) - (1 << field.lo)
            assert not taken & mask or (reg.name.startswith("ICH_LR") and field.name == "EOI"), (reg.name, field)
            taken |= mask


@pytest.mark.parametrize(
    ("name", "rt", "is_read", "esr"),
    [
        ("ICC_SGI1R_EL1", 0, False, 0x623A3016),
        ("ICC_SGI1R_EL1", 5, False, 0x623A3016 + (5 << 5)),
        ("ICC_SGI1R_EL1", 31, False, 0x623A33F6),
        ("ICC_SGI0R_EL1", 1, False, 0x623E3036),
        ("ICC_IAR1_EL1", 2, True, 0x62303059),
        ("ICC_DIR_EL1", 3, False, 0x62323076),
        ("ICH_HCR_EL2", 0, True, 0x62313017),
    ],
)
def test_syndromes(name: str, rt: int, is_read: bool, esr: int) -> None:
    """ESR_ELx of a trapped access has EC 0x18, IL, the encoding, Rt and the direction in their places."""
    assert esr_for_sysreg(name, rt, is_read) == esr


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    """A misspelt register is the caller's error, with the closest names; so is an Rt that does not exist."""
    with pytest.raises(ValueError, match=r"not 'ICC_IAR2_EL1'; did you mean ICC_IAR0_EL1, ICC_IAR1_EL1"):
        CpuInterface(mpidr=0).read("ICC_IAR2_EL1", el=2)
    with pytest.raises(ValueError, match=r"not 'XYZ'; see nodes/pe/regs.py"):
        CpuInterface(mpidr=0).write("XYZ", 0, el=2)
    with pytest.raises(ValueError, match="rt must be 0 to 31, not 32"):
        esr_for_sysreg("ICC_SGI1R_EL1", 32, False)


@pytest.mark.parametrize(
    ("parameters", "vtr", "ctlr"),
    [
        ({}, 0x902C0003, 0x88400),
        ({"nv4": True, "dvim": False}, 0x90380003, 0x88400),
        ({"list_registers": 16, "id_bits": 24, "rss": True}, 0x90AC000F, 0xC8C00),
        ({"pri_bits": 8, "pre_bits": 7, "ext_range": False}, 0xF82C0003, 0x08700),
    ],
)
def test_identification(parameters: dict[str, int], vtr: int, ctlr: int) -> None:
    """ICH_VTR_EL2 and the read-only fields of ICC_CTLR_EL1, ICV_CTLR_EL1 and ICC_CTLR_EL3 follow the parameters."""
    bench = Bench(**parameters)
    assert bench.host("ICH_VTR_EL2") == vtr
    assert bench.host("ICC_CTLR_EL1") == ctlr
    assert bench.guest("ICC_CTLR_EL1") == ctlr
    assert bench.el3("ICC_CTLR_EL3") == ctlr | 1 << 17  # nDS


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"pri_bits": 4}, "pri_bits must be 5 to 8"),
        ({"pri_bits": 6, "pre_bits": 7}, r"pre_bits must be 5 to 7 and at most pri_bits \(6\), not 7"),
        ({"pri_bits": 8, "pre_bits": 8}, "pre_bits must be 5 to 7"),
        ({"list_registers": 17}, "list_registers must be 1 to 16, not 17"),
        ({"id_bits": 32}, "id_bits must be 16 or 24, not 32"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], error: str) -> None:
    """What no implementation can have is refused at construction."""
    with pytest.raises(ValueError, match=error):
        CpuInterface(mpidr=0, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "kept"),
    [
        ("ICH_HCR_EL2", {}, 0xF800DDFF),
        ("ICH_HCR_EL2", {"vsgi_eoicount": False, "dvim": False}, 0xF8005CFF),
        ("ICH_VMCR_EL2", {}, 0xF8FC021B),
        ("ICH_LR0_EL2", {}, 0xF0F81FFF0000FFFF),  # all ones: HW=1, so pINTID has 13 bits
        ("ICH_LR0_EL2", {"id_bits": 24, "pri_bits": 8}, 0xF0FF1FFF00FFFFFF),
        ("ICH_AP0R0_EL2", {}, 0xFFFFFFFF),
    ],
)
def test_writable_bits(name: str, parameters: dict[str, bool], kept: int) -> None:
    """Writing all ones keeps the implemented bits (VFIQEn reads 1; NMI and TSEI do not exist here)."""
    bench = Bench(**parameters)
    bench.host(name, 0xFFFFFFFFFFFFFFFF)
    assert bench.host(name) == kept


def test_list_register_without_hw_keeps_eoi_only() -> None:
    """With HW=0 bit 41 is the EOI request and the rest of pINTID is RES0."""
    bench = Bench()
    bench.host("ICH_LR3_EL2", 0xFFFFFFFFFFFFFFFF & ~(1 << 61))
    assert bench.host("ICH_LR3_EL2") == 0xD0F802000000FFFF


def test_list_register_vectors() -> None:
    """The three values worked out in the fact sheet."""
    assert lr(8195, 0xA0) == 0x50A0000000002003
    assert lr(1, 0xA0) == 0x50A0000000000001
    assert lr(27, 0xA0, lr_state=2, pint=27) == 0xB0A0001B0000001B


def test_ich_image() -> None:
    """The image of the trap protocol has the documented order, and loading it restores the guest's context."""
    assert ICH_IMAGE_FIELDS == (
        "ICH_HCR_EL2", "ICH_VMCR_EL2", "ICH_LR0_EL2", "ICH_LR1_EL2", "ICH_LR2_EL2", "ICH_LR3_EL2", "ICH_AP0R0_EL2",
        "ICH_AP1R0_EL2",
    )  # fmt: skip
    bench = in_guest(hcr=0x80000009, lrs=(lr(34, 0x80), 0, lr(27, 0xA0, lr_state=2, pint=27)))
    bench.host("ICH_AP0R0_EL2", 1 << 20)
    bench.host("ICH_AP1R0_EL2", 0x80000000)
    image = bench.cpu.ich_image()
    assert dict(zip(ICH_IMAGE_FIELDS, image, strict=True)) == {name: bench.host(name) for name in ICH_IMAGE_FIELDS}
    other = booted()
    other.cpu.load_ich(image)
    assert other.cpu.ich_image() == image
    assert other.virq() and other.maintenance() == bench.maintenance()
    with pytest.raises(ValueError, match="image must have 8 words, not 7"):
        other.cpu.load_ich(image[1:])


def test_image_of_a_larger_interface() -> None:
    """With 7 preemption bits there are four words per active priorities register, all of them in the image."""
    bench = Bench(pri_bits=7, pre_bits=7, list_registers=2)
    assert bench.cpu.ich_image_fields == ich_image_fields(2, 7)
    image = (1, 0xFE00000A, lr(40, 0x02), 0, 1, 2, 3, 4, 5, 6, 7, 8)
    bench.cpu.load_ich(image)
    assert bench.cpu.ich_image() == (1, 0xFE04000A, *image[2:])
    assert bench.guest("ICC_AP1R3_EL1") == 8 and bench.guest("ICC_RPR_EL1") == 0


@pytest.mark.parametrize(
    ("registers", "text"),
    [
        ((lr(34, 0xA0), lr(34, 0x80, lr_state=2)), "ICH_LR1_EL2 must not repeat vINTID 34 of ICH_LR0_EL2"),
        ((lr(34, 0xA0, pint=34, lr_state=3), 0), "must not be pending and active"),
        ((lr(34, 0xA0, pint=3), 0), "must have a PPI or SPI as pINTID, not 3"),
    ],
)
def test_unpredictable_list_registers_are_counted(registers: tuple[int, int], text: str) -> None:
    """Contents that the architecture calls UNPREDICTABLE are counted and told when a context is loaded."""
    cpu = booted().cpu
    cpu.load_ich((1, 0xF000_0002, *registers, 0, 0, 0, 0))
    assert cpu.counters == {"lr_unpredictable": 1}
    [(counter, message)] = cpu.take_reports()
    assert counter == "lr_unpredictable" and text in message
    assert cpu.take_reports() == []


def test_decode_shows_fields() -> None:
    """A value is shown by field names for people."""
    assert regs.decode("ICC_SGI1R_EL1", 0x0000010001000000) == {
        "TargetList": 0, "Aff1": 0, "INTID": 1, "Aff2": 0, "IRM": 1, "RS": 0, "Aff3": 0,
    }  # fmt: skip


def test_reset() -> None:
    """A reset leaves groups off, nothing held, nothing active."""
    bench = in_guest(lrs=(lr(34, 0xA0),))
    bench.cpu.set(40, 0xD0, 1)
    bench.cpu.vset(1, 8192, 0xA0, 1)
    assert bench.irq() and bench.virq()
    bench.cpu.reset()
    assert not (bench.irq() or bench.virq() or bench.maintenance())
    assert bench.cpu.ich_image() == (0, 0x4C0008, 0, 0, 0, 0, 0, 0)
    assert bench.host("ICC_IGRPEN1_EL1") == 0 and bench.host("ICC_HPPIR1_EL1") == 1023


def test_arguments_are_checked() -> None:
    """INTIDs, priorities, groups and values outside their range are the caller's errors."""
    cpu = CpuInterface(mpidr=0, two_security_states=False)
    for intid, priority, group, error in [
        (1023, 0, 1, "intid must be below 65536 and not special"),
        (65536, 0, 1, "not 65536"),
        (32, 256, 1, "priority must be 0 to 0xFF, not 256"),
        (32, 0, 2, "group must be 0 to 1, not 2"),
    ]:
        with pytest.raises(ValueError, match=error):
            cpu.set(intid, priority, group)
        with pytest.raises(ValueError, match=error):
            cpu.vset(0, intid, priority, group)
    with pytest.raises(ValueError, match="value of ICC_PMR_EL1 must have 64 bits"):
        cpu.write("ICC_PMR_EL1", 1 << 64, el=2)


def test_affinity_is_packed_from_mpidr() -> None:
    """Aff3 comes from MPIDR[39:32]; U and MT bits are no affinity."""
    assert CpuInterface(mpidr=0x01_8102_0304).affinity == 0x01020304
