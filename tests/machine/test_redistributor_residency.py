"""Residency of vPEs and their doorbells: the rules R1 to R14 that software relies on (IHI 0069H section 5.4)."""

from __future__ import annotations

import pytest

from cosim.api import ns
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL,
    DOORBELL_LPI,
    GICR,
    NO_DOORBELL,
    PENDING_LAST,
    VALID,
    VCONF,
    VGRP0,
    VGRP1,
    VPENDBASER,
    VPROPBASER,
    VPT,
    Gic,
    V,
    W,
    enable_vsgi,
    mapped,
)


def test_r2_no_field_changes_while_valid() -> None:
    """R2: a write that changes a field while Valid stays 1 is ignored and counted."""
    gic = mapped()
    gic.schedule(groups=VGRP1)
    before = gic.read(VPENDBASER, 8)
    gic.write(VPENDBASER, before | VGRP0, 8)
    assert gic.read(VPENDBASER, 8) == before and gic.rds[0].count["vpend_ignored"] == 1


def test_r3_no_schedule_before_the_deschedule_has_ended() -> None:
    """R3: Valid=1 while the last deschedule is Dirty is ignored and counted; afterwards it works."""
    gic = mapped()
    gic.schedule()

    async def hurry() -> tuple[int, int]:
        bus = gic.its.bus
        bus.post64(GICR + VPENDBASER, 1)
        bus.post64(GICR + VPENDBASER, VALID | VGRP1 | 1)
        first = await bus.read64(GICR + VPENDBASER)
        await gic.its.sleep(ns(100))
        return first, await bus.read64(GICR + VPENDBASER)

    first, later = gic.run(hurry())
    assert first & DIRTY and not first & VALID and not later & (DIRTY | VALID)
    assert gic.rds[0].count["vpend_ignored"] == 1
    gic.schedule()
    assert gic.read(VPENDBASER, 8) & VALID


def test_r4_dirty_until_the_pending_interrupts_were_looked_at() -> None:
    """R4: PendingLast reads as 1 after Valid=1, and Dirty is 1 until the configuration of what is pending has been read."""
    gic = mapped()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def schedule() -> list[int]:
        bus, values = gic.its.bus, []
        bus.post64(GICR + VPENDBASER, VALID | VGRP1 | 1)
        for _ in range(3):
            values.append(await bus.read64(GICR + VPENDBASER))
        return values

    values = gic.run(schedule())
    assert [bool(value & DIRTY) for value in values] == [True, True, False]
    assert all(value & PENDING_LAST for value in values)
    assert gic.vtake() == V


def test_r5_deschedule_is_refused_while_scheduling() -> None:
    """R5: Valid=0 while the schedule is Dirty is refused, as on GIC-700, and counted."""
    gic = mapped()

    async def hurry() -> int:
        bus = gic.its.bus
        bus.post64(GICR + VPENDBASER, VALID | VGRP1 | 1)
        bus.post64(GICR + VPENDBASER, 1)
        await gic.its.sleep(ns(200))
        return await bus.read64(GICR + VPENDBASER)

    assert gic.run(hurry()) & (VALID | DIRTY) == VALID
    assert gic.rds[0].count["vpend_ignored"] == 1


def test_r6_deschedule_takes_back_what_the_pe_holds() -> None:
    """R6: Dirty is 1 until the virtual interface has given back its interrupt; then it is still pending, not lost."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.deschedule() & PENDING_LAST
    assert gic.pes[0].vheld is None
    gic.schedule()
    assert gic.vtake() == V and gic.vtake() == 1023


async def leave(gic: Gic) -> int:
    """Deschedule, and read VPENDBASER once."""
    bus = gic.its.bus
    await bus.write64(GICR + VPENDBASER, 1 | DOORBELL)
    return await bus.read64(GICR + VPENDBASER)


def test_interrupt_taken_while_the_deschedule_is_on_the_way_is_not_pending_last() -> None:
    """The guest acknowledges before the withdrawal reaches the PE: PendingLast is 0, and nothing comes twice."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def take() -> None:
        await gic.pes[0].sleep(ns(42))  # the write arrives at 40, VClear would at 45
        gic.pes[0].vtake()

    gic.also("pe0", take())
    assert not gic.run(leave(gic)) & PENDING_LAST
    gic.schedule()
    assert gic.vtake() == 1023 and gic.pes[0].vtaken == [(1, V)]


def test_r6_dirty_waits_for_the_answer_of_the_pe() -> None:
    """R6: however short the deschedule itself is, PendingLast is worked out after the virtual interface has answered."""
    gic = mapped(busy_ps=1)
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def take() -> None:
        await gic.pes[0].sleep(ns(44))  # the write arrives at 40, VClear at the PE at 45
        gic.pes[0].vtake()

    gic.also("pe0", take())
    assert not gic.run(leave(gic)) & (PENDING_LAST | DIRTY)


@pytest.mark.parametrize("why", ["disabled", "group off", "nothing"])
def test_r7_pending_last_counts_deliverable_interrupts_only(why: str) -> None:
    """R7: PendingLast is 0 when what is pending is disabled or of a group that is off."""
    gic = mapped(enable=why != "disabled")
    gic.schedule(groups=0 if why == "group off" else VGRP1)
    if why != "nothing":
        gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert not gic.deschedule() & PENDING_LAST


