"""The virtual CPU interface: list registers, direct injection and their merge, EOIcount, maintenance."""

import pytest

from nodes.pe.list_registers import ACTIVE, INVALID, PENDING, PENDING_ACTIVE, lr, pintid, state
from tests.machine.cpu_interface_bench import SPURIOUS, in_guest

VLPI = 8195
EOIMODE1 = 1

EN, UIE, LRENPIE, NPIE = 1, 2, 4, 8
VSGI_EOI_COUNT = 1 << 8
DVIM = 1 << 15


def eoicount(hcr: int) -> int:
    return hcr >> 27


def test_list_register_life() -> None:
    """A pending list register becomes active at IAR and invalid at EOIR, then ELRSR shows it free."""
    bench = in_guest(lrs=(lr(34, 0xA0),))
    assert bench.virq() and not bench.vfiq()
    assert bench.guest("ICC_HPPIR1_EL1") == 34
    assert bench.guest("ICC_IAR1_EL1") == 34
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE and not bench.virq()
    assert bench.guest("ICC_RPR_EL1") == 0xA0 and bench.host("ICH_AP1R0_EL2") == 1 << 20
    assert bench.host("ICH_ELRSR_EL2") == 0b1110
    bench.guest("ICC_EOIR1_EL1", 34)
    assert bench.host("ICH_LR0_EL2") == lr(34, 0xA0, lr_state=INVALID)
    assert bench.host("ICH_ELRSR_EL2") == 0b1111
    assert bench.guest("ICC_RPR_EL1") == 0xFF and bench.host("ICH_AP1R0_EL2") == 0
    assert bench.up() == []


def test_eoimode_1_needs_dir() -> None:
    """With VEOIM EOIR only drops the priority; DIR deactivates."""
    bench = in_guest(eoimode=EOIMODE1, lrs=(lr(34, 0xA0),))
    bench.guest("ICC_IAR1_EL1")
    bench.guest("ICC_EOIR1_EL1", 34)
    assert bench.guest("ICC_RPR_EL1") == 0xFF and state(bench.host("ICH_LR0_EL2")) == ACTIVE
    bench.guest("ICC_DIR_EL1", 34)
    assert state(bench.host("ICH_LR0_EL2")) == INVALID
    assert eoicount(bench.host("ICH_HCR_EL2")) == 0


def test_dir_with_eoimode_0_is_ignored() -> None:
    """DIR does nothing with VEOIM 0, and counts nothing."""
    bench = in_guest(lrs=(lr(34, 0xA0),))
    bench.guest("ICC_IAR1_EL1")
    bench.guest("ICC_DIR_EL1", 34)
    bench.guest("ICC_DIR_EL1", 35)
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE and eoicount(bench.host("ICH_HCR_EL2")) == 0


@pytest.mark.parametrize("eoimode", [0, 1])
def test_hw_list_register_deactivates_the_physical_interrupt(eoimode: int) -> None:
    """HW=1 (the virtual timer): deactivation of the virtual interrupt sends Deactivate of pINTID."""
    bench = in_guest(eoimode=eoimode, lrs=(lr(27, 0xA0, pint=30),))
    assert pintid(bench.host("ICH_LR0_EL2")) == 30
    assert bench.guest("ICC_IAR1_EL1") == 27
    assert bench.up() == []
    bench.guest("ICC_EOIR1_EL1", 27)
    if eoimode:
        assert bench.up() == []
        bench.guest("ICC_DIR_EL1", 27)
    assert bench.up() == [("Deactivate", 30, 1)]
    assert bench.host("ICH_EISR_EL2") == 0 and bench.host("ICH_ELRSR_EL2") == 0b1111


def test_hw_with_impossible_pintid_is_counted() -> None:
    """HW=1 naming an SGI deactivates nothing and is counted."""
    bench = in_guest(lrs=(lr(34, 0xA0, pint=3),))
    bench.guest("ICC_IAR1_EL1")
    bench.guest("ICC_EOIR1_EL1", 34)
    assert bench.up() == [] and bench.cpu.counters == {"lr_bad_pintid": 1}
    assert state(bench.host("ICH_LR0_EL2")) == INVALID


