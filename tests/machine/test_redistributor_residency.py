"""Residency of vPEs, vLPIs, vSGIs and doorbells: the rules R1 to R12 that software relies on (IHI 0069H section 5.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosim.api import ns
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL,
    DOORBELL_LPI,
    GICR,
    INVALLR,
    INVLPIR,
    PENDING_LAST,
    VALID,
    VCONF,
    VGRP0,
    VGRP1,
    VPENDBASER,
    VPROPBASER,
    VPT,
    VSGIPENDR,
    VSGIR,
    Gic,
)

V, W = 8192, 8200
NO_DOORBELL = 1023


def mapped(*, enable: bool = True, **params: object) -> Gic:
    """vPE 1 mapped, vLPIs V and W configured."""
    gic = Gic(**params)  # type: ignore[arg-type]
    gic.map_vpe(1)
    gic.config(V, 0xA0, enable, base=VCONF)
    gic.config(W, 0x80, enable, base=VCONF)
    return gic


def enable_vsgi(gic: Gic, sgi: int, *, vpeid: int = 1, enable: int = 1, group: int = 1, priority: int = 0xA0) -> None:
    gic.send("CfgVsgi", vpeid, sgi, enable, group, priority)


# -- delivery --------------------------------------------------------------------------------------------------------------


def test_vlpi_reaches_the_resident_guest_with_its_priority_unshifted() -> None:
    """A vLPI of the resident vPE goes to the PE as Group 1 with the priority of its configuration byte; delivered once."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    assert gic.pes[0].vheld == (1, V, 0xA0, 1)
    assert gic.vtake() == V and gic.vtake() == 1023
    assert gic.rds[0].count["vlpi_delivered"] == 1 and gic.rds[0].count["doorbells"] == 0


def test_better_vlpi_replaces_the_one_held_and_both_arrive() -> None:
    """A vLPI of higher priority takes the place of the one the PE holds; the other follows."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    gic.send("SetVlpi", 1, W, NO_DOORBELL)
    assert [gic.vtake() for _ in range(3)] == [W, V, 1023]


def test_vsgis_collapse_until_the_acknowledge() -> None:
    """Two vSGIs before the acknowledge are one; one after it is delivered at once, since there is no active state."""
    gic = mapped()
    enable_vsgi(gic, 3)
    gic.schedule()
    gic.send("SetVsgi", 1, 3)
    gic.send("SetVsgi", 1, 3)
    assert gic.vtake() == 3 and gic.vtake() == 1023
    gic.send("SetVsgi", 1, 3)
    assert gic.vtake() == 3
    assert gic.rds[0].count["vsgi_delivered"] == 2


def test_vsgi_command_sets_configuration_or_clears_pending_never_both() -> None:
    """CfgVsgi leaves pending alone, ClearVsgi leaves the configuration alone."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVsgi", 1, 5)
    assert gic.vtake() == 1023
    enable_vsgi(gic, 5, priority=0x45)
    assert gic.pes[0].vheld == (1, 5, 0x40, 1)
    gic.send("ClearVsgi", 1, 5)
    assert gic.vtake() == 1023
    gic.send("SetVsgi", 1, 5)
    assert gic.vtake() == 5


def test_disabling_a_vsgi_withdraws_it_and_keeps_it_pending() -> None:
    """E=0 takes a vSGI away from the PE; E=1 brings it back."""
    gic = mapped()
    enable_vsgi(gic, 5)
    gic.schedule()
    gic.send("SetVsgi", 1, 5)
    enable_vsgi(gic, 5, enable=0)
    assert gic.vtake() == 1023
    enable_vsgi(gic, 5)
    assert gic.vtake() == 5


def test_group_enables_of_the_residency_hold_interrupts_back() -> None:
    """R10: with VGrp1En 0 vLPIs and Group 1 vSGIs stay pending; a residency with VGrp1En 1 delivers them."""
    gic = mapped()
    enable_vsgi(gic, 1, group=1)
    enable_vsgi(gic, 0, group=0)
    gic.schedule(groups=VGRP0)
    for fields in (("SetVlpi", 1, V, NO_DOORBELL), ("SetVsgi", 1, 1), ("SetVsgi", 1, 0)):
        gic.send(*fields)
    assert gic.vtake() == 0 and gic.vtake() == 1023
    gic.deschedule(pending_last=True)
    gic.schedule()
    assert sorted([gic.vtake(), gic.vtake()]) == [1, V]


