"""A model that holds its run until a test lets it go."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cosim.api import Peer, on
from tests.support.models import TOKEN, Ring

GO_VARIABLE = "COSIM_TEST_GO"
"""Names the file that lets `Held` go on."""
LIMIT_S = 60.0


class Held(Ring):
    """A ring's node; with the third token it waits (in wall time) for the file, if there is to be one."""

    @on(TOKEN.Token)
    def token(self, peer: Peer, n: int) -> None:
        """Wait, then do as the others."""
        go, deadline = os.environ.get(GO_VARIABLE), time.monotonic() + LIMIT_S
        while n >= 3 and go and not Path(go).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        super().token(peer, n)
