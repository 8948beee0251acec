"""Behaviours of distributor, redistributors and ITSs that implementations commonly get wrong (fact sheet 13), one test each.

The number in each docstring is the sheet's row. Rows of the CPU interface and of KVM are in `test_commonly_wrong_kvm.py`.
"""

from __future__ import annotations

import pytest

from cosim.api import SECURE, ns
from nodes.arch.its_commands import encode
from tests.machine import gic_machine as gm
from tests.machine import its_bench as ib
from tests.machine.gic_machine import (
    CREADR,
    CWRITER,
    GICD,
    GICR,
    GITS,
    NONE,
    STRIDE,
    VCONF,
    VPENDBASER,
    GicMachine,
    event,
    mapti,
    sync,
    vmapti,
    vsync,
)
from tests.machine.its_bench import ItsBench
from tests.machine.redistributor_bench import DIRTY, DOORBELL, PENDING_LAST, VALID, VGRP1

LPI, VLPI, DB = 8200, 8300, 8400
VMAPP = {"rdbase": 1, "valid": 1, "alloc": 1, "vpt_size": 15, "default_doorbell": NONE}
VSGIR, VSGIPENDR = gm.VLPI_BASE + 0x80, gm.VLPI_BASE + 0x88
SGI = 0x1_0000


def with_lpi(n: int = 2, version: str = "4.1", *, enable: bool = True) -> GicMachine:
    """Event 1 is LPI of PE 0."""
    gic = GicMachine(version, n)
    gic.config(LPI, enable=enable)
    gic.do(mapti(1, LPI, 0), sync(0))
    return gic


def with_vpes(n: int = 2, version: str = "4.1") -> GicMachine:
    """vPE 1 at PE 0, vPE 2 at the last PE; event 1 is VLPI of vPE 1; doorbells DB and DB + 1."""
    gic = GicMachine(version, n)
    for lpi in (DB, DB + 1):
        gic.config(lpi, 0x80)
    gic.config(VLPI, base=VCONF)
    gic.do(gic.vmapp(1, 0, doorbell=DB), gic.vmapp(2, n - 1, doorbell=DB + 1), vmapti(1, VLPI, 1), vsync(1), vsync(2))
    if version == "4.1":
        gic.do(*[encode("VSGI", vpeid=1, sgi=s, enable=1, group=1, priority=0xA0) for s in range(16)], vsync(1))
    return gic


def sgir(gic: GicMachine, vpeid: int, sgi: int) -> None:
    gic.write(GITS + gm.SGIR, vpeid << 32 | sgi, 8)


def deschedule(gic: GicMachine, flags: int = 0, vpeid: int = 1, rd: int = 0) -> int:
    return gic.run(gic.deschedule(vpeid, rd, flags))


# -- ITS ---------------------------------------------------------------------------------------------------------------


def test_queue_wraps_at_its_size() -> None:
    """1: a list of commands that crosses the end of a ring of (Size + 1) * 4 KB is consumed whole and in order."""
    for pages in (1, 3):
        bench = ItsBench(queue_pages=pages).enable()
        bench.run(*[ib.mapc(i, i) for i in range(4)])
        fill = pages * 128 - 8
        bench.run(*[ib.sync(0)] * fill)
        assert bench.run(*[encode("INVALL", icid=i % 4) for i in range(100)]) == [
            (i % 4, "InvAll", ()) for i in range(100)
        ]
        assert bench.read(ib.CREADR) == bench.read(ib.CWRITER) == (4 + fill + 100) % (128 * pages) * 32


