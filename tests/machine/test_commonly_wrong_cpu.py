"""What implementations commonly get wrong, for the CPU interface: one named test per row of the facts sheet's section 13."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.pe.list_registers import ACTIVE, INVALID, PENDING, lr, state
from tests.machine.cpu_interface_bench import SPURIOUS, booted, in_guest

VLPI_ID = 8195


def eoicount(bench: Any) -> int:
    """ICH_HCR_EL2.EOIcount."""
    return int(bench.host("ICH_HCR_EL2") >> 27)


def test_row_8_an_lpi_has_no_active_state_and_may_pend_again_in_service() -> None:
    """After IAR of an LPI the same one may be offered again; HPPIR shows it, IAR takes it once EOIR has dropped its priority."""
    bench = booted()
    bench.cpu.set(8200, 0xD0, 1)
    assert bench.host("ICC_IAR1_EL1") == 8200
    bench.cpu.set(8200, 0xD0, 1)
    assert bench.host("ICC_HPPIR1_EL1") == 8200
    assert bench.host("ICC_IAR1_EL1") == SPURIOUS
    bench.host("ICC_EOIR1_EL1", 8200)
    assert bench.host("ICC_IAR1_EL1") == 8200


def test_row_9_a_cleared_lpi_is_withdrawn_from_hppir() -> None:
    """Clear takes an offered LPI back: HPPIR and IAR read 1023, and the line is low."""
    bench = booted()
    bench.cpu.set(8200, 0xD0, 1)
    assert bench.irq() and bench.host("ICC_HPPIR1_EL1") == 8200
    bench.cpu.clear(8200)
    assert not bench.irq()
    assert bench.host("ICC_HPPIR1_EL1") == bench.host("ICC_IAR1_EL1") == SPURIOUS


def test_row_10_equal_priority_does_not_preempt_and_a_masked_one_is_spurious() -> None:
    """A second interrupt of the running priority waits; below PMR, or with its group off, IAR reads 1023."""
    bench = in_guest(lrs=(lr(40, 0xA0), lr(41, 0xA0)))
    assert bench.guest("ICC_IAR1_EL1") == 40
    assert not bench.virq() and bench.guest("ICC_IAR1_EL1") == SPURIOUS
    bench.guest("ICC_EOIR1_EL1", 40)
    bench.guest("ICC_PMR_EL1", 0xA0)
    assert bench.guest("ICC_IAR1_EL1") == SPURIOUS
    bench.guest("ICC_PMR_EL1", 0xF0)
    bench.guest("ICC_IGRPEN1_EL1", 0)
    assert bench.guest("ICC_HPPIR1_EL1") == bench.guest("ICC_IAR1_EL1") == SPURIOUS


def test_row_11_binary_points_are_clamped_and_shifted() -> None:
    """With 5 preemption bits BPR0 is at least 2 and the guest's BPR1 at least 3; with CBPR BPR1 reads BPR0 + 1."""
    bench = in_guest()
    bench.guest("ICC_BPR0_EL1", 0)
    bench.guest("ICC_BPR1_EL1", 0)
    assert (bench.guest("ICC_BPR0_EL1"), bench.guest("ICC_BPR1_EL1")) == (2, 3)
    bench.guest("ICC_BPR0_EL1", 5)
    bench.guest("ICC_CTLR_EL1", 1)
    assert bench.guest("ICC_BPR1_EL1") == 6


@pytest.mark.parametrize("eoimode", [0, 1])
def test_row_12_a_vlpi_without_a_list_register_never_counts(eoimode: int) -> None:
    """EOIR of a directly injected vLPI leaves EOIcount alone, whatever VEOIM."""
    bench = in_guest(eoimode=eoimode)
    bench.cpu.vset(0, VLPI_ID, 0xA0, 1)
    assert bench.guest("ICC_IAR1_EL1") == VLPI_ID
    bench.guest("ICC_EOIR1_EL1", VLPI_ID)
    assert eoicount(bench) == 0


