"""A PE that takes time of the host: for measurements of what a second worker or host gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nodes.pe.model import Pe


class WorkingPe(Pe):
    """A `Pe` whose every message takes `WORK_US` of CPU time, as an instruction-set simulator's quantum would.

    What it does in simulated time is what a `Pe` does: the same messages at the same times, the same digest.
    """

    WORK_US = 1000

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """Works, then handles the message."""
        handle = super().receiver(link, kind)

        def receive(*fields: Any) -> Any:
            until = time.thread_time_ns() + self.WORK_US * 1000
            while time.thread_time_ns() < until:
                pass
            return handle(*fields)

        return receive
