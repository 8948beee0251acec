"""Behaviours of distributor and redistributors that implementations commonly get wrong (fact sheet 13), one test each.

The number in each docstring is the sheet's row. Rows of the CPU interface are in `test_commonly_wrong_cpu.py`, KVM's in
`test_commonly_wrong_kvm.py`.
"""

from __future__ import annotations

import pytest

from cosim.api import SECURE, ns
from nodes.arch.its_commands import encode
from tests.machine.gic_machine import (
    CREADR,
    CWRITER,
    DB,
    GICD,
    GICR,
    GITS,
    LPI,
    NONE,
    STRIDE,
    VCONF,
    VLPI,
    VPT,
    GicMachine,
    deschedule,
    event,
    mapti,
    sgir,
    sync,
    vmapti,
    vsync,
    with_lpi,
    with_vpes,
)
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL,
    PENDING_LAST,
    SGI_BASE,
    VALID,
    VGRP1,
    VPENDBASER,
    VSGIPENDR,
    VSGIR,
)

# -- physical LPIs, SGIs -----------------------------------------------------------------------------------------------


def test_an_lpi_has_no_active_state_and_may_be_pended_again_in_service() -> None:
    """8: after the acknowledge, before any EOI, the same LPI can be made pending and is offered again; then comes the next one."""
    gic = with_lpi()
    gic.config(LPI + 1)
    gic.do(mapti(2, LPI + 1, 0), sync(0))
    gic.msi(1)
    assert gic.take() == LPI
    gic.msi(1)
    gic.msi(2)
    assert (gic.take(), gic.take(), gic.take()) == (LPI, LPI + 1, NONE)


@pytest.mark.parametrize("how", ["CLEAR", "DISCARD", "INV", "MOVI", "MAPC"])
def test_what_was_sent_to_the_pe_is_withdrawn(how: str) -> None:
    """9: CLEAR, DISCARD, a disable with INV, and MOVI take an LPI back that the CPU interface holds; MAPC alone does not."""
    gic = with_lpi()
    gic.msi(1)
    assert gic.held() != NONE
    if how == "MOVI":
        gic.do(event("MOVI", 1, icid=1), sync(0))
    elif how == "MAPC":
        gic.do(encode("MAPC", icid=0, rdbase=1, valid=1), sync(0))
    else:
        gic.config(LPI, enable=how != "INV")
        gic.do(event(how, 1), sync(0))
    assert (gic.held() == NONE) == (how != "MAPC")
    assert gic.take(1) == (LPI if how == "MOVI" else NONE)


def test_an_acknowledge_that_crosses_clear_leaves_nothing_behind() -> None:
    """27: whenever the PE looks while a CLEAR is on its way, it gets the LPI or 1023, and afterwards always 1023."""
    for delay in range(0, 400, 25):
        gic = with_lpi()
        gic.msi(1)

        async def take(gic: GicMachine = gic, delay: int = delay) -> None:
            await gic.pes[0].sleep(ns(delay))
            assert gic.pes[0].take() in (LPI, NONE)

        gic.also("pe0", take())
        gic.do(event("CLEAR", 1), sync(0))
        assert gic.take() == NONE and gic.faults() == {}
        gic.msi(1)
        assert gic.take() == LPI


def test_broadcast_sgi_excludes_the_sender_and_lists_may_name_it() -> None:
    """26: IRM = 1 reaches all but the sender whatever the target fields say; a target list with the sender is a self-SGI."""
    gic = GicMachine(n=3)
    for i in range(3):
        gic.write(GICR + i * STRIDE + SGI_BASE + 0x100, 0xFFFF)

    def generate(sender: int, value: int) -> list[int]:
        async def send() -> None:
            gic.pes[sender].up("GenerateSgi", "SGI1R", value, 1)

        gic.bench.call(f"pe{sender}", send())
        return [gic.take(i) for i in range(3)]

    assert generate(1, 1 << 40 | 1 << 24 | 0x2_0000_0001) == [1, NONE, 1]
    assert generate(1, 1 << 24 | 1 << 32 | 1) == [NONE, 1, NONE]
    assert generate(1, 2 << 24 | 1 << 32 | 1 << 44 | 1) == [NONE, NONE, NONE], "RS names Aff0 16 to 31"


def test_icactiver0_deactivates_an_sgi_that_was_never_ended() -> None:
    """28: cleared by ICACTIVER0, the SGI can be taken again, and so can another one."""
    gic = GicMachine(n=1)
    base = GICR + SGI_BASE
    gic.write(base + 0x100, 0xFFFF)
    gic.write(base + 0x200, 1 << 3)
    assert gic.take() == 3 and gic.read(base + 0x300) == 1 << 3
    gic.write(base + 0x200, 1 << 3)
    assert gic.take() == NONE
    gic.write(base + 0x380, 1 << 3)
    gic.write(base + 0x200, 1 << 2)
    assert gic.read(base + 0x300) == 0
    assert (gic.take(), gic.take()) == (2, 3)


