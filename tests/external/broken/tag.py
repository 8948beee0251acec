"""Both requests of a pair have the same tag.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def block(self, number):
        tag = self.node._tag
        super().block(number)
        self.node._tag = tag
        super().block(number)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
