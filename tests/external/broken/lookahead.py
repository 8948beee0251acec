"""It promises a lookahead of 5 ns and answers at once.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    pass


if __name__ == "__main__":
    raise SystemExit(main(Broken, lookahead_ps=5000))