def test_nassgireq_changes_only_with_the_groups_off() -> None:
    """25: on a machine with one Security state; with a group on the bit stays, and with two states it is RES0."""
    gic = GicMachine(n=1, two_security_states=False, nassgi_cap=True)
    gic.write(GICD, 3 | 1 << 8)
    assert gic.read(GICD) >> 8 & 1 == 0 and gic.dist.count["ctlr_ignored"] == 1
    gic.write(GICD, 0)
    gic.write(GICD, 3 | 1 << 8)
    assert gic.read(GICD) >> 8 & 1 == 1
    gic.write(GICD, 3)
    assert gic.read(GICD) >> 8 & 1 == 1
    gic = GicMachine(n=1)
    gic.write(GICD, 0, attr=SECURE)
    gic.write(GICD, 1 << 8 | 7, attr=SECURE)
    assert gic.read(GICD, attr=SECURE) >> 8 & 1 == 0 and gic.read(GICD + 0xC) == 0


# -- vPEs --------------------------------------------------------------------------------------------------------------


def test_doorbell_rings_once_in_a_gap_and_is_cleared_by_residency() -> None:
    """16: the first enabled interrupt rings, later ones do not; making the vPE resident takes a pending doorbell back."""
    gic = with_vpes()
    gic.config(VLPI + 1, enable=False, base=VCONF)
    gic.do(vmapti(2, VLPI + 1, 1), vsync(1))
    gic.run(gic.schedule(1, 0))
    assert not deschedule(gic, DOORBELL) & PENDING_LAST
    gic.msi(2)
    assert gic.held() == NONE, "the disabled one does not ring"
    gic.msi(1)
    assert gic.held() == DB
    gic.run(gic.schedule(1, 0))
    assert gic.take() == NONE, "taken back"
    assert gic.vtake() == VLPI
    deschedule(gic, DOORBELL)
    sgir(gic, 1, 3)
    gic.msi(1)
    assert (gic.take(), gic.take()) == (DB, NONE)
    assert gic.rds[0].count["doorbells"] == 2


def test_pending_last_suppresses_the_doorbell() -> None:
    """17: something pending at the deschedule is told by PendingLast and never rings, whatever comes later."""
    gic = with_vpes()
    gic.run(gic.schedule(1, 0))
    gic.msi(1)
    value = deschedule(gic, DOORBELL)
    assert value & PENDING_LAST and not value & DIRTY
    sgir(gic, 1, 2)
    assert gic.take() == NONE
    gic.run(gic.schedule(1, 0))
    assert {gic.vtake(), gic.vtake()} == {VLPI, 2}
    assert deschedule(gic, PENDING_LAST) & PENDING_LAST
    gic.msi(1)
    assert gic.take() == NONE, "PendingLast = 1 written: software has decided already"


def test_the_default_doorbell_needs_invdb() -> None:
    """18: a changed configuration of the doorbell LPI is seen after INVDB, not after INV of an event of the vPE."""
    gic = with_vpes()
    gic.run(gic.schedule(1, 0))
    deschedule(gic, DOORBELL)
    gic.msi(1)
    assert gic.take() == DB
    gic.run(gic.schedule(1, 0))
    assert gic.vtake() == VLPI
    deschedule(gic, DOORBELL)
    gic.config(DB, enable=False)
    gic.do(event("INV", 1), vsync(1))
    gic.msi(1)
    assert gic.held() != NONE
    gic.do(encode("INVDB", vpeid=1), vsync(1))
    assert gic.held() == NONE


@pytest.mark.parametrize("enabled", [True, False])
def test_vgrp1en_holds_vsgis_back_without_losing_them(enabled: bool) -> None:
    """19: with VGrp1En = 0 Group 1 vSGIs and vLPIs are neither offered, nor PendingLast, nor rung for; they stay pending."""
    gic = with_vpes()
    groups = VGRP1 if enabled else 0
    gic.write(GICR + VPENDBASER, VALID | groups | 1, 8)
    sgir(gic, 1, 3)
    gic.msi(1)
    assert bool(gic.vheld()) == enabled
    assert bool(deschedule(gic, DOORBELL) & PENDING_LAST) == enabled
    sgir(gic, 1, 4)
    assert gic.take() == NONE
    gic.run(gic.schedule(1, 0))
    assert sorted(gic.vtake() for _ in range(4)) == [3, 4, NONE, VLPI]


def test_a_vsgi_has_no_active_state_and_its_group_is_the_vpes() -> None:
    """20: taken, it can come again at once; GITS_SGIR carries no group: the VSGI configuration says which it is."""
    gic = with_vpes()
    gic.do(encode("VSGI", vpeid=1, sgi=5, enable=1, group=0, priority=0x20), vsync(1))
    gic.run(gic.schedule(1, 0))
    for _ in range(2):
        sgir(gic, 1, 3)
        assert gic.vtake() == 3
    sgir(gic, 1, 5)
    assert gic.vheld() == (), "group 0, and VGrp0En is 0"
    assert gic.rds[0].count["vsgi_delivered"] == 2


