"""It answers a grant with bytes that are no frame.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        self.node._send(b"CSA1 DONE, thank you")


if __name__ == "__main__":
    raise SystemExit(main(Broken))