def test_pending_and_active() -> None:
    """Pending and active is not a candidate; EOIR makes it pending again, and then it comes."""
    bench = in_guest(lrs=(lr(1, 0xA0, lr_state=PENDING_ACTIVE),))
    bench.host("ICH_AP1R0_EL2", 1 << 20)
    assert not bench.virq() and bench.guest("ICC_IAR1_EL1") == SPURIOUS
    assert bench.guest("ICC_HPPIR1_EL1") == SPURIOUS
    bench.guest("ICC_EOIR1_EL1", 1)
    assert state(bench.host("ICH_LR0_EL2")) == PENDING
    assert bench.guest("ICC_IAR1_EL1") == 1


def test_first_list_register_wins_a_tie_and_lower_value_wins() -> None:
    """Among pending list registers the lowest priority value wins, among equals the lowest number."""
    bench = in_guest(lrs=(lr(40, 0xA0), lr(41, 0x80), lr(42, 0x80), lr(43, 0x98, group=0)))
    assert [bench.guest("ICC_IAR1_EL1") for _ in range(2)] == [41, SPURIOUS]
    bench.guest("ICC_EOIR1_EL1", 41)
    assert bench.guest("ICC_IAR1_EL1") == 42


def test_groups_and_signals() -> None:
    """Group 0 is a virtual FIQ, taken by ICV_IAR0 only; a disabled group is neither signalled nor visible."""
    bench = in_guest(lrs=(lr(43, 0x98, group=0), lr(40, 0xA0)))
    assert bench.virq() and bench.guest("ICC_HPPIR1_EL1") == 40
    bench.guest("ICC_IGRPEN0_EL1", 1)
    assert bench.vfiq() and not bench.virq()
    assert bench.guest("ICC_HPPIR1_EL1") == SPURIOUS and bench.guest("ICC_IAR1_EL1") == SPURIOUS
    assert bench.guest("ICC_HPPIR0_EL1") == 43 and bench.guest("ICC_IAR0_EL1") == 43
    assert bench.host("ICH_AP0R0_EL2") == 1 << 19 and bench.host("ICH_AP1R0_EL2") == 0
    bench.guest("ICC_EOIR0_EL1", 43)
    assert state(bench.host("ICH_LR0_EL2")) == INVALID
    assert bench.virq()
    bench.guest("ICC_IGRPEN1_EL1", 0)
    assert not bench.virq() and bench.guest("ICC_HPPIR1_EL1") == SPURIOUS


@pytest.mark.parametrize(("priority", "vpmr", "taken"), [(0xA0, 0xA0, False), (0xA0, 0xA8, True), (0xA0, 0, False)])
def test_virtual_priority_mask(priority: int, vpmr: int, taken: bool) -> None:
    """Row 10: not above VPMR is 1023; HPPIR shows it all the same. Guests see priorities unshifted."""
    bench = in_guest(lrs=(lr(34, priority),))
    bench.guest("ICC_PMR_EL1", vpmr)
    assert bench.guest("ICC_PMR_EL1") == vpmr
    assert bench.virq() is taken
    assert bench.guest("ICC_HPPIR1_EL1") == 34
    assert bench.guest("ICC_IAR1_EL1") == (34 if taken else SPURIOUS)


@pytest.mark.parametrize(
    ("vbpr1", "vcbpr", "vbpr0", "second", "preempts"),
    [
        (0, 0, 7, 0xA0, False),  # equal
        (0, 0, 7, 0x98, True),
        (4, 0, 2, 0xA8, False),
        (5, 0, 2, 0xA0, False),  # [7:5]: 0xA0 both, running was stored as 0xA0
        (5, 0, 2, 0x98, True),
        (3, 1, 4, 0xA0, False),  # CBPR: [7:5]
        (3, 1, 4, 0x98, True),
        (3, 1, 7, 0x00, False),
    ],
)
def test_virtual_binary_points(vbpr1: int, vcbpr: int, vbpr0: int, second: int, preempts: bool) -> None:
    """Row 11 for the guest: VBPR1, or VBPR0 with VCBPR, decides what preempts."""
    bench = in_guest(lrs=(lr(34, 0xA8 if vbpr1 == 5 or vbpr1 == 4 else 0xA0),))
    bench.guest("ICC_BPR1_EL1", vbpr1)
    bench.guest("ICC_BPR0_EL1", vbpr0)
    bench.guest("ICC_CTLR_EL1", vcbpr)
    assert bench.guest("ICC_BPR1_EL1") == (min(vbpr0 + 1, 7) if vcbpr else max(vbpr1, 3))
    bench.guest("ICC_IAR1_EL1")
    bench.host("ICH_LR1_EL2", lr(35, second))
    assert bench.virq() is preempts
    assert bench.guest("ICC_IAR1_EL1") == (35 if preempts else SPURIOUS)


