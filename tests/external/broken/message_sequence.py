"""It leaves out a sequence number.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        self.node._seq += 1
        super().line(level)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