def test_vsgi_clear_and_configuration_are_two_things() -> None:
    """21: C = 1 clears pending and leaves enable, group and priority; C = 0 sets them and leaves pending."""
    gic = with_vpes()
    sgir(gic, 1, 3)
    gic.do(encode("VSGI", vpeid=1, sgi=3, clear=1, enable=0, group=0, priority=0xF0), vsync(1))
    gic.run(gic.schedule(1, 0))
    assert gic.vtake() == NONE
    sgir(gic, 1, 3)
    assert gic.vheld() == (1, 3, 0xA0, 1)
    gic.do(encode("VSGI", vpeid=1, sgi=3, enable=0, group=1, priority=0x40), vsync(1))
    assert gic.vheld() == ()
    gic.do(encode("VSGI", vpeid=1, sgi=3, enable=1, group=1, priority=0x40), vsync(1))
    assert gic.vheld() == (1, 3, 0x40, 1) and gic.vtake() == 3


def test_unmap_with_alloc_leaves_the_pending_table_readable() -> None:
    """22: after VMAPP V = 0, Alloc = 1 the VPT has what was pending, and a map with PTZ = 0 finds it; no VSYNC is needed."""
    gic = with_vpes()
    gic.msi(1)
    sgir(gic, 1, 6)
    table = VPT + 0x1_0000
    assert not gic.pending_bit(table, VLPI)
    gic.do(gic.vmapp(1, 0, valid=0))
    assert gic.pending_bit(table, VLPI)
    gic.do(gic.vmapp(1, 1), encode("VINVALL", vpeid=1), vsync(1))
    gic.run(gic.schedule(1, 1))
    assert {gic.vtake(1), gic.vtake(1)} == {VLPI, 6}
    assert gic.faults() == {}


def test_vmovp_of_a_resident_vpe_is_told_and_loses_nothing() -> None:
    """23: software must not do it; it is counted, the vPE stays where it runs, and its interrupts arrive."""
    gic = with_vpes()
    gic.run(gic.schedule(1, 0))
    gic.do(encode("VMOVP", vpeid=1, rdbase=1, db=1, default_doorbell=DB), vsync(1))
    assert gic.rds[0].count["vpe_errors"] == 1
    gic.msi(1)
    assert gic.vtake(0) == VLPI
    deschedule(gic, DOORBELL)
    sgir(gic, 1, 1)
    assert gic.take(1) == DB, "the doorbell is the new home's"


def test_vsgi_pending_is_read_from_any_redistributor() -> None:
    """Row of 2.5: VSGIR of any redistributor of the group gives the mask, also of a vPE that runs; unmapped reads 0."""
    gic = with_vpes(3)
    sgir(gic, 1, 2)
    sgir(gic, 1, 9)
    for rd in range(3):
        gic.write(GICR + rd * STRIDE + VSGIR, 1)
        assert gic.read(GICR + rd * STRIDE + VSGIPENDR) == 1 << 2 | 1 << 9
    gic.run(gic.schedule(1, 0))
    assert gic.vtake() == 2
    gic.write(GICR + 2 * STRIDE + VSGIR, 1)
    assert gic.read(GICR + 2 * STRIDE + VSGIPENDR) == 1 << 9
    gic.write(GICR + VSGIR, 77)
    assert gic.read(GICR + VSGIPENDR) == 0 and gic.rds[0].count["vpe_errors"] == 1


def test_two_vpes_on_one_pe_take_turns_with_doorbells() -> None:
    """Over-commit: two vPEs share a PE; whichever is off it rings its own doorbell once, and each gets its own interrupts."""
    gic = GicMachine(n=1)
    for vpeid in (1, 2):
        gic.config(DB + vpeid, 0x80)
        gic.config(VLPI + vpeid, base=VCONF)
        gic.do(gic.vmapp(vpeid, 0, doorbell=DB + vpeid), vmapti(vpeid, VLPI + vpeid, vpeid), vsync(vpeid))
    gic.run(gic.schedule(2, 0))
    deschedule(gic, DOORBELL, vpeid=2)
    for turn in range(4):
        running, waiting = (1, 2) if turn % 2 == 0 else (2, 1)
        gic.run(gic.schedule(running, 0))
        if turn:
            assert (gic.vtake(), gic.vtake()) == (VLPI + running, NONE)
        gic.msi(waiting)
        gic.msi(waiting)
        assert (gic.take(), gic.take()) == (DB + waiting, NONE)
        deschedule(gic, DOORBELL, vpeid=running)
    assert gic.rds[0].count["doorbells"] == 4 and gic.faults() == {}


def test_registers_reach_the_its_that_is_addressed() -> None:
    """33: each ITS has its own registers and queue at its own base; nothing is shared by mistake."""
    gic = GicMachine("4.1", 1, 3)
    before = [gic.read(GITS + k * STRIDE + CWRITER, 8) for k in range(3)]
    gic.do(sync(0), its=1)
    after = [gic.read(GITS + k * STRIDE + CREADR, 8) for k in range(3)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 32, 0]
