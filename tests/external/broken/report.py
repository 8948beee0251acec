"""Its final counters are no numbers.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node.count["size"] = "many"
        super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