def test_virtual_cbpr_ignores_writes_of_bpr1() -> None:
    """With VCBPR a write of ICV_BPR1 is lost, and the old value is back without VCBPR."""
    bench = in_guest()
    bench.guest("ICC_BPR1_EL1", 5)
    bench.guest("ICC_CTLR_EL1", 1)
    bench.guest("ICC_BPR1_EL1", 6)
    bench.guest("ICC_CTLR_EL1", 0)
    assert bench.guest("ICC_BPR1_EL1") == 5


def test_vmcr_is_the_guests_registers() -> None:
    """ICH_VMCR_EL2 and the ICV registers are two views of the same fields."""
    bench = in_guest()
    bench.guest("ICC_PMR_EL1", 0xB0)
    bench.guest("ICC_BPR1_EL1", 4)
    bench.guest("ICC_BPR0_EL1", 5)
    bench.guest("ICC_CTLR_EL1", 0b11)
    bench.guest("ICC_IGRPEN0_EL1", 1)
    bench.guest("ICC_IGRPEN1_EL1", 0)
    assert bench.host("ICH_VMCR_EL2") == 0xB0 << 24 | 5 << 21 | 4 << 18 | 1 << 9 | 1 << 4 | 1 << 3 | 0b01
    bench.host("ICH_VMCR_EL2", 0x88_00_00_02)
    assert bench.guest("ICC_PMR_EL1") == 0x88 and bench.guest("ICC_CTLR_EL1") & 0b11 == 0
    assert (bench.guest("ICC_BPR0_EL1"), bench.guest("ICC_BPR1_EL1")) == (2, 3)
    assert (bench.guest("ICC_IGRPEN0_EL1"), bench.guest("ICC_IGRPEN1_EL1")) == (0, 1)
    bench.guest("ICC_AP1R0_EL1", 1 << 9)
    bench.guest("ICC_AP0R0_EL1", 1 << 8)
    assert (bench.host("ICH_AP0R0_EL2"), bench.host("ICH_AP1R0_EL2")) == (1 << 8, 1 << 9)
    assert bench.guest("ICC_RPR_EL1") == 0x40 and bench.guest("ICC_AP1R0_EL1") == 1 << 9


def test_disabled_interface() -> None:
    """With ICH_HCR.En 0 nothing is signalled, IAR is 1023, maintenance is low whatever MISR says."""
    bench = in_guest(hcr=UIE, lrs=(lr(34, 0xA0),))
    bench.cpu.vset(1, VLPI, 0x80, 1)
    assert not (bench.virq() or bench.vfiq() or bench.maintenance())
    assert bench.guest("ICC_IAR1_EL1") == SPURIOUS and bench.host("ICH_MISR_EL2") == 0b10
    assert bench.guest("ICC_HPPIR1_EL1") == 34  # the direct one counts only with En
    bench.host("ICH_HCR_EL2", UIE | EN)
    assert bench.virq() and bench.maintenance() and bench.guest("ICC_IAR1_EL1") == VLPI


# -- direct injection ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intid", [VLPI, 5])
def test_direct_injection(intid: int) -> None:
    """A vLPI or vSGI: VActivate at IAR, AP1R set, EOIR drops the priority and counts no EOI of a vLPI."""
    bench = in_guest(hcr=EN | VSGI_EOI_COUNT)
    bench.cpu.vset(0x12, intid, 0xA0, 1)
    assert bench.virq()
    assert bench.guest("ICC_HPPIR1_EL1") == intid
    assert bench.guest("ICC_IAR1_EL1") == intid
    assert bench.up() == [("VActivate", 0x12, intid)]
    assert bench.host("ICH_AP1R0_EL2") == 1 << 20 and bench.guest("ICC_RPR_EL1") == 0xA0
    assert not bench.virq() and bench.guest("ICC_IAR1_EL1") == SPURIOUS
    bench.guest("ICC_EOIR1_EL1", intid)
    assert bench.host("ICH_AP1R0_EL2") == 0
    assert bench.host("ICH_HCR_EL2") == EN | VSGI_EOI_COUNT and bench.up() == []


