"""Random programs on our GIC and on QEMU's. How many: COSIM_DIFFERENTIAL, per GIC version; `make differential` sets it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.distributor.spi import Spis
from nodes.its.mappings import Mappings
from nodes.pe.virtual_interface import VirtualInterface
from nodes.redistributor.lpi import Lpis
from nodes.redistributor.private import Private
from tests.differential.accepted import ACCEPTED
from tests.differential.book import Draw
from tests.differential.generate import Fails, generate, shrink
from tests.differential.harness import LENGTH, Pair
from tests.differential.oracle import Oracle, missing
from tests.differential.resolve import KINDS, V4_KINDS
from tests.differential.setup import Setup
from tests.differential.steps import Command, Mrs, Msr, Step, Write

PROGRAMS = int(os.environ.get("COSIM_DIFFERENTIAL", "150"))


@pytest.fixture(scope="module", params=["3", "4.0"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both sides for one GIC version; QEMU lives as long as the module's tests."""
    if missing():
        pytest.skip(missing())
    oracle = Oracle(str(request.param))
    yield Pair(oracle)
    oracle.close()


def fails(pair: Pair) -> Fails:
    """Do the sides part on these draws?"""
    return lambda setup, draws: pair.attempt(setup, draws) is not None


def report(pair: Pair, setup: Setup, draws: list[Draw]) -> str:
    """The shortest program on which the sides part as these draws make them."""
    setup, draws = shrink(setup, draws, fails(pair))
    difference = pair.attempt(setup, draws)
    assert difference is not None
    return f"{setup}\n{pair.explain(difference)}"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_random_programs(pair: Pair, seed: int) -> None:
    """After every step of every program both show the same tables, pending bits, registers and lines."""
    version = pair.oracle.version
    for number in range(PROGRAMS):
        setup, draws = generate(version, seed, number)
        if pair.attempt(setup, draws) is not None:
            pytest.fail(f"program {number} of seed {seed}: {report(pair, setup, draws)}", pytrace=False)
    print(f"\nGICv{version}: {pair.programs} programs, {pair.steps} steps, each compared; kinds: {dict(pair.kinds)}")
    if PROGRAMS >= 100:
        assert pair.steps > pair.programs * (LENGTH - 2)
        assert set(pair.kinds) == set(KINDS) - {"nothing"} - (set(V4_KINDS) if version == "3" else set())


WITNESSED = [entry for entry in ACCEPTED if entry.witness]


@pytest.mark.parametrize("entry", WITNESSED, ids=lambda entry: entry.what)
def test_accepted_differences_are_still_there(pair: Pair, entry: Any) -> None:
    """An entry of the list whose difference has gone must go too."""
    assert pair.execute(Setup(pair.oracle.version, tables=entry.tables), entry.witness) is not None


FOUND: dict[str, tuple[Step, ...]] = {
    "MOVI from an unmapped collection": (
        (Command.of("MAPC", icid=0, rdbase=0, valid=0),),
        (Command.of("MOVI", device_id=8, event_id=0, icid=1),),
    ),
    "ASGI1R and SGIs of Group 1": ((Msr("ICC_ASGI1R_EL1", 1 << 40),),),
    "a PPI made pending by software while its level is high": (
        (Msr("ICH_LR1_EL2", 0x10A8_0200_0000_0001),),
        (Write("GICR_ICPENDR0", 1 << 25),),
        (Write("GICR_ISPENDR0", 1 << 25),),
        (Mrs("ICC_IAR1_EL1"),),
        (Msr("ICH_LR1_EL2", 0x50A0_0000_0000_0001),),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_before(pair: Pair, name: str) -> None:
    """Programs that once showed a fault of ours."""
    difference = pair.execute(Setup(pair.oracle.version), FOUND[name])
    assert difference is None, pair.explain(difference)


def test_every_accepted_difference_is_justified() -> None:
    """Each entry says what, who and why, and how it is kept out: by a mask or by not going there, with a witness."""
    for entry in ACCEPTED:
        assert entry.what and entry.right and entry.why
        assert bool(entry.names and entry.bits) != bool(entry.avoided and entry.witness)


def _no_clear(self: Lpis, intid: int) -> None:
    self._rd.wait_returned(self._rd.physical, [intid])


MUTANTS: dict[str, tuple[type, str, Any]] = {
    "CLEAR clears nothing": (Lpis, "clear", _no_clear),
    "SGIs and PPIs ignore their group": (Private, "group_of", lambda self, intid: 1),
    "maintenance is never asked for": (VirtualInterface, "misr", lambda self: 0),
    "DISCARD keeps the mapping": (Mappings, "set_event", lambda self, device, event, *entry: None),
    "SPIs stay active": (Spis, "deactivate", lambda self, intid: None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_model_is_found_and_shrunk(pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault put into our side is found within a few programs, and the program shrinks to a few steps."""
    owner, attribute, replacement = MUTANTS[name]
    version = pair.oracle.version
    assert hasattr(owner, attribute)
    monkeypatch.setattr(owner, attribute, replacement)
    for number in range(60):
        setup, draws = generate(version, 1, number)
        if pair.attempt(setup, draws) is not None:
            break
    setup, draws = shrink(setup, draws, fails(pair))
    difference = pair.attempt(setup, draws)
    assert difference is not None and pair.program is not None
    print(f"\n{name}, found by program {number}\n{pair.explain(difference)}")
    assert len(pair.program.steps) <= 5, pair.explain(difference)


@given(st.lists(st.integers(1, 0xFFFF), min_size=2, max_size=40), st.data())
def test_shrinking_finds_the_cause(numbers: list[int], data: st.DataObject) -> None:
    """Two draws that fail together are all that is left, with one bit each that matters."""
    first = data.draw(st.integers(0, len(numbers) - 2))
    second = data.draw(st.integers(first + 1, len(numbers) - 1))
    draws = [Draw(str(n), number, number, number, number) for n, number in enumerate(numbers)]
    low, high = numbers[first] & -numbers[first], 1 << numbers[second].bit_length() - 1

    def bad(setup: Setup, candidate: list[Draw]) -> bool:
        left = {draw.kind: draw for draw in candidate}
        return (
            str(first) in left and str(second) in left and bool(left[str(first)].b & low)
            and bool(left[str(second)].c & high)
        )  # fmt: skip

    _, shortest = shrink(Setup("3", mapped=False), draws, bad)
    assert shortest == [Draw(str(first), 0, low, 0, 0), Draw(str(second), 0, 0, high, 0)]
