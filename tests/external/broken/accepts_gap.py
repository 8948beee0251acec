"""It takes grants of any number.

Case: a gap
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        receive = node._receive

        def accept(timeout):
            frame = receive(timeout)
            node._grant_seq = frame.body[0] - 1 if len(frame.body) == 3 else node._grant_seq
            return frame

        node._receive = accept


if __name__ == "__main__":
    raise SystemExit(main(Broken))
