"""Reads take their time, and a reset forgets those that it has not answered.

Case: reset (reset)
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def access(self, message):
        if message.kind == "mmio.Read":
            self.after(100_000, lambda: super(Broken, self).access(message))
        else:
            super().access(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
