"""It completes each read twice.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def access(self, message):
        super().access(message)
        if message.kind == "mmio.Read":
            super().access(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
