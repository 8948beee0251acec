"""VMOVP, VMAPP and Alloc over several ITSs (sheet 4.3), on a whole GIC."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import ns, us
from nodes.arch.its_commands import encode
from nodes.arch.msi import MSI
from tests.machine.gic_machine import CREADR, CWRITER, DEV, GITS, NONE, STRIDE, VCONF, GicMachine, event, vmapti, vsync
from tests.machine.redistributor_bench import PE_LINK, PENDING_LAST

VLPI = 8200
EVENTS = range(8)


def vmovp(vpeid: int, rd: int, seqnum: int = 0, itslist: int = 0) -> bytes:
    return encode("VMOVP", vpeid=vpeid, rdbase=rd, seqnum=seqnum, itslist=itslist)


def machine(version: str, itss: int, vmovp_bit: bool = True, n: int = 3) -> GicMachine:
    """vPE 1 at redistributor 0, mapped on every ITS, event e of DEV on each ITS its vLPI VLPI + e."""
    gic = GicMachine(version, n, itss, vmovp=vmovp_bit)
    for e in EVENTS:
        gic.config(VLPI + e, 0x80 + 8 * e, base=VCONF)
    for k in range(itss):
        gic.do(gic.vmapp(1, 0, alloc=int(k == 0)), vsync(1), *[vmapti(e, VLPI + e, 1) for e in EVENTS], vsync(1), its=k)
    assert gic.faults() == {}
    return gic


@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_typer_and_its_number(version: str) -> None:
    """With `vmovp` false GITS_TYPER.VMOVP is 0 and GITS_CTLR.ITS_Number holds a number; with true it is RES0."""
    gic = GicMachine(version, 1, 2, vmovp=False)
    assert [gic.read(GITS + k * STRIDE + 8, 8) >> 37 & 1 for k in range(2)] == [0, 0]
    assert [gic.read(GITS + k * STRIDE) >> 4 & 0xF for k in range(2)] == [0, 1]
    gic.write(GITS, 0x51)
    assert gic.read(GITS) >> 4 & 0xF == 5
    gic = GicMachine(version, 1, 1)
    assert gic.read(GITS + 8, 8) >> 37 & 1 == 1
    gic.write(GITS, 0x51)
    assert gic.read(GITS) >> 4 & 0xF == 0


@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_vmovp_waits_for_every_its_of_the_list_and_moves_the_state_once(version: str) -> None:
    """The first ITS moves the state and stands still at its VMOVP until the last one of the list executes it too."""
    gic = machine(version, 3, vmovp_bit=False)
    gic.msi(2, its=1)
    gic.run(gic.commands(0, vmovp(1, 2, 7, 0b111), vsync(1), wait=False))
    assert 1 in gic.rds[2].vpes.table and 1 not in gic.rds[0].vpes.table
    assert gic.rds[2].vpes.table[1].pending == {VLPI + 2}
    at = gic.read(GITS + CREADR, 8)
    assert at != gic.read(GITS + CWRITER, 8)
    gic.run(gic.commands(2, vmovp(1, 2, 7, 0b111), wait=False))
    assert gic.read(GITS + CREADR, 8) == at
    gic.do(vmovp(1, 2, 7, 0b111), vsync(1), its=1)
    for k in range(3):
        assert gic.read(GITS + k * STRIDE + CREADR, 8) == gic.read(GITS + k * STRIDE + CWRITER, 8)
        gic.msi(3 + k, its=k)
    assert gic.rds[2].vpes.table[1].pending == {VLPI + 2, VLPI + 3, VLPI + 4, VLPI + 5}
    assert gic.faults() == {}


def test_an_its_that_is_late_does_not_undo_a_later_move() -> None:
    """ITS 1 executes the first of two VMOVPs long after ITS 0 was given both: the vPE ends where the second one says."""
    gic = machine("4.1", 2, vmovp_bit=False)
    gic.run(gic.commands(0, vmovp(1, 2, 1, 3), vmovp(1, 1, 2, 3), vsync(1), wait=False))
    assert 1 in gic.rds[2].vpes.table, "the second one waits for ITS 1"
    gic.do(vmovp(1, 2, 1, 3), vmovp(1, 1, 2, 3), vsync(1), its=1)
    assert 1 in gic.rds[1].vpes.table
    assert [1 in rd.vpes.table for rd in gic.rds] == [False, True, False]
    assert gic.faults() == {}


def test_a_list_without_the_its_itself_is_an_error() -> None:
    """VMOVP whose ITSList does not name the ITS that executes it has a private syndrome and moves nothing."""
    gic = machine("4.1", 2, vmovp_bit=False)
    gic.do(vmovp(1, 2, 1, 0b10), its=0)
    assert gic.its[0].count["command_errors"] == 1 and 1 in gic.rds[0].vpes.table


def test_two_lists_for_one_sequence_number_are_told() -> None:
    """ITSs that disagree about the list are counted, and the first list holds."""
    gic = machine("4.1", 2, vmovp_bit=False)
    gic.run(gic.commands(0, vmovp(1, 2, 1, 0b11), wait=False))
    gic.do(vmovp(1, 2, 1, 0b10), its=1)
    assert gic.rds[2].count["vmovp_errors"] == 1
    assert gic.read(GITS + CREADR, 8) == gic.read(GITS + CWRITER, 8)


@pytest.mark.parametrize("version", ["4.0", "4.1"])
def test_single_vmovp_serves_every_its(version: str) -> None:
    """With GITS_TYPER.VMOVP = 1 one ITS moves the vPE; events of the others reach it at its new home."""
    gic = machine(version, 3)
    gic.do(vmovp(1, 2), vsync(1), its=1)
    for k in range(3):
        gic.msi(k, its=k)
    gic.run(gic.schedule(1, 2))
    assert [gic.vtake(2) for _ in range(4)] == [VLPI, VLPI + 1, VLPI + 2, NONE]
    assert gic.faults() == {}


# -- Alloc -------------------------------------------------------------------------------------------------------------


def test_alloc_is_for_the_first_map_and_the_last_unmap() -> None:
    """VMAPP Alloc=1, then 0 on the others; unmapped 0 first and Alloc=1 last: no error, and the pending table is in memory."""
    gic = machine("4.1", 3)
    gic.msi(4, its=2)
    assert gic.rds[0].vpes.table[1].maps == 3
    for k in (2, 1):
        gic.do(gic.vmapp(1, 0, alloc=0, valid=0), its=k)
    gic.do(gic.vmapp(1, 0, alloc=1, valid=0), its=0)
    assert 1 not in gic.rds[0].vpes.table and gic.faults() == {}
    assert gic.pending_bit(0x8050_0000 + 0x1_0000, VLPI + 4)


def test_second_alloc_and_alloc_0_of_nothing_are_command_errors() -> None:
    """On another ITS, VMAPP with Alloc=1 of a mapped vPE, or with Alloc=0 of an unmapped one, changes nothing."""
    gic = machine("4.1", 2)
    gic.do(gic.vmapp(1, 1, alloc=1), gic.vmapp(5, 1, alloc=0), its=1)
    assert gic.its[1].count["command_errors"] == 2
    assert [1 in rd.vpes.table for rd in gic.rds] == [True, False, False]
    assert gic.rds[0].vpes.table[1].maps == 2


@pytest.mark.parametrize(("alloc", "gone"), [(1, True), (0, False)])
def test_alloc_misused_at_the_end_is_told(alloc: int, gone: bool) -> None:
    """Unmapping with Alloc=1 while another ITS has the vPE, or the last one with Alloc=0, is counted at the home."""
    gic = machine("4.1", 2 if gone else 1)
    gic.do(gic.vmapp(1, 0, alloc=alloc, valid=0))
    assert gic.rds[0].count["vpe_errors"] == 1
    assert (1 not in gic.rds[0].vpes.table) == gone


def test_v40_maps_are_counted_without_alloc() -> None:
    """GICv4.0: the vPE lives until its last ITS unmaps it; a VMAPP that repeats a mapping counts once."""
    gic = machine("4.0", 2)
    gic.msi(3)
    gic.do(gic.vmapp(1, 0))
    gic.do(gic.vmapp(1, 0, valid=0), its=0)
    assert gic.rds[0].vpes.table[1].pending == {VLPI + 3}
    gic.do(gic.vmapp(1, 0, valid=0), its=1)
    assert 1 not in gic.rds[0].vpes.table and gic.faults() == {}
    assert gic.pending_bit(0x8050_0000 + 0x1_0000, VLPI + 3)


# -- under load --------------------------------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2000), st.booleans(), st.booleans()), min_size=1, max_size=6
)
traffic = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(EVENTS), st.integers(0, 1)), max_size=40)


async def move(gic: GicMachine, rd: int, number: int, order: tuple[int, int], single: bool) -> None:
    """VMOVP of vPE 1: on the first ITS of `order`, or on both in that order, of which the second one is waited for."""
    if single:
        await gic.commands(order[0], vmovp(1, rd), vsync(1))
        return
    for k in order:
        await gic.commands(k, vmovp(1, rd, number, 3), vsync(1), wait=k == order[1])


@pytest.mark.parametrize(("version", "single"), [("4.0", True), ("4.0", False), ("4.1", True), ("4.1", False)])
@settings(max_examples=30, deadline=None)
@given(moves=moves, traffic=traffic)
def test_migration_under_load_loses_and_doubles_nothing(
    version: str, single: bool, moves: list[tuple[int, int, bool, bool]], traffic: list[tuple[int, int, int]]
) -> None:
    """A vPE goes from PE to PE by VMOVP, of one ITS or of a list, while MSIs reach it by two ITSs and guests acknowledge.

    On GICv4.1 it also becomes resident where no VMOVP has sent it, which claims it. Each acknowledge is of an interrupt that
    was made pending since its last one, and at the end none is pending that was taken. The moment of an acknowledge is its
    arrival at the redistributor: what is made pending before it is part of it.
    """
    gic = machine(version, 2, vmovp_bit=single, n=4)
    log: list[tuple[int, str, int]] = []  # time at the redistributor, what, INTID
    finished: list[bool] = []

    async def msis() -> None:
        for gap, e, k in traffic:
            await gic.smmu.sleep(ns(gap))
            gic.smmu.send("msi", f"its{k}", MSI.Msi, DEV, e)

    async def guest(pe: int) -> None:
        limit = gic.now + us(300)
        await gic.pes[pe].sleep(500)  # off the grid of the rest, so that no two times are equal
        while not finished and gic.now < limit:
            await gic.pes[pe].sleep(ns(97))
            intid = gic.pes[pe].vtake()
            if intid != NONE:
                log.append((gic.pes[pe].now + PE_LINK, "ack", intid))

    async def migrate() -> None:
        for number, (rd, pause, first, claim) in enumerate(moves):
            if not claim or version == "4.0":
                await move(gic, rd, number, (0, 1) if first else (1, 0), single)
            await gic.schedule(1, rd)
            await gic.host.sleep(ns(pause))
            await gic.deschedule(1, rd, PENDING_LAST if version == "4.1" else 0)
        await gic.host.sleep(us(20))
        finished.append(True)

    for rd in gic.rds:
        original = rd.vpes._ops["SetVlpi"]

        def spy(vpe: Any, intid: int, doorbell: int, rd: Any = rd, original: Any = original) -> None:
            log.append((rd.now, "set", intid))
            original(vpe, intid, doorbell)

        rd.vpes._ops["SetVlpi"] = spy
    gic.also("smmu0", msis())
    for pe in range(4):
        gic.also(f"pe{pe}", guest(pe))
    gic.run(migrate())
    assert gic.faults() == {}
    assert sum(what == "set" for _, what, _ in log) == len(traffic)
    owners = [rd.vpes.table[1] for rd in gic.rds if 1 in rd.vpes.table]
    assert len(owners) == 1
    pending: set[int] = set()
    for _, what, intid in sorted(log, key=lambda entry: entry[0]):
        if what == "set":
            pending.add(intid)
        else:
            assert intid in pending, f"{intid} was delivered twice"
            pending.discard(intid)
    assert owners[0].pending == pending
    assert gic.its[0].count["msi_translated"] + gic.its[1].count["msi_translated"] == len(traffic)


def test_events_of_a_vpe_wait_while_it_moves_but_not_while_the_its_waits() -> None:
    """With an ITS list, MSIs are translated again as soon as the state has moved, before the other ITSs have come."""
    gic = machine("4.1", 2, vmovp_bit=False)
    gic.run(gic.commands(0, vmovp(1, 2, 1, 3), wait=False))
    gic.msi(1, its=0)
    assert gic.rds[2].vpes.table[1].pending == {VLPI + 1}
    gic.do(event("CLEAR", 1), vmovp(1, 2, 1, 3), its=1)
    assert gic.rds[2].vpes.table[1].pending == set()
