"""It answers a grant with READY.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node.ready()


if __name__ == "__main__":
    raise SystemExit(main(Broken))
