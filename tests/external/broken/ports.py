"""Its register port has another name than the stimulus, and the machine, know.

Case: partition: far
"""

from __future__ import annotations

from base import PORTS, main

PORTS["registers"] = PORTS.pop("regs")


if __name__ == "__main__":
    raise SystemExit(main())
