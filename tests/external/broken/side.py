"""It writes a log record in the name of another node.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node._side.append([0, self.node.plan.node + 1, 0, 0, ["hello", {}]])
        super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
