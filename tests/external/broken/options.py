"""It promises a lookahead that is no time.

Case: partition: far
"""

from __future__ import annotations

from base import main

if __name__ == "__main__":
    raise SystemExit(main(lookahead_ps=-5000))
