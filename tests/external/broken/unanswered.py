"""It never completes an access to an address that it does not know.

Case: partition: far
"""

from __future__ import annotations

from base import CTRL, Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def access(self, message):
        if message.addr in self.registers or message.addr == CTRL:
            super().access(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
