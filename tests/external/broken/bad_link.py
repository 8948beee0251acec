"""It sends over a link that ends at it.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.message import Record


class Broken(Engine):
    """The engine, with that fault."""

    def line(self, level):
        link = next(row for row in self.node.plan.links if not row.out)
        self.node._outbox.append(Record(self.node.now + link.latency, self.node._seq, link.id, 128, (0, level)))
        self.node._seq += 1


if __name__ == "__main__":
    raise SystemExit(main(Broken))
