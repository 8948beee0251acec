"""It sleeps in a grant.

Case: partition: far
"""

from __future__ import annotations

import time

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        time.sleep(600)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
