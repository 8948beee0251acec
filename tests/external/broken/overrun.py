"""Its clock passes the bound of the grant.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        if self.node.peek() > grant.bound + 1000:  # the client itself refuses to pass by an input
            self.node.stop = grant.bound + 1000
        super().answer(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
