"""Models that do something else when an environment variable is set: as if their code had been changed after a run."""

from __future__ import annotations

import os
import time

from cosim.api import Peer, on
from tests.support.models import TOKEN, Ring

CHANGED = "COSIM_TEST_CHANGED"
WIDE = "COSIM_TEST_WIDE"
SLOW = "COSIM_TEST_SLOW"


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


class Slow(Ring):
    """Passes a token on, and does something more 1 ps later; takes 3 ms of wall time in between when it is slow."""

    @on(TOKEN.Token)
    def token(self, peer: Peer, n: int) -> None:
        """As a ring's node, with a timer that follows."""
        super().token(peer, n)
        self.after(1, self.more)
        time.sleep(0.003 * (SLOW in os.environ))

    def more(self) -> None:
        """Count."""
        self.count["more"] += 1
