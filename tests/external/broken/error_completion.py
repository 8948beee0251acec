"""It takes data from every completion, and falls over one with an error.

Case: completions with
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def await_(self, tag, then):
        if tag is None:
            self.end(3)
        else:
            self.open[tag] = lambda m: then(m) if m.status < 2 else then(m.data[0])


if __name__ == "__main__":
    raise SystemExit(main(Broken))
