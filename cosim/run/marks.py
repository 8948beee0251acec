"""Latencies and paths from marks: which cause led to which acknowledge, how long it took, and whether the target exited.

Marks come in the order of (time, node id, number). Names and identities:
    cause vsgi vcpu intid t_ps           a guest wrote its SGI register at t_ps; one per target
    msi device_id event_id t_ps          an endpoint sent its MSI write at t_ps
    msi_route device_id event_id vcpu intid   from now on that event means this guest interrupt
    ack vcpu intid source                the guest acknowledged it; source "direct" or "lr"
    exit vcpu reason detail              the vCPU left the guest
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from typing import Any

FAMILIES = ("vlpi", "vsgi")


class Pairing:
    """Pairs causes with acknowledges by (vCPU, INTID), as the marks come in."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str, int], deque[tuple[str, int]]] = defaultdict(deque)
        self._routes: dict[tuple[int, int], tuple[str, int]] = {}
        self._exits: dict[str, list[int]] = defaultdict(list)
        self.samples: list[tuple[str, int, int, str, int]] = []
        """(family, cause time, acknowledge time, source, exits of the target in between)."""

    def add(self, time: int, name: str, identity: list[Any]) -> None:
        """Account for one mark; unknown names are for other readers."""
        if name == "cause":
            family, vcpu, intid, at = identity
            self._causes[(vcpu, intid)].append((family, at))
        elif name == "msi":
            route = self._routes.get((identity[0], identity[1]))
            if route is not None:
                self._causes[route].append(("vlpi", identity[2]))
        elif name == "msi_route":
            self._routes[(identity[0], identity[1])] = (identity[2], identity[3])
        elif name == "exit":
            self._exits[identity[0]].append(time)
        elif name == "ack":
            self._acknowledge(time, identity[0], identity[1], identity[2])

    def _acknowledge(self, time: int, vcpu: str, intid: int, source: str) -> None:
        causes = self._causes.get((vcpu, intid))
        if not causes:
            return
        family, at = causes.popleft()
        while causes and causes[0][1] <= time:
            causes.popleft()  # collapsed: an interrupt that was pending already is taken once
        exits = self._exits[vcpu]
        between = bisect_right(exits, time) - bisect_right(exits, at)
        self.samples.append((family, at, time, source, between))

    def csv(self) -> str:
        """All samples, one a line, in the order of the acknowledges: latencies.csv of the run directory."""
        lines = [f"{family},{at},{t},{source},{between}\n" for family, at, t, source, between in self.samples]
        return "family,cause_ps,acknowledge_ps,source,exits_between\n" + "".join(lines)

    def latencies(self, since: int = -1, until: int | None = None) -> dict[str, dict[str, int] | None]:
        """Per family count, min, p50, p99 and max in ps of acknowledges in [since, until); None without samples."""
        result: dict[str, dict[str, int] | None] = {}
        for family in FAMILIES:
            spans = sorted(
                t - at
                for f, at, t, _s, _b in self.samples
                if f == family and since <= t and (until is None or t < until)
            )
            result[family] = summary(spans) if spans else None
        return result

    def paths(self, since: int = -1, until: int | None = None) -> dict[str, dict[str, int]]:
        """Per family how many were injected directly and by list register, and exits of the target in between."""
        result = {family: {"direct": 0, "lr": 0, "exits_between": 0} for family in FAMILIES}
        for family, _at, t, source, between in self.samples:
            if since <= t and (until is None or t < until):
                result[family][source] += 1
                result[family]["exits_between"] += between
        return result


def summary(spans: list[int]) -> dict[str, int]:
    """count, min, p50, p99 (nearest rank) and max of sorted spans in ps."""

    def rank(percent: int) -> int:
        return spans[max(0, -(-len(spans) * percent // 100) - 1)]

    return {"count": len(spans), "min": spans[0], "p50": rank(50), "p99": rank(99), "max": spans[-1]}
