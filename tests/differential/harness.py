"""One program on both sides: written as it goes on our machine, then run on the oracle, then compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.differential.accepted import normalise
from tests.differential.book import Draw
from tests.differential.compare import Difference, first_difference
from tests.differential.oracle import Observed, Oracle
from tests.differential.ours import Ours
from tests.differential.resolve import Author
from tests.differential.setup import Setup
from tests.differential.steps import Program, Step

LENGTH = 50
"""Steps of a program."""


class Pair:
    """Both sides, and what was tried so far: `programs`, `steps`, and `kinds` of steps that were taken."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.programs = self.steps = 0
        self.kinds: Counter[str] = Counter()
        self.program: Program | None = None

    def attempt(self, setup: Setup, draws: Iterable[Draw], limit: int = LENGTH) -> Difference | None:
        """Where the sides part on the program of at most `limit` steps that the draws give; it is `self.program` then."""
        version = self.oracle.version
        ours = Ours(version)
        ours.do(setup.steps())
        author = Author(version)
        view = ours.look()
        steps: list[Step] = []
        seen: list[Observed] = []
        for draw in draws:
            step = author.step(draw, view)
            if not step:
                continue
            result = ours.do(step)
            author.done(step, result)
            view = ours.look()
            steps.append(step)
            seen.append((result, view))
            self.kinds[draw.kind] += 1
            if len(steps) == limit:
                break
        self.program = Program(version, setup.steps(), tuple(steps))
        self.programs += 1
        self.steps += len(steps)
        theirs = self.oracle.run(self.program)
        return first_difference(normalise(seen), normalise(theirs))

    def execute(self, setup: Setup, steps: tuple[Step, ...]) -> Difference | None:
        """Where the sides part on a program that is written out."""
        self.program = Program(self.oracle.version, setup.steps(), steps)
        ours = normalise(Ours(self.oracle.version).run(self.program))
        return first_difference(ours, normalise(self.oracle.run(self.program)))

    def explain(self, difference: Difference) -> str:
        """The last program and where it parted: for a person."""
        return f"{self.program}\n{difference}"
