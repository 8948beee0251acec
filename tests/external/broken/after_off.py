"""It goes on when the power is off.

Case: power off
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.time import NEVER


class Broken(Engine):
    """The engine, with that fault."""

    def run(self, grant):
        node = self.node
        while (now := min(node.peek(), self.next_event())) < node.stop:
            if node.peek() <= now:
                message = node.take()
                node.off, node._off_at = False, NEVER
                if message is not None:
                    self.take(message)
            else:
                node.now, _, fn = self.timers.pop(0)
                fn()
        self.answer(grant)

    def complete(self, message):
        self.after(1_000_000, lambda: Engine.complete(self, message))


if __name__ == "__main__":
    raise SystemExit(main(Broken))
