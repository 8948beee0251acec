"""Who may reach which register: UNDEFINED, traps to EL2 and EL3, ICV twins, ICC_SRE."""

import pytest

from nodes.pe.cpu_interface import Trap, Undefined, esr_for_sysreg
from tests.machine.cpu_interface_bench import FMO, IMO, Bench, booted, in_guest

TC, TALL0, TALL1, TDIR = 1 << 10, 1 << 11, 1 << 12, 1 << 14
SCR_IRQ, SCR_FIQ = 1 << 1, 1 << 2

COMMON = ["ICC_PMR_EL1", "ICC_RPR_EL1", "ICC_CTLR_EL1"]
GROUP0 = ["ICC_IAR0_EL1", "ICC_HPPIR0_EL1", "ICC_BPR0_EL1", "ICC_AP0R0_EL1", "ICC_IGRPEN0_EL1"]
GROUP1 = ["ICC_IAR1_EL1", "ICC_HPPIR1_EL1", "ICC_BPR1_EL1", "ICC_AP1R0_EL1", "ICC_IGRPEN1_EL1"]
SGI = ["ICC_SGI1R_EL1", "ICC_ASGI1R_EL1", "ICC_SGI0R_EL1"]


@pytest.mark.parametrize("name", SGI)
@pytest.mark.parametrize("hcr", [IMO, FMO, IMO | FMO])
def test_guest_sgis_trap(name: str, hcr: int) -> None:
    """A guest's SGI register write traps to EL2 with IMO or FMO, with the syndrome of that register and Rt."""
    bench = in_guest()
    with pytest.raises(Trap) as trap:
        bench.cpu.write(name, 1, el=1, hcr=hcr, rt=5)
    assert (trap.value.target_el, trap.value.ec) == (2, 0x18)
    assert trap.value.esr == esr_for_sysreg(name, 5, False) == 0x18 << 26 | 1 << 25 | trap.value.iss
    assert bench.up() == []
    bench.cpu.write(name, 1, el=1, hcr=0)
    assert bench.up() == [("GenerateSgi", name[4:-4], 1, 1)]


@pytest.mark.parametrize(
    ("names", "ich_hcr"),
    [(COMMON, TC), (GROUP0, TALL0), (GROUP1, TALL1), (["ICC_DIR_EL1", *SGI], TC), (["ICC_DIR_EL1"], TDIR),
     (["ICC_EOIR0_EL1"], TALL0), (["ICC_EOIR1_EL1"], TALL1)],
)  # fmt: skip
@pytest.mark.parametrize("hcr", [0, IMO | FMO])
def test_ich_hcr_traps(names: list[str], ich_hcr: int, hcr: int) -> None:
    """TC, TALL0, TALL1 and TDIR trap the registers they name, at EL1 only, and no others."""
    bench = in_guest(hcr=1 | ich_hcr, scr=0)
    write_only = {"ICC_DIR_EL1", "ICC_EOIR0_EL1", "ICC_EOIR1_EL1", *SGI}
    for name in names:
        with pytest.raises(Trap, match=f"{ich_hcr:#x}") as trap:
            bench.guest(name, 0 if name in write_only else None, hcr=hcr)
        assert trap.value.target_el == 2 and trap.value.iss & 1 == (name not in write_only)
        if name not in write_only:
            bench.host(name)
    for name in {*COMMON, *GROUP0, *GROUP1} - set(names):
        if (ich_hcr, name in COMMON, name in GROUP0) in [(TC, True, False), (TALL0, False, True)]:
            continue
        if ich_hcr == TALL1 and name in GROUP1:
            continue
        bench.guest(name, hcr=hcr)


@pytest.mark.parametrize(
    ("hcr", "pmr", "bpr0", "bpr1"), [(0, 0xF0, 2, 3), (IMO, 0x80, 2, 5), (FMO, 0x80, 4, 3), (IMO | FMO, 0x80, 4, 5)]
)
def test_virtual_twins(hcr: int, pmr: int, bpr0: int, bpr1: int) -> None:
    """At EL1 FMO makes Group 0 registers virtual, IMO those of Group 1, either one the common ones; EL2 sees ICC."""
    bench = in_guest(vmcr=0x80 << 24 | 4 << 21 | 5 << 18 | 3, scr=0)
    bench.host("ICC_PMR_EL1", 0xF0)
    assert bench.guest("ICC_PMR_EL1", hcr=hcr) == pmr
    assert bench.guest("ICC_BPR0_EL1", hcr=hcr) == bpr0
    assert bench.guest("ICC_BPR1_EL1", hcr=hcr) == bpr1
    assert bench.cpu.read("ICC_PMR_EL1", el=2, hcr=hcr) == 0xF0


@pytest.mark.parametrize(
    ("scr", "group0", "group1", "common"), [(0, 0, 0, 0), (SCR_FIQ, 3, 0, 0), (SCR_IRQ, 0, 3, 0), (6, 3, 3, 3)]
)
@pytest.mark.parametrize("el", [1, 2])
def test_scr_el3_traps(scr: int, group0: int, group1: int, common: int, el: int) -> None:
    """SCR_EL3.FIQ takes Group 0 to EL3, IRQ Group 1, both together the common registers and SGIs."""
    bench = Bench(scr=scr)
    expected = {**dict.fromkeys(GROUP0, group0), **dict.fromkeys(GROUP1, group1), **dict.fromkeys(COMMON, common)}
    for name, target in expected.items():
        if target:
            with pytest.raises(Trap) as trap:
                bench.cpu.read(name, el=el)
            assert trap.value.target_el == target
        else:
            bench.cpu.read(name, el=el)
        bench.el3(name)
    if common:
        with pytest.raises(Trap, match="traps to EL3"):
            bench.cpu.write("ICC_SGI1R_EL1", 0, el=el)


