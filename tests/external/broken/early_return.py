"""It goes on to the bound after a request, past the time at which the answer may come.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def run(self, grant):
        while self.node.peek() < grant.bound or self.next_event() < grant.bound:
            self.node.stop = grant.bound
            super().run(grant)

    def answer(self, grant):
        self.node.stop = grant.bound
        if self.node.peek() >= grant.bound and self.next_event() >= grant.bound:
            super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
