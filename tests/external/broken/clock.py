"""Its clock goes back.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node.done(self.next_event(), now=self.node._begun - 1 if self.node._begun else None)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
