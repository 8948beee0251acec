"""Physical LPIs that are re-targeted while MSIs arrive, on whole GICs of all versions: none is lost, none comes too often."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import ns, us
from nodes.arch.its_commands import encode
from nodes.arch.msi import MSI
from tests.machine.gic_machine import DEV, NONE, GicMachine, event, mapti, sync

LPI = 8200
EVENTS = range(6)
PES = 3

changes = st.lists(
    st.tuples(
        st.sampled_from(("MOVI", "MOVALL", "INV")), st.sampled_from(EVENTS), st.integers(0, 2), st.integers(0, 900)
    ),
    max_size=8,
)
traffic = st.lists(st.tuples(st.integers(0, 300), st.sampled_from(EVENTS)), max_size=40)


@pytest.mark.parametrize("version", ["3", "4.0", "4.1"])
@settings(max_examples=25, deadline=None)
@given(changes=changes, traffic=traffic)
def test_retargeting_under_load_loses_and_multiplies_nothing(
    version: str, changes: list[tuple[str, int, int, int]], traffic: list[tuple[int, int]]
) -> None:
    """After its last MSI each LPI is taken, and never more often than its MSIs came; MOVI and MOVALL cross them at random."""
    gic = GicMachine(version, PES)
    for e in EVENTS:
        gic.config(LPI + e, 0x80 + 8 * e)
    gic.do(*[mapti(e, LPI + e, e % PES) for e in EVENTS], *[sync(rd) for rd in range(PES)])
    log: list[tuple[int, str]] = []
    home = {icid: icid for icid in range(PES)}
    finished: list[bool] = []

    async def msis() -> None:
        for gap, e in traffic:
            await gic.smmu.sleep(ns(gap))
            log.append((LPI + e, "msi"))
            gic.smmu.send("msi", "its0", MSI.Msi, DEV, e)

    async def software(pe: int) -> None:
        limit = gic.now + us(300)
        while not finished and gic.now < limit:
            await gic.pes[pe].sleep(ns(83))
            intid = gic.pes[pe].take()
            if intid != NONE:
                log.append((intid, "ack"))

    async def retarget() -> None:
        for what, e, n, pause in changes:
            if what == "MOVI":
                await gic.commands(0, event("MOVI", e, icid=n), *[sync(rd) for rd in range(PES)])
            elif what == "INV":
                await gic.commands(0, event("INV", e), sync(n))
            else:
                # As software takes a CPU out: its collections first, then what is pending there.
                source, target = home[n], (home[n] + 1) % PES
                here = [icid for icid, rd in home.items() if rd == source]
                home.update(dict.fromkeys(here, target))
                maps = [encode("MAPC", icid=icid, rdbase=target, valid=1) for icid in here]
                move = encode("MOVALL", rdbase1=source, rdbase2=target)
                await gic.commands(0, *maps, sync(source), move, sync(source), sync(target))
            await gic.host.sleep(ns(pause))
        await gic.host.sleep(us(20))
        finished.append(True)

    gic.also("smmu0", msis())
    for pe in range(PES):
        gic.also(f"pe{pe}", software(pe))
    gic.run(retarget())
    assert gic.faults() == {}
    for e in EVENTS:
        mine = [what for intid, what in log if intid == LPI + e]
        assert mine.count("ack") <= mine.count("msi"), f"event {e} was delivered too often: {mine}"
        assert not mine or mine[-1] == "ack", f"event {e} was lost: {mine}"
        assert all(mine[: n + 1].count("ack") <= mine[: n + 1].count("msi") for n in range(len(mine)))
    assert not any(rd.lpis.pending for rd in gic.rds)
