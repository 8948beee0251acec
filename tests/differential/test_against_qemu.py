"""Random programs on our GIC and on QEMU's. How many: COSIM_DIFFERENTIAL, per GIC version; `make differential` sets it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from nodes.distributor.spi import Spis
from nodes.its.mappings import Mappings
from nodes.pe.virtual_interface import VirtualInterface
from nodes.redistributor.lpi import Lpis
from nodes.redistributor.private import Private
from tests.differential.accepted import ACCEPTED
from tests.differential.harness import LENGTH, Pair
from tests.differential.oracle import Oracle, missing
from tests.differential.resolve import KINDS, V4_KINDS, Draw, kinds
from tests.differential.setup import Setup

PROGRAMS = int(os.environ.get("COSIM_DIFFERENTIAL", "150"))
DRAWS = 90
"""Some draws give no step, so a program of LENGTH steps needs more of them."""

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module", params=["3", "4.0"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both sides for one GIC version; QEMU lives as long as the module's tests."""
    oracle = Oracle(str(request.param))
    yield Pair(oracle)
    oracle.close()


@st.composite
def draws(draw: st.DrawFn, version: str) -> list[Draw]:
    """What a program is made of: three numbers per piece, so that hypothesis shrinks by leaving pieces out; 0 ends it early."""
    names = kinds(version)
    numbers, kind = st.integers(0, 0xFF_FFFF), st.integers(0, 4 * len(names))
    found: list[Draw] = []
    while len(found) < DRAWS and (number := draw(kind)):
        first, second = draw(numbers), draw(numbers)
        name = names[(number - 1) % len(names)]
        found.append(Draw(name, first >> 16, first & 0xFFFF, second & 0xFFFF, second >> 16))
    return found


def setups(version: str) -> st.SearchStrategy[Setup]:
    """Variants of the usual set-up."""
    return st.builds(
        Setup,
        version=st.just(version),
        group1=st.sampled_from([0xFFFF_FFFF, 0xF5]),
        tables=st.integers(0, 5),
        mapped=st.booleans(),
        preset=st.booleans(),
        id_bits=st.sampled_from([14, 16]),
        binary_point=st.sampled_from([0, 5]),
        eoimode=st.integers(0, 1),
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_random_programs(pair: Pair) -> None:
    """After every step of every program both show the same tables, pending bits, registers and lines."""
    version = pair.oracle.version

    @settings(max_examples=PROGRAMS, database=None, suppress_health_check=list(HealthCheck))
    @given(setup=setups(version), drawn=draws(version))
    def run(setup: Setup, drawn: list[Draw]) -> None:
        difference = pair.attempt(setup, drawn)
        if difference is not None:
            raise AssertionError(f"the sides part; the shortest program found:\n{pair.explain(difference)}")

    run()
    print(f"\nGICv{version}: {pair.programs} programs, {pair.steps} steps, each compared; kinds: {dict(pair.kinds)}")
    assert pair.programs >= PROGRAMS
    if PROGRAMS >= 100:
        assert pair.steps > pair.programs * LENGTH // 2
        assert set(pair.kinds) == set(KINDS) - {"nothing"} - (set(V4_KINDS) if version == "3" else set())


WITNESSED = [entry for entry in ACCEPTED if entry.witness]


@pytest.mark.parametrize("entry", WITNESSED, ids=lambda entry: entry.what)
def test_accepted_differences_are_still_there(pair: Pair, entry: Any) -> None:
    """An entry of the list whose difference has gone must go too."""
    assert pair.execute(Setup(pair.oracle.version), entry.witness) is not None


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
    shortest = find(
        draws(version),
        lambda drawn: pair.attempt(Setup(version), drawn) is not None,
        settings=settings(
            max_examples=60, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    difference = pair.attempt(Setup(version), shortest)
    assert difference is not None and pair.program is not None
    assert len(pair.program.steps) <= 5, pair.explain(difference)
