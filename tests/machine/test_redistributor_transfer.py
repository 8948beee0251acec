"""vPEs that move: VMOVP, residency away from home, VMOVI; nothing lost, nothing doubled, VSYNC means what it says."""

from __future__ import annotations

import pytest

from cosim.api import ns
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL_LPI,
    GICR,
    INVALLR,
    INVLPIR,
    PENDING_LAST,
    STRIDE,
    SYNCR,
    VALID,
    VCONF,
    VGRP1,
    VPENDBASER,
    VPT,
    VSGIPENDR,
    VSGIR,
    Gic,
)

V, W = 8192, 8200
NO = 1023


def two(n: int = 2) -> Gic:
    """vPE 1 at home on redistributor 0, with a pending vLPI and a pending vSGI."""
    gic = Gic(n)
    gic.map_vpe(1)
    gic.config(V, 0xA0, base=VCONF)
    gic.config(W, 0xB0, base=VCONF)
    gic.send("CfgVsgi", 1, 3, 1, 1, 0x40)
    gic.send("SetVlpi", 1, V, NO)
    gic.send("SetVsgi", 1, 3)
    return gic


def vtakes(gic: Gic, rd: int) -> list[int]:
    """Everything the guest on PE `rd` can acknowledge."""
    taken = []
    while (intid := gic.vtake(rd)) != 1023:
        taken.append(intid)
    return taken


def test_vmovp_hands_the_state_over_before_vsync_completes() -> None:
    """MoveVpe then VSYNC at the old home: when it completes, the new home has pending and configuration."""
    gic = two()

    async def move() -> bool:
        gic.its.send(0, "MoveVpe", 1, 1, 1, DOORBELL_LPI)
        await gic.its.vsync(1, rd=0)
        return 1 in gic.rds[1].vpes.table and 1 not in gic.rds[0].vpes.table

    assert gic.run(move())
    gic.schedule(rd=1)
    assert vtakes(gic, 1) == [3, V]
    assert gic.rds[1].count["vlpi_delivered"] == 1 and gic.rds[1].count["vsgi_delivered"] == 1


def test_what_arrives_at_the_new_home_before_the_state_waits_for_it() -> None:
    """SetVlpi and VSYNC sent to the new home together with MoveVpe take effect once the state is there; nothing is dropped."""
    gic = two()

    async def move() -> None:
        gic.its.send(0, "MoveVpe", 1, 1, 1, DOORBELL_LPI)
        gic.its.send(1, "SetVlpi", 1, W, NO)
        await gic.its.vsync(1, rd=1)
        assert W in gic.rds[1].vpes.table[1].pending

    gic.run(move())
    gic.schedule(rd=1)
    assert vtakes(gic, 1) == [3, V, W]
    assert gic.rds[1].count["vlpi_dropped"] == 0


def test_former_home_passes_on_what_still_comes() -> None:
    """Requests and VSYNC that reach a former home follow the vPE over two moves."""
    gic = two(3)
    gic.send("MoveVpe", 1, 1, 1, DOORBELL_LPI)
    gic.send("MoveVpe", 1, 2, 1, DOORBELL_LPI, rd=1)

    async def late() -> None:
        gic.its.send(0, "ClearVlpi", 1, V)
        gic.its.send(0, "SetVlpi", 1, W, NO)
        await gic.its.vsync(1, rd=0)
        assert gic.rds[2].vpes.table[1].pending == {W}

    gic.run(late())
    gic.schedule(rd=2)
    assert vtakes(gic, 2) == [3, W]


def test_moving_there_and_back_loses_nothing() -> None:
    """A vPE that returns to its first home is whole, and the home no longer forwards."""
    gic = two()
    gic.send("MoveVpe", 1, 1, 1, DOORBELL_LPI)
    gic.send("MoveVpe", 1, 0, 1, DOORBELL_LPI, rd=1)
    gic.send("SetVlpi", 1, W, NO)
    gic.schedule()
    assert vtakes(gic, 0) == [3, V, W]


def test_doorbell_goes_to_the_new_home() -> None:
    """After VMOVP with DB=1 the requested default doorbell rings at the new home; with DB=0 none is outstanding."""
    for keep, expected in ((1, DOORBELL_LPI), (0, 1023)):
        gic = two()
        gic.schedule()
        assert vtakes(gic, 0) == [3, V]
        gic.deschedule(doorbell=True)
        gic.send("MoveVpe", 1, 1, keep, DOORBELL_LPI)
        gic.send("SetVlpi", 1, W, NO, rd=1)
        assert gic.take(1) == expected and gic.take(0) == 1023


