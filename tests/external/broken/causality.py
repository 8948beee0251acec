"""While it is busy it answers at once, although it promised a lookahead of 5 ns.

Case: partition: far
"""

from __future__ import annotations

from base import STATUS, Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        self.reply = node.reply
        node.reply = self.late

    def late(self, message, status=0, data=0):
        busy = self.registers[STATUS] == 1
        self.reply(message, status, data, at=self.node.now + (0 if busy else 5000))

    def line(self, level):
        self.after(5000, lambda: Engine.line(self, level))

    def control(self, value):
        self.after(5000, lambda: Engine.control(self, value))

    def complete(self, message):
        self.after(5000, lambda: Engine.complete(self, message))


if __name__ == "__main__":
    raise SystemExit(main(Broken, lookahead_ps=5000))