def test_vsgi_comes_twice_before_dir() -> None:
    """Row 20: without an active state a vSGI is taken again after EOIR, before DIR, with EOImode 1."""
    bench = in_guest(hcr=EN | VSGI_EOI_COUNT, eoimode=EOIMODE1)
    for _ in range(2):
        bench.cpu.vset(3, 1, 0xA0, 1)
        assert bench.guest("ICC_IAR1_EL1") == 1
        bench.guest("ICC_EOIR1_EL1", 1)
    bench.guest("ICC_DIR_EL1", 1)
    assert bench.up() == [("VActivate", 3, 1)] * 2
    assert eoicount(bench.host("ICH_HCR_EL2")) == 0


def test_vlpi_pending_again_while_in_service() -> None:
    """Row 8: the same vLPI offered while it is in service waits for the priority drop, then comes."""
    bench = in_guest()
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    bench.guest("ICC_IAR1_EL1")
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    assert not bench.virq()
    bench.guest("ICC_EOIR1_EL1", VLPI)
    assert bench.virq() and bench.guest("ICC_IAR1_EL1") == VLPI


@pytest.mark.parametrize(
    ("lr_priority", "direct_priority", "winner"),
    [(0xA0, 0xA0, 34), (0xA0, 0x98, VLPI), (0x98, 0xA0, 34), (0xA0, 0x9F, VLPI), (0xA7, 0xA0, 34)],
)
def test_merge(lr_priority: int, direct_priority: int, winner: int) -> None:
    """Row 13: the direct one wins only by a strictly lower priority value, of the implemented bits."""
    bench = in_guest(lrs=(lr(34, lr_priority),))
    bench.cpu.vset(3, VLPI, direct_priority, 1)
    assert bench.guest("ICC_HPPIR1_EL1") == winner
    assert bench.guest("ICC_IAR1_EL1") == winner
    assert bench.up() == ([("VActivate", 3, VLPI)] if winner == VLPI else [])


def test_list_register_not_pending_leaves_the_direct_one() -> None:
    """Active and disabled-group list registers don't hide a direct interrupt."""
    bench = in_guest(lrs=(lr(34, 0x10, group=0), lr(35, 0x10, lr_state=ACTIVE)))
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    assert bench.guest("ICC_IAR1_EL1") == VLPI


def test_direct_needs_its_group_and_no_dvim() -> None:
    """VENG of its group and DVIM 0 are needed; a Group 0 vSGI is a virtual FIQ and takes AP0R."""
    bench = in_guest(hcr=EN | DVIM)
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    assert not bench.virq() and bench.guest("ICC_IAR1_EL1") == SPURIOUS == bench.guest("ICC_HPPIR1_EL1")
    bench.host("ICH_HCR_EL2", EN)
    assert bench.virq()
    bench.guest("ICC_IGRPEN1_EL1", 0)
    assert not bench.virq() and bench.guest("ICC_HPPIR1_EL1") == SPURIOUS
    bench.cpu.vset(3, 2, 0xA0, 0)
    assert not bench.vfiq()
    bench.guest("ICC_IGRPEN0_EL1", 1)
    assert bench.vfiq() and bench.guest("ICC_IAR0_EL1") == 2
    assert bench.host("ICH_AP0R0_EL2") == 1 << 20
    assert bench.up() == [("VRelease", 3, VLPI), ("VActivate", 3, 2)]


def test_vclear_and_vset_replace() -> None:
    """VClear releases what is held and is acknowledged; VSet of another interrupt releases the first one."""
    bench = in_guest()
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    bench.cpu.vset(3, VLPI, 0x90, 1)
    bench.cpu.vset(3, 1, 0x80, 1)
    bench.cpu.vclear(3, VLPI)  # crossed the release
    bench.cpu.vclear(4, 1)  # another vPE
    assert bench.virq()
    bench.cpu.vclear(3, 1)
    assert bench.up() == [
        ("VRelease", 3, VLPI), ("VClearAck", 3), ("VClearAck", 4), ("VRelease", 3, 1), ("VClearAck", 3),
    ]  # fmt: skip
    assert not bench.virq() and bench.guest("ICC_IAR1_EL1") == SPURIOUS
    bench.guest("ICC_EOIR1_EL1", SPURIOUS)
    assert eoicount(bench.host("ICH_HCR_EL2")) == 0


def test_no_direct_injection_with_nv4() -> None:
    """With ICH_VTR.nV4 a VSet goes back at once and is counted."""
    bench = in_guest(nv4=True)
    bench.cpu.vset(3, VLPI, 0xA0, 1)
    assert not bench.virq() and bench.up() == [("VRelease", 3, VLPI)]
    assert bench.cpu.counters == {"vset_without_v4": 1}


