"""It speaks version 2 of the protocol.

Case: partition: far
"""

from __future__ import annotations

from base import main

from cosim.attach import client

client.VERSION = (2, 0)


if __name__ == "__main__":
    raise SystemExit(main())
