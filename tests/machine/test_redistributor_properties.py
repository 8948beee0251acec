"""Random traffic against small models: whatever crosses whatever, no interrupt is lost and none is doubled."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import ns
from tests.machine.redistributor_bench import (
    DIRTY,
    DOORBELL,
    DOORBELL_LPI,
    GICR,
    PE_LINK,
    PENDING_LAST,
    STRIDE,
    VALID,
    VCONF,
    VGRP1,
    VPENDBASER,
    Gic,
)

NO = 1023
ITS_LINK = ns(20)
INTIDS = (8192, 8193, 8300, 1, 2)

Event = tuple[int, str, int]
gaps = st.integers(0, 60)
events = st.lists(st.tuples(gaps, st.sampled_from(("set", "set", "clear")), st.sampled_from(INTIDS)), max_size=25)
takes = st.lists(st.integers(1, 90), max_size=40)
residencies = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(("doorbell", "no doorbell"))), max_size=4)


def prepared(n: int) -> Gic:
    gic = Gic(n)
    gic.map_vpe(1)
    for intid in INTIDS:
        if intid >= 8192:
            gic.config(intid, 0x80 + intid % 4 * 8, base=VCONF)
        else:
            gic.send("CfgVsgi", 1, intid, 1, 1, intid << 4)
    return gic


def send(gic: Gic, what: str, intid: int, rd: int = 0) -> None:
    if intid < 16:
        gic.its.send(rd, "SetVsgi" if what == "set" else "ClearVsgi", 1, intid)
    elif what == "set":
        gic.its.send(rd, "SetVlpi", 1, intid, NO)
    else:
        gic.its.send(rd, "ClearVlpi", 1, intid)


async def poll_clean(gic: Gic, rd: int = 0) -> int:
    while True:
        value = await gic.its.bus.read64(GICR + rd * STRIDE + VPENDBASER)
        if not value & DIRTY:
            return value


async def schedule(gic: Gic, rd: int = 0) -> None:
    await gic.its.bus.write64(GICR + rd * STRIDE + VPENDBASER, VALID | VGRP1 | 1)
    await poll_clean(gic, rd)


async def deschedule(gic: Gic, doorbell: bool, rd: int = 0) -> int:
    value = 1 | (DOORBELL if doorbell else PENDING_LAST)
    await gic.its.bus.write64(GICR + rd * STRIDE + VPENDBASER, value)
    return await poll_clean(gic, rd)


async def taker(gic: Gic, pauses: Iterable[int], log: list[tuple[int, int]], rd: int = 0) -> None:
    for pause in pauses:
        await gic.pes[rd].sleep(ns(pause))
        intid = gic.pes[rd].vtake()
        if intid != 1023:
            log.append((gic.pes[rd].now, intid))


def drain(gic: Gic, rd: int = 0) -> list[int]:
    taken = []
    while (intid := gic.vtake(rd)) != 1023:
        taken.append(intid)
    return taken


def pending_after(log: list[tuple[int, int, str]], intid: int) -> bool:
    """Model of one interrupt from what happened at the redistributor, in order: is it pending at the end?

    An acknowledge is of an interrupt that was cleared on its way if the PE took it before the withdrawal came there.
    """
    pending, cleared = False, -(1 << 62)
    for time, _, what in log:
        if what == "set":
            pending = True
        elif what == "clear":
            pending, cleared = False, time
        else:
            if time - PE_LINK < cleared + PE_LINK:
                continue  # the old one, taken before its withdrawal
            assert pending, f"{intid} was acknowledged at {time} ps without being pending: doubled"
            pending = False
    return pending


@settings(max_examples=150)
@given(events=events, takes=takes, residencies=residencies)
def test_random_traffic_loses_and_doubles_nothing(
    events: list[Event], takes: list[int], residencies: list[tuple[int, str]]
) -> None:
    """Sets, clears, residencies and acknowledges at random times: what is pending at the end is what a one-bit model says."""
    gic = prepared(1)
    arrivals: list[tuple[int, int, str, int]] = []  # time at the redistributor, order within it, what, INTID
    taken: list[tuple[int, int]] = []

    async def traffic() -> None:
        for gap, what, intid in events:
            await gic.its.sleep(ns(gap))
            send(gic, what, intid)
            arrivals.append((gic.its.now + ITS_LINK, 1, what, intid))

    async def software() -> None:
        await schedule(gic)
        for gap, how in residencies:
            await gic.its.sleep(ns(gap))
            await deschedule(gic, how == "doorbell")
            await gic.its.sleep(ns(gap))
            await schedule(gic)

    gic.also("its0", traffic())
    gic.also("pe0", taker(gic, takes, taken))
    gic.run(software())
    gic.bench.run()
    arrivals += [(time + PE_LINK, 0, "ack", intid) for time, intid in taken]
    # At one instant an acknowledge (a response) comes before a request; a sort by time keeps the rest as sent.
    arrivals.sort(key=lambda entry: entry[:2])
    expected = {
        intid
        for intid in INTIDS
        if pending_after([(t, o, what) for t, o, what, which in arrivals if which == intid], intid)
    }
    left = drain(gic)
    assert len(left) == len(set(left)) and set(left) == expected
    rd = gic.rds[0]
    assert rd.count["vlpi_delivered"] + rd.count["vsgi_delivered"] == len(taken) + len(left)
    assert rd.effects.idle and rd.count["stream_violations"] == 0


@settings(max_examples=100)
@given(
    events=events,
    takes=takes,
    moves=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2), st.booleans()), max_size=5),
)
def test_migration_under_load_loses_and_doubles_nothing(
    events: list[Event], takes: list[int], moves: list[tuple[int, int, bool]]
) -> None:
    """A vPE that moves between three PEs, by VMOVP or by a claim, under interrupts: each set is followed by an acknowledge,
    and there are never more acknowledges than sets."""
    gic = prepared(3)
    home = [0]
    sets: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []

    async def traffic() -> None:
        for gap, _, intid in events:
            await gic.its.sleep(ns(gap))
            send(gic, "set", intid, home[0])
            sets.append((gic.its.now, intid))

    async def software() -> int:
        where = 0
        await schedule(gic, where)
        for gap, target, by_command in moves:
            await gic.its.sleep(ns(gap))
            await deschedule(gic, False, where)
            if by_command and target != home[0]:
                old, home[0] = home[0], target
                gic.its.send(old, "MoveVpe", 1, target, 1, DOORBELL_LPI)
                await gic.its.vsync(1, rd=old)
            where = target
            await schedule(gic, where)
        return where

    gic.also("its0", traffic())
    for rd in range(3):
        gic.also(f"pe{rd}", taker(gic, takes, taken, rd))
    where = gic.run(software())
    gic.bench.run()
    assert gic.bench.kernel is not None
    taken += [(gic.bench.kernel.now, intid) for intid in drain(gic, where)]
    taken.sort()
    for intid in INTIDS:
        times = [time for time, which in sets if which == intid]
        acks = [time for time, which in taken if which == intid]
        for n, ack in enumerate(acks):
            assert len([time for time in times if time < ack]) > n, (
                f"{intid} was acknowledged more often than it was set"
            )
        if times:
            assert acks and acks[-1] > times[-1] - ns(300), f"{intid} was lost"
    assert sum(1 for rd in gic.rds if 1 in rd.vpes.table) == 1
    assert all(
        rd.count["stream_violations"] == rd.count["vlpi_dropped"] == rd.count["vsgi_dropped"] == 0 for rd in gic.rds
    )


@settings(max_examples=60)
@given(
    before=st.lists(st.sampled_from(INTIDS), max_size=3),
    after=st.lists(st.tuples(gaps, st.just("set"), st.sampled_from(INTIDS)), max_size=6),
    doorbell=st.booleans(),
)
def test_doorbell_at_most_once_and_exactly_when_promised(before: list[int], after: list[Event], doorbell: bool) -> None:
    """In a gap the doorbell rings once if it was asked for, PendingLast read 0 and something came; else never. PendingLast is
    1 exactly when something was left (or software wrote it as 1)."""
    gic = prepared(1)
    gic.run(schedule(gic))
    for intid in before:
        send_now(gic, intid)
    value = gic.run(deschedule(gic, doorbell))
    assert bool(value & PENDING_LAST) == (bool(before) or not doorbell)

    async def traffic() -> None:
        for gap, what, intid in after:
            await gic.its.sleep(ns(gap))
            send(gic, what, intid)

    gic.run(traffic())
    rings = int(bool(after) and doorbell and not before)
    assert gic.rds[0].count["doorbells"] == rings
    assert gic.take() == (DOORBELL_LPI if rings else 1023)


def send_now(gic: Gic, intid: int) -> None:
    if intid < 16:
        gic.send("SetVsgi", 1, intid)
    else:
        gic.send("SetVlpi", 1, intid, NO)
