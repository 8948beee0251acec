"""It drives a line to level 7.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        super().line(7 if level else 0)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