def test_vlpi_configuration_becomes_visible_by_inv() -> None:
    """A pending vLPI that software enabled in memory stays disabled until InvVlpi, VInvAll, INVLPIR or INVALLR with V=1."""
    ways: list[Callable[[Gic], None]] = [
        lambda gic: gic.send("InvVlpi", 1, V),
        lambda gic: gic.send("VInvAll", 1),
        lambda gic: gic.write(INVLPIR, 1 << 63 | 1 << 32 | V, 8),
        lambda gic: gic.write(INVALLR, 1 << 63 | 1 << 32, 8),
    ]
    for invalidate in ways:
        gic = mapped(enable=False)
        gic.schedule()
        gic.send("SetVlpi", 1, V, NO_DOORBELL)
        gic.config(V, base=VCONF)
        gic.send("SetVlpi", 1, V, NO_DOORBELL)
        assert gic.vtake() == 1023
        invalidate(gic)
        assert gic.vtake() == V


def test_invall_does_not_cover_vlpis() -> None:
    """InvAll is for physical LPIs; a vLPI's configuration stays cached."""
    gic = mapped(enable=False)
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    gic.config(V, base=VCONF)
    gic.send("InvAll")
    assert gic.vtake() == 1023


def test_clear_vlpi_and_vsync_leave_nothing_at_the_pe() -> None:
    """DISCARD's ClearVlpi: when VSYNC completes the guest can no longer acknowledge the vLPI."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def clear() -> object:
        gic.its.send(0, "ClearVlpi", 1, V)
        await gic.its.vsync(1)
        return gic.pes[0].vheld

    assert gic.run(clear()) is None
    assert gic.vtake() == 1023


def test_vlpi_acknowledged_while_its_clear_is_on_the_way_is_delivered_once() -> None:
    """Activate crosses ClearVlpi and a new SetVlpi: the old one counts, and the new one is not lost."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def take() -> None:
        await gic.pes[0].sleep(ns(18))
        gic.pes[0].vtake()

    async def race() -> None:
        gic.its.send(0, "ClearVlpi", 1, V)
        gic.its.send(0, "SetVlpi", 1, V, NO_DOORBELL)

    gic.also("pe0", take())
    gic.run(race())
    assert gic.pes[0].vtaken == [(1, V)]
    assert gic.vtake() == V and gic.vtake() == 1023


# -- the register ----------------------------------------------------------------------------------------------------------


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


def test_interrupt_taken_while_the_deschedule_is_on_the_way_is_not_pending_last() -> None:
    """The guest acknowledges before the withdrawal reaches the PE: PendingLast is 0, and nothing comes twice."""
    gic = mapped()
    gic.schedule()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)

    async def take() -> None:
        await gic.pes[0].sleep(ns(42))  # the write arrives at 40, VClear would at 45
        gic.pes[0].vtake()

    async def leave() -> int:
        bus = gic.its.bus
        await bus.write64(GICR + VPENDBASER, 1 | DOORBELL)
        return await bus.read64(GICR + VPENDBASER)

    gic.also("pe0", take())
    assert not gic.run(leave()) & PENDING_LAST
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

    async def leave() -> int:
        bus = gic.its.bus
        await bus.write64(GICR + VPENDBASER, 1 | DOORBELL)
        return await bus.read64(GICR + VPENDBASER)

    gic.also("pe0", take())
    assert not gic.run(leave()) & (PENDING_LAST | DIRTY)


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


# -- mapping and memory ----------------------------------------------------------------------------------------------------


def test_map_reads_the_pending_table_unless_ptz() -> None:
    """MapVpe with PTZ=0 takes 4 KiB reads of the VPT and its pending bits; with PTZ=1 none."""
    gic = Gic()
    gic.config(V, base=VCONF)
    gic.memory.set_pending_bit(VPT + 0x1_0000, V)
    gic.map_vpe(1, ptz=1)
    assert gic.memory.reads == []
    gic.memory.set_pending_bit(VPT + 0x2_0000, V)
    gic.map_vpe(2, ptz=0)
    assert gic.memory.reads == [(VPT + 0x2_0000, 4096), (VPT + 0x2_1000, 4096)]
    gic.schedule(2)
    assert gic.vtake() == V


def test_requests_during_the_table_read_wait_in_order() -> None:
    """SetVlpi, ClearVlpi and VSYNC behind a MapVpe take effect after the table was read, in their order."""
    gic = Gic()
    gic.config(V, base=VCONF)
    gic.config(W, base=VCONF)
    gic.memory.set_pending_bit(VPT + 0x1_0000, V)

    async def burst() -> int:
        gic.its.send(0, "MapVpe", 1, 1, 0, VCONF, VPT + 0x1_0000, 15, NO_DOORBELL)
        gic.its.send(0, "ClearVlpi", 1, V)
        gic.its.send(0, "SetVlpi", 1, W, NO_DOORBELL)
        start = gic.its.now
        await gic.its.vsync(1)
        return gic.its.now - start

    assert gic.run(burst()) >= ns(160)
    gic.schedule()
    assert gic.vtake() == W and gic.vtake() == 1023


