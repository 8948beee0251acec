"""What guests ask KVM for by trapped instructions: SGIs and PSCI; and the virtual timer's arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.arch.cpu import vcpu_mpidr
from nodes.hypervisor.kvm import psci, sgi
from nodes.hypervisor.kvm.timer import VTimer

MPIDRS = [vcpu_mpidr(n) for n in range(40)]


@pytest.mark.parametrize(
    ("value", "targets"),
    [
        (0x0000_0000_0100_0002, (1,)),
        (0x0000_0000_0100_0055, (0, 2, 4, 6)),
        (0x0000_0100_0100_0000, (0, *range(2, 40))),
        (0x0000_0000_0101_0003, (16, 17)),
        (0x0000_1000_0100_0001, ()),
        (0x0000_0001_0100_0001, ()),
    ],
)
def test_sgi1r_values_decode_to_their_targets(value: int, targets: tuple[int, ...]) -> None:
    """kvm-unit-tests' values, another Aff1, a range selector and an Aff2 without PEs give the expected vCPUs."""
    assert sgi.decode("ICC_SGI1R_EL1", value, MPIDRS, 1) == ("ICC_SGI1R_EL1", 1, targets)


@given(st.sets(st.integers(0, 15)), st.integers(0, 2), st.integers(0, 15))
def test_a_target_list_is_what_was_encoded(numbers: set[int], aff1: int, intid: int) -> None:
    """Any target list of one Aff1 decodes to exactly its vCPUs, whoever sends."""
    value = intid << 24 | aff1 << 16 | sum(1 << n for n in numbers)
    expected = tuple(n + 16 * aff1 for n in sorted(numbers) if n + 16 * aff1 < len(MPIDRS))
    assert sgi.decode("ICC_SGI1R_EL1", value, MPIDRS, 0).targets == expected


@pytest.mark.parametrize(
    ("esr", "name"),
    [
        (0x623A_3016, "ICC_SGI1R_EL1"),
        (0x623A_3016 + (19 << 5), "ICC_SGI1R_EL1"),
        (0x623C_3016, "ICC_ASGI1R_EL1"),
        (0x623E_3016, "ICC_SGI0R_EL1"),
        (0x623A_3017, None),
    ],
)
def test_syndromes_name_the_sgi_register(esr: int, name: str | None) -> None:
    """ESR_EL2 tells the three registers apart, whatever Rt; a read is none of them."""
    assert sgi.register_of(esr) == name


def test_cpu_on_starts_a_cpu_once_and_only_one_that_exists() -> None:
    """CPU_ON returns SUCCESS with what to start, ALREADY_ON, or INVALID_PARAMETERS."""
    affinities, powered = MPIDRS[:2], [True, False]
    call = psci.call((0xC400_0003, 1, 0x8000_1000, 7), affinities, powered)
    assert call == (0, "on", 1, 0x8000_1000, 7)
    assert psci.call((0x8400_0003, 0, 0, 0), affinities, powered).x0 == psci.ALREADY_ON
    assert psci.call((0xC400_0003, 2, 0, 0), affinities, powered).x0 == psci.INVALID_PARAMETERS


def test_other_psci_functions() -> None:
    """VERSION is 1.0, AFFINITY_INFO shows power, SYSTEM_OFF acts, an unknown function is NOT_SUPPORTED."""
    affinities, powered = MPIDRS[:2], [True, False]
    results = [
        psci.call((f, 1, 0, 0), affinities, powered) for f in (0x8400_0000, 0xC400_0004, 0x8400_0008, 0x8400_00FF)
    ]
    assert [(r.x0, r.action) for r in results] == [
        (0x1_0000, ""),
        (1, ""),
        (0, "system_off"),
        (psci.NOT_SUPPORTED, "unknown"),
    ]


@given(st.integers(1, 10**9), st.integers(0, 10**12))
def test_the_timer_rises_at_its_deadline(frequency: int, cval: int) -> None:
    """`deadline` is the first picosecond at which the level is high."""
    timer = VTimer(frequency)
    timer.ctl, timer.cval = 1, cval
    deadline = timer.deadline()
    assert deadline is not None and timer.level(deadline)
    assert deadline == 0 or not timer.level(deadline - 1)


def test_a_masked_timer_has_no_deadline() -> None:
    """IMASK or a clear ENABLE means no interrupt, ever."""
    timer = VTimer(10**9)
    for ctl in (0, 2, 3):
        timer.ctl = ctl
        assert timer.deadline() is None and not timer.level(10**15)
