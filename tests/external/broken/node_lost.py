"""It ends in the middle.

Case: partition: far
"""

from __future__ import annotations

import os

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        os._exit(7)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
