"""Programs by number: the same seed and number give the same draws for ever. And how a failing one becomes short.

Hypothesis draws the shape of a test well, but not long programs of independent steps, and takes minutes to shorten one when
each attempt runs two machines. Here a failing program is cut by delta debugging (Zeller and Hildebrandt, 2002): leave out
runs of draws, halves first, as long as it still fails; then make each number as small as may be.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.differential.book import Draw
from tests.differential.resolve import kinds
from tests.differential.setup import Setup

DRAWS = 100
"""Some draws give no step, so a program of 50 steps needs more of them."""

Fails = Callable[[Setup, list[Draw]], bool]


def generate(version: str, seed: int, number: int) -> tuple[Setup, list[Draw]]:
    """Program `number` of a seed."""
    source = random.Random(f"{version}/{seed}/{number}")
    setup = Setup(
        version,
        group1=source.choice([0xFFFF_FFFF, 0xFFFF_FFFF, 0xF5]),
        tables=source.randrange(6),
        mapped=source.random() < 0.8,
        preset=source.random() < 0.5,
        id_bits=source.choice([14, 14, 14, 16]),
        binary_point=source.choice([0, 0, 5]),
        eoimode=source.choice([0, 0, 1]),
    )
    names = kinds(version)
    return setup, [Draw(source.choice(names), *(source.getrandbits(16) for _ in range(4))) for _ in range(DRAWS)]


def shrink(setup: Setup, draws: list[Draw], fails: Fails) -> tuple[Setup, list[Draw]]:
    """The shortest and simplest that still fails: no draw can be left out, no number halved or made 0 alone."""
    draws = _leave_out(setup, draws, fails)
    setup = _plain(setup, draws, fails)
    draws = list(draws)
    for number in range(len(draws)):
        for field in range(1, 5):
            _lower(setup, draws, number, field, fails)
    return setup, _leave_out(setup, draws, fails)


def _leave_out(setup: Setup, draws: list[Draw], fails: Fails) -> list[Draw]:
    size = max(1, len(draws) // 2)
    while True:
        start, shorter = 0, False
        while start < len(draws):
            candidate = draws[:start] + draws[start + size :]
            if fails(setup, candidate):
                draws, shorter = candidate, True
            else:
                start += size
        if size == 1 and not shorter:
            return draws
        size = max(1, size // 2)


def _plain(setup: Setup, draws: list[Draw], fails: Fails) -> Setup:
    """The usual variant if the failure does not need this one."""
    usual = Setup(setup.version)
    return usual if fails(usual, draws) else setup


def _lower(setup: Setup, draws: list[Draw], number: int, field: int, fails: Fails) -> None:
    """Make one number smaller, in place: 0, else bits off from the top."""

    def now() -> int:
        return int(draws[number][field])

    def works(value: int) -> bool:
        changed = Draw._make([*draws[number][:field], value, *draws[number][field + 1 :]])
        candidate = [*draws[:number], changed, *draws[number + 1 :]]
        if fails(setup, candidate):
            draws[number] = changed
            return True
        return False

    if now() and not works(0):
        for bit in reversed(range(16)):
            if now() >> bit & 1 and now() != 1 << bit:
                works(now() ^ 1 << bit)
