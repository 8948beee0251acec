"""It takes a second completion for one more block.

Case: come twice
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def complete(self, message):
        waiting = self.open.get(message.tag)
        if waiting is not None:
            waiting(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