@pytest.mark.parametrize("eoimode", [0, 1])
def test_row_12_a_vlpi_in_a_list_register_becomes_active_and_is_cleared_by_eoir(eoimode: int) -> None:
    """Even with VEOIM = 1, where EOIR of anything else would only drop the priority."""
    bench = in_guest(eoimode=eoimode, lrs=(lr(VLPI_ID, 0xA0), lr(40, 0xA0)))
    bench.guest("ICC_IAR1_EL1")
    assert state(bench.host("ICH_LR0_EL2")) == ACTIVE
    bench.guest("ICC_EOIR1_EL1", VLPI_ID)
    assert state(bench.host("ICH_LR0_EL2")) == INVALID and eoicount(bench) == 0
    bench.guest("ICC_IAR1_EL1")
    bench.guest("ICC_EOIR1_EL1", 40)
    assert state(bench.host("ICH_LR1_EL2")) == (ACTIVE if eoimode else INVALID)


@pytest.mark.parametrize(("direct", "first"), [(0x98, VLPI_ID), (0xA0, 40), (0xA8, 40)])
def test_row_13_on_a_tie_the_list_register_wins(direct: int, first: int) -> None:
    """A direct interrupt is taken first only with a strictly lower priority value."""
    bench = in_guest(lrs=(lr(40, 0xA0),))
    bench.cpu.vset(0, VLPI_ID, direct, 1)
    assert bench.guest("ICC_HPPIR1_EL1") == bench.guest("ICC_IAR1_EL1") == first


@pytest.mark.parametrize("intid", [8192, 0xFFFF])
def test_row_14_intids_of_lpis_are_not_checked_against_the_number_of_spis(intid: int) -> None:
    """The CPU interface takes and ends LPIs and vLPIs up to its 16 ID bits."""
    bench = in_guest(lrs=(lr(intid, 0xA0),))
    assert bench.guest("ICC_IAR1_EL1") == intid
    bench.guest("ICC_EOIR1_EL1", intid)
    assert state(bench.host("ICH_LR0_EL2")) == INVALID
    host = booted()
    host.cpu.set(intid, 0xD0, 1)
    assert host.host("ICC_IAR1_EL1") == intid
    host.host("ICC_EOIR1_EL1", intid)
    assert host.host("ICC_RPR_EL1") == 0xFF


def test_row_15_the_maintenance_interrupt_is_a_level() -> None:
    """NP is asserted while no list register is pending, and only then."""
    bench = in_guest(hcr=1 | 1 << 3, lrs=(lr(40, 0xA0),))
    assert not bench.maintenance()
    bench.guest("ICC_IAR1_EL1")
    assert bench.maintenance()
    bench.host("ICH_LR1_EL2", lr(41, 0xA0, lr_state=PENDING))
    assert not bench.maintenance()


def test_row_20_a_vsgi_comes_again_before_dir() -> None:
    """EOImode 1: a vSGI has no active state, so the next one is taken before the guest deactivates the first."""
    bench = in_guest(eoimode=1, hcr=1 | 1 << 8)
    for _ in range(2):
        bench.cpu.vset(0, 5, 0xA0, 1)
        assert bench.guest("ICC_IAR1_EL1") == 5
        bench.guest("ICC_EOIR1_EL1", 5)
    bench.guest("ICC_DIR_EL1", 5)
    assert bench.virq() is False


def test_row_27_iar_after_a_clear_race_is_spurious_and_its_eoir_harmless() -> None:
    """1023 taken and ended leaves the running priority of what is in service."""
    bench = in_guest(lrs=(lr(40, 0xA0),))
    assert bench.guest("ICC_IAR1_EL1") == 40
    bench.cpu.vset(0, VLPI_ID, 0x80, 1)
    assert bench.virq()
    bench.cpu.vclear(0, VLPI_ID)
    assert bench.guest("ICC_IAR1_EL1") == SPURIOUS
    bench.guest("ICC_EOIR1_EL1", SPURIOUS)
    assert bench.guest("ICC_RPR_EL1") == 0xA0 and eoicount(bench) == 0
