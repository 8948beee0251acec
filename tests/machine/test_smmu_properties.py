"""The SMMU against a model of its tables: both stages, any granule, mappings that change, invalidations."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.api import BusFault
from tests.machine.smmu_stage1_bench import (
    ASID,
    NH_ALL,
    NH_ASID,
    NH_VA,
    NH_VAA,
    NSNH,
    PAGE,
    S2_IPA,
    S12,
    Tables,
    cd,
    rig,
)
from tests.machine.smmute_bench import RAM, RW, SIDS, SYNC, VMID, Rig, command

PAGES = 4
"""Pages that programs play with, in two 2 MiB ranges."""
BASE = 0x4000_0000


def iova(page: int, granule: int) -> int:
    """Input address of page number `page`; the upper half of them lies behind another table."""
    return BASE + (page % 2 << granule) + (page // 2) * (1 << granule + granule - 3)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("map"), st.integers(0, PAGES - 1), st.integers(0, 3)),
        st.tuples(st.just("unmap"), st.integers(0, PAGES - 1), st.just(0)),
        st.tuples(st.just("invalidate"), st.integers(0, PAGES - 1), st.integers(0, 5)),
    ),
    min_size=8,
    max_size=30,
)


def load(r: Rig, address: int) -> int | None:
    """A byte, or None when the transaction was terminated."""
    try:
        return r.load(address, 1)
    except BusFault:
        return None


class Shadow:
    """What the tables say of each page now, and what a cache has of it."""

    def __init__(self) -> None:
        self.now: dict[int, int | None] = dict.fromkeys(range(PAGES))
        self.cached: dict[int, int] = {}

    def expected(self, page: int) -> int | None:
        """What a cache that keeps everything gives."""
        if page in self.cached:
            return self.cached[page]
        current = self.now[page]
        if current is not None:
            self.cached[page] = current
        return current


def play(r: Rig, tables: Tables, steps: list[Any], commands: dict[int, Any], attributes: int, start: int) -> None:
    """Carry out the steps, each followed by an access to its page; a translation that was used stays until a command of `commands`
    reaches it."""
    granule, shadow = tables.granule, Shadow()
    targets = [RAM + 0x80_0000 + (n << 16) for n in range(4)]
    for n, target in enumerate(targets):
        r.memory.poke(target, bytes([0x10 + n]) * 0x1000)
    slots = {page: tables.map(iova(page, granule), targets[0], attributes, start=start) for page in range(PAGES)}
    for slot in slots.values():
        r.memory.poke(slot, bytes(8))
    for step_number, (step, page, value) in enumerate(steps):
        address = iova(page, granule)
        if step == "map":
            tables.map(address, targets[value], attributes, start=start)
            shadow.now[page] = value
        elif step == "unmap":
            r.memory.poke(slots[page], bytes(8))
            shadow.now[page] = None
        else:
            item, alone = commands[value % len(commands)](address)
            r.run(item, SYNC)
            for gone in [page] if alone else range(PAGES):
                shadow.cached.pop(gone, None)
        want = shadow.expected(page)
        assert load(r, address + 8 * step_number) == (None if want is None else 0x10 + want)


@settings(max_examples=80, deadline=None)
@given(STEPS, st.sampled_from([12, 14, 16]))
def test_stage_1_follows_its_tables_up_to_its_cache(steps: list[Any], granule: int) -> None:
    """An access gives what the tables said when its page was first used since its last invalidation, whichever TLBI that was."""
    r, tables = rig(context=cd(granule=granule))
    tables.granule = granule
    who = VMID | ASID << 16
    commands = {
        0: lambda at: (command(NH_VA, who, at), True),
        1: lambda at: (command(NH_VAA, VMID, at), True),
        2: lambda at: (command(NH_ASID, who), False),
        3: lambda at: (command(NH_ALL, VMID), False),
        4: lambda at: (command(S12, VMID), False),
        5: lambda at: (command(NSNH), False),
    }
    play(r, tables, steps, commands, PAGE, 1 if granule == 16 else 0)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_stage_2_follows_its_tables_up_to_its_cache(steps: list[Any]) -> None:
    """The same of stage 2, with its own invalidations; those of stage 1 do not reach it."""
    r = Rig(endpoint=False).start()
    tables = Tables(r, RAM + 0x60_0000)
    commands = {
        0: lambda at: (command(S2_IPA, VMID, at), True),
        1: lambda at: (command(S12, VMID), False),
        2: lambda at: (command(NSNH), False),
    }
    play(r, tables, steps, commands, RW, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 15), st.integers(0, 15), max_size=8),
    st.dictionaries(st.integers(0, 15), st.integers(0, 15), max_size=8),
)
def test_two_stages_are_the_composition_of_both(first: dict[int, int], second: dict[int, int]) -> None:
    """With both stages an access reaches stage2(stage1(page)), and faults in the stage that has no mapping, with its IPA."""
    r, tables = rig()
    entry = bytearray(r.memory.peek(RAM + SIDS[0] * 64, 64))
    entry[0] |= 7 << 1
    r.ste(SIDS[0], bytes(entry))
    for at in range(RAM + 0x70_0000, RAM + 0x76_0000, 0x1000):
        r.map(at, at)
    ipa, data = 0x5000_0000, RAM + 0x80_0000
    for page in range(16):
        r.memory.poke(data + page * 0x1000, bytes([page]))
    for a, b in first.items():
        tables.map(BASE + a * 0x1000, ipa + b * 0x1000)
    for b, c in second.items():
        r.map(ipa + b * 0x1000, data + c * 0x1000)
    events = 0
    for page in range(16):
        middle = first.get(page)
        want = second.get(middle) if middle is not None else None
        assert load(r, BASE + page * 0x1000) == want
        if want is None and events < 8:
            record = r.event(events)
            assert record[0] == 0x10 | SIDS[0] << 32 and record[2] == BASE + page * 0x1000
            assert (record[1] >> 39 & 1, record[3]) == ((0, 0) if middle is None else (1, ipa + middle * 0x1000))
            events += 1
