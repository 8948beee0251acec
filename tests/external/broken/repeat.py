"""Every copy takes its time by a random number that no seed decides.

Case: equal seeds
"""

from __future__ import annotations

import random

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def after(self, delay, fn):
        super().after(delay + random.SystemRandom().randrange(1_000_000), fn)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