def test_unmap_with_alloc_writes_the_table_and_a_new_map_reads_it() -> None:
    """VMAPP V=0 Alloc=1 leaves pending vLPIs and vSGI state in the VPT; a later MapVpe with PTZ=0 finds them."""
    gic = mapped()
    enable_vsgi(gic, 2)
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    gic.send("SetVsgi", 1, 2)
    gic.send("UnmapVpe", 1, 0)
    assert gic.memory.writes == []

    async def unmap() -> bool:
        gic.its.send(0, "UnmapVpe", 1, 1)
        await gic.its.sync()
        return gic.memory.pending_bit(VPT + 0x1_0000, V)

    assert gic.run(unmap())
    gic.map_vpe(1, ptz=0)
    gic.schedule()
    assert sorted([gic.vtake(), gic.vtake()]) == [2, V]


def test_unmap_of_an_idle_vpe_writes_nothing() -> None:
    """Without pending interrupts there is nothing to write back."""
    gic = mapped()
    gic.send("UnmapVpe", 1, 1)
    assert gic.memory.writes == []


@pytest.mark.parametrize(
    ("kind", "fields", "counter"),
    [
        ("SetVsgi", (9, 1), "vsgi_dropped"),
        ("SetVlpi", (9, V, 1023), "vlpi_dropped"),
        ("CfgVsgi", (9, 1, 1, 1, 0), "vpe_errors"),
    ],
)
def test_requests_for_an_unmapped_vpe_are_dropped_with_a_count(
    kind: str, fields: tuple[int, ...], counter: str
) -> None:
    """What comes for a vPE that nobody maps is counted and logged; VSYNC for it still completes."""
    gic = mapped()
    gic.send(kind, *fields)
    assert gic.rds[0].count[counter] == 1
    gic.run(gic.its.vsync(9))
    gic.send("UnmapVpe", 1, 1)
    gic.send("SetVsgi", 1, 0)
    assert gic.rds[0].count["vsgi_dropped"] == (2 if kind == "SetVsgi" else 1)


def test_vlpi_out_of_range_is_counted() -> None:
    """A vINTID beyond the vPE's ID bits is dropped with a count."""
    gic = mapped()
    gic.send("SetVlpi", 1, 1 << 16, NO_DOORBELL)
    gic.send("SetVlpi", 1, 5, NO_DOORBELL)
    assert gic.rds[0].count["vlpi_dropped"] == 2


def test_vsgir_reads_the_pending_vsgis() -> None:
    """VSGIR, then VSGIPENDR: Busy at first, then the pending mask; 0 with a count for a vPE that is not mapped."""
    gic = mapped()
    gic.send("SetVsgi", 1, 3)
    gic.send("SetVsgi", 1, 15)

    async def query() -> tuple[int, int]:
        bus = gic.its.bus
        bus.post32(GICR + VSGIR, 1)
        first = await bus.read32(GICR + VSGIPENDR)
        await gic.its.sleep(ns(50))
        return first, await bus.read32(GICR + VSGIPENDR)

    assert gic.run(query()) == (1 << 31, 1 << 3 | 1 << 15)
    gic.write(VSGIR, 9)
    assert gic.read(VSGIPENDR) == 0 and gic.rds[0].count["vpe_errors"] == 1


# -- GICv4.0 ---------------------------------------------------------------------------------------------------------------


def v40() -> Gic:
    gic = Gic(gic_version="4.0")
    gic.config(DOORBELL_LPI)
    gic.config(V, base=VCONF)
    gic.send("MapVpe", 1, 0, 0, 0, VPT, 15, NO_DOORBELL)
    return gic


def test_v40_individual_doorbell_rings_each_time() -> None:
    """GICv4.0: SetVlpi of a vPE that is not resident rings the interrupt's own doorbell, every time."""
    gic = v40()
    for n in (1, 2):
        gic.send("SetVlpi", 1, V, DOORBELL_LPI)
        assert gic.take() == DOORBELL_LPI and gic.rds[0].count["doorbells"] == n


def test_v40_residency_goes_by_the_address_of_the_pending_table() -> None:
    """GICv4.0: VPENDBASER names the VPT, VPROPBASER the configuration; the deschedule writes the VPT before Dirty is 0."""
    gic = v40()
    gic.send("SetVlpi", 1, V, NO_DOORBELL)
    gic.write(VPROPBASER, VCONF | 15, 8)
    gic.write(VPENDBASER, VALID | VPT, 8)
    assert gic.pes[0].vheld == (1, V, 0xA0, 1)
    gic.write(VPENDBASER, VPT, 8)
    assert gic.read(VPENDBASER, 8) & (DIRTY | PENDING_LAST) == PENDING_LAST
    assert gic.memory.pending_bit(VPT, V)
    gic.write(VPENDBASER, VALID | VPT, 8)
    assert gic.vtake() == V
    gic.write(VPENDBASER, VPT, 8)
    assert not gic.read(VPENDBASER, 8) & PENDING_LAST and not gic.memory.pending_bit(VPT, V)
