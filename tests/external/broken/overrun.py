"""Its clock passes the bound of the grant.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        if self.node.stop == grant.bound:  # an early return leaves inputs, which the client would refuse to pass by
            self.node.stop += 1000
        super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
