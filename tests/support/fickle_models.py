"""Models that do something else when an environment variable is set: as if their code had been changed after a run."""

from __future__ import annotations

import os

from cosim.api import Peer, on
from tests.support.models import TOKEN, Ring

CHANGED = "COSIM_TEST_CHANGED"
WIDE = "COSIM_TEST_WIDE"


class Fickle(Ring):
    """A ring's node; once it is changed it passes the twelfth token late, and with `CHANGED` = raise it raises there."""

    @on(TOKEN.Token)
    def token(self, peer: Peer, n: int) -> None:
        """As a ring's node, but for the twelfth when it is changed."""
        changed = os.environ.get(CHANGED)
        if not 10 <= n < self.params["rounds"] or not changed:
            super().token(peer, n)
        elif changed == "raise":
            raise ValueError("this token is bad luck")
        else:
            self.out.send(None, TOKEN.Token, n + 1, delay=1)


class Wide(Ring):
    """Counts or sends a number that does not fit in 64 bits, as `WIDE` says."""

    @on(TOKEN.Token)
    def token(self, peer: Peer, n: int) -> None:
        """As a ring's node, but wide at the first."""
        if os.environ[WIDE] == "counter":
            self.count["tokens"] = 1 << 64
        elif n < 4:
            self.out.send(None, TOKEN.Token, 1 << 64)
            return
        super().token(peer, n)
