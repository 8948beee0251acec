"""Behaviours of ITSs that implementations commonly get wrong (fact sheet 13), one test each.

The number in each docstring is the sheet's row. Rows of the CPU interface are in `test_commonly_wrong_cpu.py`, KVM's in
`test_commonly_wrong_kvm.py`.
"""

from __future__ import annotations

import pytest

from nodes.arch.its_commands import encode
from tests.machine import its_bench as ib
from tests.machine.gic_machine import (
    DB,
    GICD,
    GICR,
    GITS,
    LPI,
    NONE,
    VCONF,
    VLPI,
    GicMachine,
    deschedule,
    event,
    mapti,
    sync,
    vsync,
    with_lpi,
    with_vpes,
)
from tests.machine.its_bench import ItsBench
from tests.machine.redistributor_bench import DOORBELL, SGI_BASE

VMAPP = {"rdbase": 1, "valid": 1, "alloc": 1, "vpt_size": 15, "default_doorbell": NONE}


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
    gic.write(GICR + SGI_BASE + 0xC00, 0)
    assert gic.read(GICR + SGI_BASE + 0xC00) == 0xAAAA_AAAA
    assert gic.read(GICR + 0x200) == gic.read(GICD + 0x20) == gic.read(GITS + 0x60) == 0
    assert gic.faults() == {
        "distributor.reserved_accesses": 1,
        "its0.reserved_accesses": 1,
        "redistributor0.reserved_accesses": 1,
    }
