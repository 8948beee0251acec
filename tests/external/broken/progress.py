"""It answers each grant without moving its clock.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node.done(self.node._begun, now=self.node._begun)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
