"""What a redistributor does for a vPE: vLPIs and vSGIs delivered, tables in memory, GICv4.0 (IHI 0069H section 5.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosim.api import ns
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL_LPI,
    INVALLR,
    INVLPIR,
    NO_DOORBELL,
    PENDING_LAST,
    VALID,
    VCONF,
    VGRP0,
    VPENDBASER,
    VPROPBASER,
    VPT,
    VSGIPENDR,
    VSGIR,
    Gic,
    V,
    W,
    enable_vsgi,
    mapped,
)

# -- delivery ----------------------------------------------------------------------------------------------------------


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


# -- mapping and memory ------------------------------------------------------------------------------------------------


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

    assert gic.write_and_watch(VSGIR, 1, VSGIPENDR, ns(50)) == (1 << 31, 1 << 3 | 1 << 15)
    gic.write(VSGIR, 9)
    assert gic.read(VSGIPENDR) == 0 and gic.rds[0].count["vpe_errors"] == 1


# -- GICv4.0 -----------------------------------------------------------------------------------------------------------


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
