"""The interrupt is stamped with time 0, long after.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        link = self.node._link("irq", None)
        self.node._begun, begun, stop = 0, self.node._begun, self.node.stop
        self.node._emit(link, "wire.Level", (0, level), 0)
        self.node._begun, self.node.stop = begun, stop


if __name__ == "__main__":
    raise SystemExit(main(Broken))
