"""It ends with an error after a good run.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    pass


if __name__ == "__main__":
    raise SystemExit(main(Broken) or 3)