def test_virtual_registers_do_not_trap_to_el3() -> None:
    """A guest's Group 0 registers are virtual even though SCR_EL3.FIQ gives the physical ones to EL3."""
    bench = in_guest()
    assert bench.guest("ICC_IAR0_EL1") == 1023
    with pytest.raises(Trap, match="read of ICC_IAR0_EL1 traps to EL3"):
        bench.host("ICC_IAR0_EL1")


@pytest.mark.parametrize(
    ("name", "el", "value", "why"),
    [
        ("ICC_PMR_EL1", 0, None, "EL1 or higher"),
        ("ICC_IAR1_EL1", 2, 0, "it is read-only"),
        ("ICC_EOIR1_EL1", 2, None, "it is write-only"),
        ("ICC_SGI1R_EL1", 1, None, "it is write-only"),
        ("ICH_VTR_EL2", 2, 0, "it is read-only"),
        ("ICH_HCR_EL2", 1, None, "it needs EL2"),
        ("ICC_SRE_EL2", 1, None, "it needs EL2"),
        ("ICC_SRE_EL3", 2, None, "it needs EL3"),
        ("ICC_CTLR_EL3", 2, None, "it needs EL3"),
        ("ICC_IGRPEN1_EL3", 2, 1, "it needs EL3"),
        ("ICH_LR4_EL2", 2, None, "has fewer of them"),
        ("ICH_LR15_EL2", 2, 0, "has fewer of them"),
        ("ICC_AP1R1_EL1", 2, None, "has fewer of them"),
        ("ICC_NMIAR1_EL1", 2, None, "does not implement it"),
    ],
)
def test_undefined(name: str, el: int, value: int | None, why: str) -> None:
    """What does not exist, at that level or in that direction, is UNDEFINED and changes nothing."""
    bench = booted()
    with pytest.raises(Undefined, match=f"{name} is UNDEFINED at EL{el}: .*{why}"):
        bench._access(name, value, el, False, 0)
    assert bench.up() == []


def test_el3_reaches_everything() -> None:
    """EL3 reads ICH and EL2's registers too."""
    bench = in_guest(hcr=5)
    assert bench.el3("ICH_HCR_EL2") == 5 and bench.el3("ICC_SRE_EL2") == 0xF


def test_sre_fixed() -> None:
    """Without a memory-mapped interface ICC_SRE_ELx are RAO/WI."""
    bench = Bench()
    for read, write, name, value in [
        (bench.host, bench.host, "ICC_SRE_EL1", 0x7),
        (bench.secure, bench.secure, "ICC_SRE_EL1", 0x7),
        (bench.host, bench.host, "ICC_SRE_EL2", 0xF),
        (bench.el3, bench.el3, "ICC_SRE_EL3", 0xF),
    ]:
        write(name, 0)
        assert read(name) == value


def test_sre_writable() -> None:
    """With writable SRE each level traps until those above have enabled it, as firmware and hypervisor do in turn."""
    bench = Bench(sre_writable=True)
    for el in (1, 2, 3):
        with pytest.raises(Trap, match=f"SRE_EL{el}.SRE is 0") as trap:
            bench.cpu.read("ICC_PMR_EL1", el=el)
        assert trap.value.target_el == el
    with pytest.raises(Trap, match="ICC_SRE_EL3.SRE is 0"):
        bench.el3("ICC_CTLR_EL3")
    with pytest.raises(Trap, match="ICC_SRE_EL3.Enable is 0"):
        bench.host("ICC_SRE_EL2", 0xF)
    bench.el3("ICC_SRE_EL2", 0xF)
    assert bench.el3("ICC_SRE_EL2") == 0x8  # SRE is RAZ/WI below an SRE of 0; DFB and DIB are EL3's
    bench.el3("ICC_SRE_EL3", 0xF)
    assert bench.el3("ICC_SRE_EL2") == 0xF
    assert bench.secure("ICC_SRE_EL1") == 0x6
    bench.secure("ICC_SRE_EL1", 0x1)
    assert bench.secure("ICC_SRE_EL1") == 0x7 and bench.secure("ICC_PMR_EL1") == 0
    bench.host("ICC_SRE_EL2", 0x1)
    with pytest.raises(Trap, match="ICC_SRE_EL2.Enable is 0") as trap:
        bench.guest("ICC_SRE_EL1")
    assert trap.value.target_el == 2
    with pytest.raises(Trap, match="ICC_SRE_EL1.SRE is 0"):
        bench.guest("ICC_PMR_EL1")
    bench.host("ICC_SRE_EL1", 0x1)
    assert bench.guest("ICC_PMR_EL1") == 0
    bench.host("ICC_SRE_EL2", 0x8)
    assert bench.guest("ICC_SRE_EL1") == 0x6  # and SRE of EL1 is RAZ again
    bench.el3("ICC_SRE_EL3", 0)
    with pytest.raises(Trap, match="ICC_SRE_EL3.SRE is 0"):
        bench.el3("ICH_HCR_EL2")


def test_sre_bypass_bits_with_one_security_state() -> None:
    """With one Security state DFB and DIB are one pair of bits, writable at each level."""
    bench = Bench(sre_writable=True, two_security_states=False)
    bench.el3("ICC_SRE_EL3", 0x9)
    bench.host("ICC_SRE_EL2", 0xF)
    assert bench.el3("ICC_SRE_EL3") == 0xF
    bench.host("ICC_SRE_EL1", 0x1)
    assert bench.el3("ICC_SRE_EL3") == 0x9 and bench.host("ICC_SRE_EL2") == 0x9
