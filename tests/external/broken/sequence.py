"""Its answer carries the number of another grant.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node._grant_seq += 1
        super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