def test_r8_pending_last_written_as_one_means_no_doorbell() -> None:
    """R8: Valid=0 with PendingLast=1 reads back 1, and no doorbell rings however much comes."""
    gic = mapped()
    gic.schedule()
    assert gic.deschedule(pending_last=True, doorbell=True) & (PENDING_LAST | DOORBELL) == PENDING_LAST
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert not gic.holds() and gic.rds[0].count["doorbells"] == 0


def test_r9_doorbell_rings_once_in_a_gap() -> None:
    """R9: with nothing pending the doorbell rings for the first interrupt, and not again until the next residency."""
    gic = mapped()
    gic.schedule()
    assert not gic.deschedule(doorbell=True) & PENDING_LAST
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.take() == DOORBELL_LPI
    gic.send("SetVlpi", 1, W, NO_DOORBELL)
    assert gic.take() == 1023 and gic.rds[0].count["doorbells"] == 1
    gic.schedule()
    assert sorted([gic.vtake(), gic.vtake()]) == [V, W]
    gic.deschedule(doorbell=True)
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.take() == DOORBELL_LPI and gic.rds[0].count["doorbells"] == 2


def test_r9_no_doorbell_when_something_is_pending() -> None:
    """R9: with something pending at the deschedule PendingLast reads 1, Doorbell counts as 0, and none rings."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.deschedule(doorbell=True) & (PENDING_LAST | DOORBELL) == PENDING_LAST
    gic.send("SetVlpi", 1, W, NO_DOORBELL)
    assert gic.take() == 1023


def test_r10_doorbell_rings_for_enabled_interrupts_only() -> None:
    """R10: a disabled vLPI or vSGI rings no doorbell; when it is enabled while pending, it does."""

    def vlpi(gic: Gic) -> None:
        gic.config(V, base=VCONF)
        gic.send("InvVlpi", 1, V)

    def vsgi(gic: Gic) -> None:
        enable_vsgi(gic, 4)

    for enable_late in (vlpi, vsgi):
        gic = mapped(enable=False)
        gic.schedule()
        gic.deschedule(doorbell=True)
        gic.send("SetVlpi", 1, V, NO_DOORBELL)
        gic.send("SetVsgi", 1, 4)
        assert gic.take() == 1023
        enable_late(gic)
        assert gic.take() == DOORBELL_LPI


def test_doorbell_follows_the_group_enables_of_the_last_residency() -> None:
    """A vPE that left with VGrp1En=0 gets no doorbell for Group 1."""
    gic = mapped()
    gic.schedule(groups=VGRP0)
    gic.deschedule(doorbell=True)
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.take() == 1023


def test_residency_takes_a_pending_doorbell_back() -> None:
    """R4: making the vPE resident clears its pending default doorbell, also from the PE that holds it."""
    gic = mapped()
    gic.schedule()
    gic.deschedule(doorbell=True)
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.holds()
    gic.schedule()
    assert gic.take() == 1023 and gic.vtake() == V


def test_doorbell_configuration_needs_invdb() -> None:
    """A masked doorbell LPI stays masked after software enabled it in memory, until InvDb."""
    gic = mapped()
    gic.config(DOORBELL_LPI, enable=False)
    gic.schedule()
    gic.deschedule(doorbell=True)
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    gic.config(DOORBELL_LPI)
    assert gic.take() == 1023 and gic.rds[0].count["doorbells"] == 0
    gic.send("InvDb", 1)
    assert gic.take() == DOORBELL_LPI and gic.rds[0].count["doorbells"] == 1


def test_event_during_the_deschedule_rings_the_doorbell() -> None:
    """An interrupt that arrives while Dirty is 1 is not lost: the doorbell rings for it afterwards."""
    gic = mapped()
    gic.schedule()

    async def race() -> None:
        gic.its.bus.post64(GICR + VPENDBASER, 1 | DOORBELL)
        await gic.its.sleep(ns(21))
        gic.its.send(0, "SetVlpi", 1, V, NO_DOORBELL)

    gic.run(race())
    assert gic.take() == DOORBELL_LPI


def test_r12_vpropbaser_is_fixed_during_residency_and_needed_for_it() -> None:
    """R12: VPROPBASER cannot change while a vPE is resident; without its Valid no vPE is mapped or becomes resident."""
    gic = mapped()
    gic.schedule()
    before = gic.read(VPROPBASER, 8)
    gic.write(VPROPBASER, 0, 8)
    assert gic.read(VPROPBASER, 8) == before
    gic.deschedule(pending_last=True)
    gic.write(VPROPBASER, 0, 8)
    gic.schedule()
    gic.send("MapVpe", 2, 1, 1, VCONF, VPT, 15, NO_DOORBELL)
    assert not gic.read(VPENDBASER, 8) & VALID
    assert gic.rds[0].count["vpe_errors"] == 1 and gic.rds[0].count["vpend_ignored"] == 1


def test_r14_stale_valid_is_cleared_without_harm() -> None:
    """R14: a vPE that nobody has is given up with a count; Valid can then be cleared and another vPE scheduled."""
    gic = mapped()
    gic.schedule(77)
    assert gic.read(VPENDBASER, 8) & (VALID | DIRTY) == VALID
    assert gic.rds[0].count["vpe_errors"] == 1
    gic.deschedule(pending_last=True)
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.vtake() == V