def test_residency_away_from_home_claims_the_vpe() -> None:
    """A vPE made resident on another redistributor is claimed; Dirty lasts until then; later events reach it through home."""
    gic = two(3)

    async def schedule() -> list[int]:
        bus, address = gic.its.bus, GICR + 2 * STRIDE + VPENDBASER
        bus.post64(address, VALID | VGRP1 | 1)
        values = [await bus.read64(address)]
        await gic.its.sleep(1_000_000)
        return [*values, await bus.read64(address)]

    first, later = gic.run(schedule())
    assert first & DIRTY and not later & DIRTY
    assert vtakes(gic, 2) == [3, V]
    gic.send("SetVlpi", 1, W, NO)
    assert vtakes(gic, 2) == [W]


def test_a_claim_that_was_answered_does_not_end_a_later_one() -> None:
    """The limit on waiting for a claim counts from that claim: claims in quick succession all succeed."""
    gic = two()
    for n in range(60):
        gic.schedule(rd=n % 2)
        gic.deschedule(rd=n % 2, pending_last=True)
    assert gic.rds[0].count["vpe_errors"] == gic.rds[1].count["vpe_errors"] == 0
    gic.schedule(rd=0)
    assert vtakes(gic, 0) == [3, V]


def test_doorbell_of_a_vpe_away_from_home_rings_at_home() -> None:
    """The default doorbell LPI belongs to the home that VMAPP named, also when the vPE last ran elsewhere."""
    gic = two()
    gic.schedule(rd=1)
    assert vtakes(gic, 1) == [3, V]
    gic.deschedule(rd=1, doorbell=True)
    gic.send("SetVlpi", 1, W, NO)
    assert gic.take(0) == DOORBELL_LPI and gic.take(1) == 1023
    assert gic.rds[0].count["doorbells"] == 1
    gic.schedule(rd=1)
    assert vtakes(gic, 1) == [W]


def test_residency_elsewhere_takes_the_doorbell_back_from_home() -> None:
    """Making the vPE resident on another redistributor clears the doorbell that is pending at home."""
    gic = two()
    gic.schedule()
    vtakes(gic, 0)
    gic.deschedule(doorbell=True)
    gic.send("SetVlpi", 1, W, NO)
    assert gic.holds()
    gic.schedule(rd=1)
    assert gic.take(0) == 1023 and vtakes(gic, 1) == [W]


def test_a_vpe_is_resident_on_one_redistributor_only() -> None:
    """R1: a second residency gets nothing and is counted; the first goes on."""
    gic = two()
    gic.schedule()
    gic.schedule(rd=1)
    assert not gic.read(VPENDBASER, 8, rd=1) & DIRTY
    assert vtakes(gic, 1) == [] and vtakes(gic, 0) == [3, V]
    assert gic.rds[0].count["vpe_errors"] >= 1 and gic.rds[1].count["vpe_errors"] == 1


def test_vmovp_of_a_resident_vpe_is_counted_and_loses_nothing() -> None:
    """VMOVP of a resident vPE: it stays where it runs, its new home passes events on."""
    gic = two()
    gic.schedule()
    gic.send("MoveVpe", 1, 1, 1, DOORBELL_LPI)
    gic.send("SetVlpi", 1, W, NO, rd=1)
    assert vtakes(gic, 0) == [3, V, W]
    assert gic.rds[0].count["vpe_errors"] == 1


def test_vmovi_moves_pending_between_vpes() -> None:
    """MoveVlpi takes the pending vLPI from the guest that holds it to the other vPE, before SYNC completes."""
    gic = two()
    gic.map_vpe(2, rd=1)
    gic.schedule()
    gic.schedule(2, rd=1)
    gic.vtake(0)
    assert gic.pes[0].vheld is not None

    async def move() -> None:
        gic.its.send(0, "MoveVlpi", 1, V, 2, 1, NO)
        await gic.its.sync(0)
        assert gic.pes[0].vheld is None

    gic.run(move())
    assert vtakes(gic, 0) == [] and vtakes(gic, 1) == [V]


def test_vmovi_rings_the_doorbell_of_a_destination_that_is_not_resident() -> None:
    """A pending vLPI that moves to a vPE waiting for its doorbell rings it."""
    gic = two()
    gic.map_vpe(2, rd=1)
    gic.schedule(2, rd=1)
    gic.deschedule(rd=1, doorbell=True)
    gic.send("MoveVlpi", 1, V, 2, 1, NO)
    assert gic.take(1) == DOORBELL_LPI