def test_lpi_in_a_list_register_becomes_active_and_is_ended_by_eoir() -> None:
    """Row 12: an LPI in a list register is active after IAR, and EOIR clears it even with EOImode 1."""
    bench = in_guest(eoimode=EOIMODE1, lrs=(lr(VLPI, 0xA0),))
    assert bench.guest("ICC_IAR1_EL1") == VLPI
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE
    bench.guest("ICC_DIR_EL1", VLPI)
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE
    bench.guest("ICC_EOIR1_EL1", VLPI)
    assert state(bench.host("ICH_LR0_EL2")) == INVALID and bench.up() == []


def test_special_intid_in_a_list_register() -> None:
    """A list register with INTID 1021 is returned once and dropped, without an active priority."""
    bench = in_guest(lrs=(lr(1021, 0xA0),))
    assert bench.guest("ICC_IAR1_EL1") == 1021
    assert state(bench.host("ICH_LR0_EL2")) == INVALID and bench.guest("ICC_RPR_EL1") == 0xFF


# -- EOIcount -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intid", "eoimode", "vsgi_eoi_count", "counted"),
    [
        (34, 0, 0, 1),
        (34, 1, 0, 1),
        (34, 0, 1, 1),
        (1, 0, 0, 1),
        (1, 1, 0, 1),
        (1, 0, 1, 0),
        (1, 1, 1, 0),
        (16, 0, 1, 1),  # PPIs count
        (8191, 0, 0, 1),
        (VLPI, 0, 0, 0),
        (VLPI, 1, 0, 0),
        (1023, 0, 0, 0),
    ],
)
def test_eoicount(intid: int, eoimode: int, vsgi_eoi_count: int, counted: int) -> None:
    """Each deactivation without a list register counts once (EOIR or DIR by EOImode), LPIs and if so set SGIs don't."""
    bench = in_guest(hcr=EN | vsgi_eoi_count << 8, eoimode=eoimode)
    bench.host("ICH_AP1R0_EL2", 1 << 20)
    bench.guest("ICC_EOIR1_EL1", intid)
    assert eoicount(bench.host("ICH_HCR_EL2")) == (0 if eoimode else counted)
    bench.guest("ICC_DIR_EL1", intid)
    assert eoicount(bench.host("ICH_HCR_EL2")) == counted
    assert bench.host("ICH_AP1R0_EL2") == (1 << 20 if intid == 1023 else 0)


def test_eoi_with_nothing_active_counts_nothing() -> None:
    """EOIR that drops no priority changes neither list registers nor EOIcount."""
    bench = in_guest(lrs=(lr(34, 0xA0, lr_state=ACTIVE),))
    bench.guest("ICC_EOIR1_EL1", 34)
    bench.guest("ICC_EOIR1_EL1", 35)
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE and bench.host("ICH_HCR_EL2") == EN


@pytest.mark.parametrize("entry", [lr(34, 0xA0, lr_state=ACTIVE, group=0), lr(34, 0x90, lr_state=ACTIVE)])
def test_eoi_of_the_wrong_group_or_priority_drops_only(entry: int) -> None:
    """EOIR deactivates a list register only if its group and priority are those of the drop."""
    bench = in_guest(lrs=(entry,))
    bench.host("ICH_AP1R0_EL2", 1 << 20)
    bench.guest("ICC_EOIR1_EL1", 34)
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE and bench.host("ICH_AP1R0_EL2") == 0
    assert bench.host("ICH_HCR_EL2") == EN


def test_eoicount_wraps() -> None:
    """EOIcount has five bits."""
    bench = in_guest(hcr=EN | LRENPIE | 31 << 27)
    bench.host("ICH_AP1R0_EL2", 1 << 20)
    assert bench.maintenance()
    bench.guest("ICC_EOIR1_EL1", 34)
    assert bench.host("ICH_HCR_EL2") == EN | LRENPIE and not bench.maintenance()


def test_group0_drops_first() -> None:
    """With the same virtual priority active in both groups the drop takes Group 0's bit."""
    bench = in_guest()
    bench.host("ICH_AP0R0_EL2", 1 << 20)
    bench.host("ICH_AP1R0_EL2", 1 << 20)
    bench.guest("ICC_EOIR1_EL1", VLPI)
    assert (bench.host("ICH_AP0R0_EL2"), bench.host("ICH_AP1R0_EL2")) == (0, 1 << 20)


