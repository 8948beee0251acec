"""It says that it has nothing to do while it holds inputs.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        kept, self.node._kept = self.node._kept, []
        super().answer(grant)
        self.node._kept = kept


if __name__ == "__main__":
    raise SystemExit(main(Broken))
