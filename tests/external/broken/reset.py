"""A completion that comes after a reset goes on with the copy of before.

Case: reset (reset)
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def clear(self):
        waiting = getattr(self, "open", {})
        super().clear()
        self.open = waiting


if __name__ == "__main__":
    raise SystemExit(main(Broken))