@pytest.mark.parametrize(("size", "page"), [(0, 0x1000), (1, 0x4000), (2, 0x1_0000)])
@pytest.mark.parametrize(("number", "entry"), [(0, 8), (1, 2), (2, 8)], ids=["devices", "collections", "vPEs"])
def test_table_walk_honours_entry_size_page_size_and_level_1(number: int, entry: int, size: int, page: int) -> None:
    """2: in each table an id of a level-2 page whose level-1 entry is invalid is an error, and else lies where the sizes say."""
    bench = ItsBench().enable()
    bench.write(ib.CTLR, 0, 4)
    assert (bench.read(ib.BASER + 8 * number) >> 48 & 0x1F) + 1 == entry
    bench.baser(number, ib.VPES, size << 8 | ib.INDIRECT)
    bench.write(ib.CTLR, 1, 4)
    last = page // entry  # the first of the second page
    if number == 0:
        last += 5
    commands = {
        0: ("MAPD", {"device_id": last, "size": 4, "itt": ib.ITT, "valid": 1}, "0x010801"),
        1: ("MAPC", {"icid": last, "rdbase": 1, "valid": 1}, "0x010903"),
        2: ("VMAPP", VMAPP | {"vpeid": last}, "0x012911"),
    }
    name, fields, syndrome = commands[number]
    assert bench.error(name, **fields) == syndrome
    bench.memory.poke(ib.VPES + 8, (ib.VALID | ib.LEVEL2).to_bytes(8, "little"))
    bench.do(name, **fields)
    bench.run(ib.sync(1))
    assert bench.count["command_errors"] == 1
    assert any(bench.memory.peek(ib.LEVEL2 + (last - page // entry) * entry, entry))
    assert not any(bench.memory.peek(ib.LEVEL2 + (last - page // entry + 1) * entry, entry))


def test_halves_of_wide_registers() -> None:
    """3: TYPER, CWRITER, CREADR, CBASER and BASER<n> by 32-bit halves are what they are by 64 bits."""
    bench = ItsBench().enable()
    bench.run(ib.mapc(0, 1))
    for offset in (ib.TYPER, ib.CWRITER, ib.CREADR, ib.CBASER, ib.BASER, ib.BASER + 8):
        assert bench.read(offset) == bench.read(offset, 4) | bench.read(offset + 4, 4) << 32
    bench.write(ib.CTLR, 0, 4)
    bench.write(ib.BASER, 0x8050_0000 | 0x203, 4)
    assert bench.read(ib.BASER) == ib.VALID | ib.INDIRECT | 0x0107_0000_8050_0203
    bench.write(ib.BASER + 4, 0x8000_0000, 4)
    assert bench.read(ib.BASER) == ib.VALID | 0x0107_0000_8050_0203
    bench.write(ib.CBASER, 0x8000_0001, 4)
    assert bench.read(ib.CBASER) == ib.VALID | 0x8000_0001 and bench.read(ib.CREADR) == 0


def test_cbaser_write_resets_creadr_but_not_cwriter() -> None:
    """4: and an ITS that is enabled again with a new queue executes from its start."""
    bench = ItsBench().enable()
    bench.run(ib.mapc(0, 1), ib.mapc(1, 2))
    bench.write(ib.CTLR, 0, 4)
    bench.write(ib.CBASER, ib.VALID | ib.QUEUE + 0x1000)
    assert (bench.read(ib.CREADR), bench.read(ib.CWRITER)) == (0, 0x40)
    bench.memory.poke(ib.QUEUE + 0x1000, encode("INVALL", icid=1) + encode("INVALL", icid=0))
    bench.write(ib.CTLR, 1, 4)
    assert bench.take() == [(2, "InvAll", ()), (1, "InvAll", ())]


def test_ids_are_checked_before_memory_is_read() -> None:
    """5: a device, collection or vPE out of bounds is an error without an access to memory behind the table."""
    bench = ItsBench(collection_bits=8, vpe_bits=8, device_bits=18).enable()
    addresses: list[int] = []
    issue = bench.its.bus.issue

    def spy(address: int, size: int, *rest: object) -> object:
        addresses.append(address)
        return issue(address, size, *rest)  # type: ignore[arg-type]

    bench.its.bus.issue = spy  # type: ignore[assignment, method-assign]
    assert bench.error("MAPD", device_id=1 << 18, size=3, itt=ib.ITT, valid=1) == "0x010801"
    assert bench.error("MAPC", icid=0x100, rdbase=1, valid=1) == "0x010903"
    assert bench.error("VSYNC", vpeid=0x100) == "0x012511"
    bench.msi(1 << 18, 0)
    assert {address & ~0xFFF for address in addresses} == {ib.QUEUE}


@pytest.mark.parametrize("mode", ["skip", "stall"])
def test_an_msi_that_is_dropped_never_stalls_the_queue(mode: str) -> None:
    """6: a command error skips or stalls, as the parameter says; an MSI without a mapping does neither."""
    bench = ItsBench(command_error=mode).enable()
    bench.run(ib.mapc(0, 1))
    bench.msi(ib.DEV2, 7)
    assert bench.count["msi_dropped"] == 1 and bench.read(ib.CREADR) == bench.read(ib.CWRITER) == 0x20
    bench.run(encode("INVALL", icid=5), encode("INVALL", icid=0))
    assert bench.read(ib.CREADR) == (0x60 if mode == "skip" else 0x21)


def test_movi_and_movall_move_pending_state() -> None:
    """7: what is pending at the old redistributor is taken at the new one, once."""
    gic = with_lpi(3)
    gic.config(LPI + 1)
    gic.do(mapti(2, LPI + 1, 0), sync(0))
    gic.msi(1)
    gic.do(event("MOVI", 1, icid=1), sync(0), sync(1))
    assert (gic.take(0), gic.take(1), gic.take(1)) == (NONE, LPI, NONE)
    gic.msi(2)
    gic.do(encode("MOVALL", rdbase1=0, rdbase2=2), sync(0), sync(2))
    assert (gic.take(0), gic.take(2), gic.take(2)) == (NONE, LPI + 1, NONE)


def test_vmovi_moves_pending_and_rings_the_doorbell_of_the_target() -> None:
    """7: a pending vLPI that moves to a vPE which asked for a doorbell rings it, at that vPE's home."""
    gic = with_vpes()
    gic.run(gic.schedule(2, 1))
    deschedule(gic, DOORBELL, vpeid=2, rd=1)
    gic.msi(1)
    gic.do(event("VMOVI", 1, vpeid=2), vsync(1), vsync(2))
    assert (gic.take(0), gic.take(1)) == (NONE, DB + 1)
    gic.run(gic.schedule(2, 1))
    assert (gic.vtake(1), gic.vtake(1)) == (VLPI, NONE)
    assert gic.faults() == {}


def test_v40_vmovi_rings_the_individual_doorbell_of_the_target() -> None:
    """7: GICv4.0: VMOVI with D = 1 rings the new doorbell at the new home when the vLPI that moves is pending."""
    gic = with_vpes(version="4.0")
    gic.msi(1)
    gic.do(event("VMOVI", 1, vpeid=2, d=1, doorbell=DB), vsync(1), vsync(2))
    assert (gic.take(0), gic.take(1), gic.take(1)) == (NONE, DB, NONE)


def test_invall_does_not_cover_vlpis() -> None:
    """24: a changed vLPI configuration becomes visible by VINVALL, not by INVALL."""
    gic = with_vpes()
    gic.run(gic.schedule(1, 0))
    gic.msi(1)
    assert gic.vtake() == VLPI
    gic.config(VLPI, enable=False, base=VCONF)
    gic.do(encode("INVALL", icid=0), sync(0))
    gic.msi(1)
    assert gic.vtake() == VLPI, "still enabled in the cache"
    gic.do(encode("VINVALL", vpeid=1), vsync(1))
    gic.msi(1)
    assert gic.vtake() == NONE


def test_int_of_a_disabled_lpi_stays_pending_and_comes_once() -> None:
    """29: INT of a disabled LPI, INVALL, then enabled: delivered exactly once, and pends that repeat collapse."""
    gic = with_lpi(enable=False)
    gic.do(event("INT", 1), event("INT", 1), encode("INVALL", icid=0), sync(0))
    assert gic.take() == NONE
    gic.config(LPI)
    gic.do(encode("INVALL", icid=0), sync(0))
    assert (gic.take(), gic.take()) == (LPI, NONE)


def test_quiescent_is_zero_while_enabled() -> None:
    """Also collected: Quiescent falls with Enabled = 1 and comes back only when nothing is under way."""
    gic = GicMachine()
    assert gic.read(GITS) >> 31 == 0
    gic.write(GITS, 0)
    assert gic.read(GITS) >> 31 == 1


@pytest.mark.parametrize(("version", "revision"), [("3", 3), ("4.0", 4), ("4.1", 4)])
def test_archrev_matches_the_features(version: str, revision: int) -> None:
    """Also collected: PIDR2.ArchRev of distributor, redistributor and ITS is 4 where vLPIs exist, else 3."""
    gic = GicMachine(version, 1)
    assert [gic.read(base + 0xFFE8) >> 4 for base in (GICD, GICR, GITS)] == [revision] * 3
    assert (
        gic.read(GITS + 8, 8) >> 1 & 1 == gic.read(GICR + 8, 8) >> 1 & 1 == gic.read(GICD + 4) >> 18 & 1 == revision - 3
    )


@pytest.mark.parametrize(("version", "stride"), [("3", 0x2_0000), ("4.0", 0x4_0000), ("4.1", 0x4_0000)])
def test_redistributor_stride_follows_vlpis(version: str, stride: int) -> None:
    """32: a redistributor has two frames of 64 KB without VLPIS and four with; behind them it answers with a counted access."""
    gic = GicMachine(version, 1)
    assert (stride == 0x4_0000) == bool(gic.read(GICR + 8, 8) >> 1 & 1)
    assert gic.rds[0].registers.bank.block.size == stride


def test_icfgr0_is_read_only_and_reserved_registers_are_res0() -> None:
    """Also collected: SGIs stay edge-triggered; a reserved offset reads 0 and is counted."""
    gic = GicMachine(n=1)
    gic.write(GICR + SGI + 0xC00, 0)
    assert gic.read(GICR + SGI + 0xC00) == 0xAAAA_AAAA
    assert gic.read(GICR + 0x200) == gic.read(GICD + 0x20) == gic.read(GITS + 0x60) == 0
    assert gic.faults() == {
        "distributor.reserved_accesses": 1,
        "its0.reserved_accesses": 1,
        "redistributor0.reserved_accesses": 1,
    }


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
        gic.write(GICR + i * STRIDE + SGI + 0x100, 0xFFFF)

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
    base = GICR + SGI
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
    table = gm.VPT + 0x1_0000
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
