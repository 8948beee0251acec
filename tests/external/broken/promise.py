"""next_out is two clocks later than the next event, which sends.

Case: partition: one event
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.time import NEVER


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        event = self.next_event()
        self.node.done(event, next_out=min(event + 2000, NEVER))


if __name__ == "__main__":
    raise SystemExit(main(Broken))
