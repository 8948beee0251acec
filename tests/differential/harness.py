"""One program on both sides: written as it goes on our machine, then run on the oracle, then compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.differential.accepted import normalise
from tests.differential.compare import Difference, first_difference
from tests.differential.oracle import Observed, Oracle
from tests.differential.ours import Ours
from tests.differential.resolve import Author, Draw
from tests.differential.setup import Setup
from tests.differential.steps import Program, Step


class Pair:
    """Both sides, and what was tried so far: `programs`, `steps`, and `kinds` of steps that were taken."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.programs = self.steps = 0
        self.kinds: Counter[str] = Counter()
        self.program: Program | None = None

    def attempt(self, setup: Setup, draws: Sequence[Draw]) -> Difference | None:
        """Where the sides part on the program that the draws give; it is `self.program` then."""
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
        self.program = Program(version, setup.steps(), tuple(steps))
        self.programs += 1
        self.steps += len(steps)
        theirs = self.oracle.run(self.program)
        return first_difference(normalise(seen), normalise(theirs))
