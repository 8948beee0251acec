"""It gives up when a DMA request ends with an error.

Case: SLVERR
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def complete(self, message):
        if message.status:
            raise RuntimeError("DMA error")
        super().complete(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