# -- maintenance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hcr", "registers", "vmcr", "misr"),
    [
        (0, (lr(34, 0xA0, lr_state=INVALID, eoi=True),), 0b10, 0x01),  # EOI
        (0, (lr(34, 0xA0, lr_state=ACTIVE, eoi=True),), 0b10, 0x00),
        (UIE, (), 0b10, 0x02),
        (UIE, (lr(34, 0xA0),), 0b10, 0x02),  # one valid is still underflow
        (UIE, (lr(34, 0xA0), lr(35, 0xA0, lr_state=ACTIVE)), 0b10, 0x00),
        (LRENPIE, (), 0b10, 0x00),
        (LRENPIE | 3 << 27, (), 0b10, 0x04),
        (NPIE, (), 0b10, 0x08),
        (NPIE, (lr(34, 0xA0, lr_state=PENDING_ACTIVE),), 0b10, 0x08),
        (NPIE, (lr(34, 0xA0),), 0b10, 0x00),
        (1 << 4, (), 0b01, 0x10), (1 << 4, (), 0b10, 0x00),  # VGrp0EIE
        (1 << 5, (), 0b10, 0x20), (1 << 5, (), 0b01, 0x00),  # VGrp0DIE
        (1 << 6, (), 0b10, 0x40), (1 << 6, (), 0b01, 0x00),  # VGrp1EIE
        (1 << 7, (), 0b01, 0x80), (1 << 7, (), 0b10, 0x00),  # VGrp1DIE
    ],
)  # fmt: skip
def test_maintenance_conditions(hcr: int, registers: tuple[int, ...], vmcr: int, misr: int) -> None:
    """Each condition sets its bit of ICH_MISR_EL2 and, with En, raises the maintenance interrupt."""
    bench = in_guest(hcr=hcr | EN, vmcr=0xF0 << 24 | vmcr, lrs=registers)
    assert bench.host("ICH_MISR_EL2") == misr
    assert bench.maintenance() is bool(misr)


def test_maintenance_deasserts() -> None:
    """Row 15: the maintenance interrupt is a level, low again as soon as the condition is gone."""
    bench = in_guest(lrs=(lr(34, 0xA0, eoi=True),))
    assert not bench.maintenance()
    bench.guest("ICC_IAR1_EL1")
    assert not bench.maintenance()
    bench.guest("ICC_EOIR1_EL1", 34)
    assert bench.maintenance()
    assert bench.host("ICH_EISR_EL2") == 1 and bench.host("ICH_ELRSR_EL2") == 0b1110
    bench.host("ICH_LR0_EL2", 0)
    assert not bench.maintenance() and bench.host("ICH_EISR_EL2") == 0
    bench.host("ICH_HCR_EL2", EN | NPIE)
    assert bench.maintenance()
    bench.host("ICH_LR1_EL2", lr(34, 0xA0))
    assert not bench.maintenance()
    bench.guest("ICC_IAR1_EL1")
    assert bench.maintenance()


def test_dir_and_ctlr_change_levels() -> None:
    """DIR that frees a list register raises EOI maintenance; CBPR set by the guest can let an interrupt preempt."""
    bench = in_guest(eoimode=EOIMODE1, lrs=(lr(34, 0xA0, eoi=True), lr(35, 0x98, lr_state=INVALID)))
    bench.guest("ICC_IAR1_EL1")
    bench.guest("ICC_BPR1_EL1", 6)
    bench.host("ICH_LR1_EL2", lr(35, 0x98))
    assert not bench.virq() and not bench.maintenance()
    bench.guest("ICC_CTLR_EL1", 0b11)
    assert bench.virq()
    bench.guest("ICC_DIR_EL1", 34)
    assert bench.maintenance()
    bench.host("ICH_LR0_EL2", 0)
    bench.host("ICH_HCR_EL2", EN | LRENPIE)
    assert not bench.maintenance()
    bench.guest("ICC_DIR_EL1", 36)
    assert bench.maintenance()


def test_eisr_and_elrsr_numbers() -> None:
    """EISR and ELRSR have bit n for list register n; HW=1 is never in EISR though bit 41 be set."""
    bench = in_guest(lrs=(
        lr(34, 0, lr_state=INVALID, eoi=True), lr(35, 0, lr_state=INVALID), lr(36, 0, lr_state=INVALID, pint=0x240),
        lr(37, 0, lr_state=INVALID, eoi=True),
    ))  # fmt: skip
    assert bench.host("ICH_EISR_EL2") == 0b1001 and bench.host("ICH_ELRSR_EL2") == 0b0110