def test_unmap_follows_a_claimed_vpe_before_sync_completes() -> None:
    """UnmapVpe at home of a vPE that last ran elsewhere: after SYNC the table in memory is current."""
    gic = two()
    gic.schedule(rd=1)
    vtakes(gic, 1)
    gic.deschedule(rd=1, pending_last=True)
    gic.send("SetVlpi", 1, W, NO)

    async def unmap() -> bool:
        gic.its.send(0, "UnmapVpe", 1, 1)
        await gic.its.sync(0)
        return gic.memory.pending_bit(VPT + 0x1_0000, W)

    assert gic.run(unmap())
    assert 1 not in gic.rds[1].vpes.table


def test_registers_reach_a_vpe_that_moved() -> None:
    """INVLPIR (V=1) and VSGIR at a former home work on the vPE where it is now."""
    gic = two()
    gic.config(W, enable=False, base=VCONF)
    gic.send("SetVlpi", 1, W, NO)
    gic.schedule(rd=1)
    assert gic.deschedule(rd=1) & PENDING_LAST
    gic.write(VSGIR, 1)
    assert gic.read(VSGIPENDR) == 1 << 3
    gic.schedule(rd=1)
    assert vtakes(gic, 1) == [3, V]
    gic.config(W, base=VCONF)
    gic.write(INVLPIR, 1 << 63 | 1 << 32 | W, 8)
    assert vtakes(gic, 1) == [W]


def test_unknown_forwarded_kind_is_counted() -> None:
    """A forwarded message that no redistributor knows is dropped with a count."""
    gic = Gic(2)
    gic.rds[1].transfer.received(0, "Nonsense", ())
    assert gic.rds[1].count["net_errors"] == 1


@pytest.mark.parametrize("register", ["INVLPIR", "INVALLR"])
def test_invalidation_reaches_a_vpe_from_any_redistributor(register: str) -> None:
    """INVLPIR and INVALLR with V=1 work on a redistributor that never had the vPE, and SYNCR.Busy lasts until they have."""
    gic = Gic(3)
    gic.map_vpe(1, rd=2)
    gic.config(8200, enable=False, base=VCONF)
    gic.send("SetVlpi", 1, 8200, 1023, rd=2)
    gic.schedule(1, rd=2)
    assert gic.vtake(2) == 1023
    gic.config(8200, base=VCONF)
    bus = gic.its.bus

    async def body() -> bool:
        if register == "INVLPIR":
            await bus.write64(GICR + INVLPIR, 1 << 63 | 1 << 32 | 8200)
        else:
            await bus.write64(GICR + INVALLR, 1 << 63 | 1 << 32)
        while await bus.read32(GICR + SYNCR):
            await gic.its.sleep(ns(20))
        return gic.pes[2].vheld is not None

    assert gic.run(body()), "held by the PE when Busy is 0"
    assert gic.vtake(2) == 8200
    assert not any(rd.count["vpe_errors"] for rd in gic.rds)


def test_invalidation_of_a_vpe_that_nobody_has_is_counted() -> None:
    """INVLPIR for an unmapped vPE ends, with a count; SYNCR.Busy does not stay."""
    gic = Gic(2)
    gic.write(INVLPIR, 1 << 63 | 9 << 32 | 8200, 8)
    assert gic.read(SYNCR) == 0 and gic.rds[0].count["vpe_errors"] == 1


@pytest.mark.parametrize("what", ["residency", "VSGIR", "INVALLR"])
def test_knowledge_of_an_earlier_life_of_a_vpe_does_not_mislead(what: str) -> None:
    """A vPE moved from 0 to 2, was unmapped there and is mapped at 1: redistributor 0, which remembers 2, still finds it."""
    gic = Gic(3)
    gic.map_vpe(1, rd=0)
    gic.send("MoveVpe", 1, 2, 0, 1023, rd=0)
    gic.send("UnmapVpe", 1, 1, rd=2)
    gic.map_vpe(1, rd=1)
    gic.send("CfgVsgi", 1, 4, 1, 1, 0x80, rd=1)
    gic.send("SetVsgi", 1, 4, rd=1)
    if what == "residency":
        gic.schedule(1, rd=0)
        assert gic.vtake(0) == 4
    elif what == "VSGIR":
        gic.write(VSGIR, 1)
        assert gic.read(VSGIPENDR) == 1 << 4
    else:
        gic.write(INVALLR, 1 << 63 | 1 << 32, 8)
    assert not any(rd.count["vpe_errors"] for rd in gic.rds)
