"""A PE that takes time of the host: for measurements of what a second worker or host gives."""

from __future__ import annotations

import time
from typing import Any

from nodes.pe.model import Pe


class WorkingPe(Pe):
    """A `Pe` whose every message takes `WORK_US` of CPU time, as an instruction-set simulator's quantum would.

    What it does in simulated time is what a `Pe` does: the same messages at the same times, the same digest.
    """

    WORK_US = 1000

    def deliver(self, link: int, kind: int, fields: tuple[Any, ...]) -> None:
        """Work, then handle the message."""
        until = time.thread_time_ns() + self.WORK_US * 1000
        while time.thread_time_ns() < until:
            pass
        super().deliver(link, kind, fields)
