"""It sends a read by its register port, which is a target.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.message import Record


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        link = self.node._link("regs", None)
        self.node._outbox.append(Record(self.node.now + link.latency, self.node._seq, link.id, 64, (1, 0, 4, 0)))
        self.node._seq += 1


if __name__ == "__main__":
    raise SystemExit(main(Broken))
