"""A scenario on a tree of hubs: hosts with barriers of their own under a root, every open choice made by the test."""

from __future__ import annotations

from collections.abc import Sequence

from cosim.core.barrier import Barrier, Grant, Out
from cosim.core.bounds import Distances
from cosim.core.host_barrier import HostBarrier
from cosim.core.message import RecordTuple
from tests.property.cluster import MAX_GRANTS, Broken, Cluster
from tests.property.reference import Outcome
from tests.property.scenario import Pick, Scenario


class Tree(Cluster):
    """Workers as in `Cluster`, spread over `hosts` (lists of workers). Mutants replace `host_between`."""

    host_barrier: type[HostBarrier] = HostBarrier

    def __init__(self, scenario: Scenario, placement: Sequence[Sequence[int]], hosts: Sequence[Sequence[int]]) -> None:
        super().__init__(scenario, placement)
        distances = Distances(len(self.nodes), scenario.links, [spec.reaction for spec in scenario.nodes])
        between = self.host_between(distances, placement, hosts)
        self.host_of = [next(h for h, own in enumerate(hosts) if w in own) for w in range(len(placement))]
        nodes_of = [[node for w in own for node in placement[w]] for own in hosts]
        self.barrier = Barrier(distances.between(nodes_of), until=scenario.until)
        self.hosts = [self.host_barrier(between, sorted(own), self.host_of) for own in hosts]
        self.open: dict[int, Grant] = {}
        self.away: list[tuple[int, int, list[RecordTuple], Out]] = []

    def host_between(
        self, distances: Distances, placement: Sequence[Sequence[int]], hosts: Sequence[Sequence[int]]
    ) -> Sequence[Sequence[int]]:
        """Distances between all workers, over the whole topology."""
        return distances.between(placement)

    def run(self, pick: Pick) -> Outcome:
        """Join, then run to the end with all choices made by `pick`."""
        for barrier in self.hosts:
            for index, worker in enumerate(barrier._own):
                barrier.ready(index, *self.kernels[worker].initial())
        for host, barrier in enumerate(self.hosts):
            self.barrier.ready(host, *barrier.first())
        self.open_hosts()
        while self.open:
            self.step(pick)
        return self.outcome()

    def open_hosts(self) -> None:
        """The root hands out its grants."""
        for grant in self.barrier.grants():
            host, barrier = grant.worker, self.hosts[grant.worker]
            mine = [item for item in self.away if self.host_of[item[1]] == host]
            self.away = [item for item in self.away if self.host_of[item[1]] != host]
            barrier.open(grant.bound, [out for *_, out in mine])
            for sender, worker, records, _ in mine:
                self.inbox[worker].append((sender, records))
            self.open[host] = grant
            self.granted += 1
        if not (self.open or self.barrier.idle):
            raise Broken("I3: some host has work, and no host has a grant")

    def step(self, pick: Pick) -> None:
        """One host with an open grant goes on: a worker answers, or grants are made, or it reports to the root."""
        host = sorted(self.open)[pick(0, len(self.open) - 1)]
        barrier = self.hosts[host]
        running = [w for w in sorted(self.running) if self.host_of[w] == host]
        if running and pick(0, 2):
            self.answer(running[pick(0, len(running) - 1)], (1, 3, 50_000)[pick(0, 2)])
            return
        early = not running and pick(0, 7) == 0  # a host may report with work left below its caps
        for grant in [] if early else barrier.grants():
            worker = barrier.worker(grant.worker)
            self.running[worker] = (grant, barrier.base(grant.worker), self.inbox[worker])
            self.inbox[worker] = []
            self.granted += 1
            if self.granted > MAX_GRANTS:
                raise Broken("I3: the run does not come to an end")
        if early or barrier.idle:
            report = barrier.close()
            self.barrier.report(host, self.open.pop(host).seq, *report)
            self.open_hosts()

    def answer(self, worker: int, max_events: int) -> None:
        """A worker executes its grant and answers to its host."""
        grant, base, inputs = self.running.pop(worker)
        barrier, kernel = self.hosts[self.host_of[worker]], self.kernels[worker]
        for sender, records in inputs:
            kernel.take(records, sender, self.worker_of)
        report = kernel.grant(grant.bound, max_events)
        self.check_promise(base, report)
        outs = [Out(b.worker, b.arrival, b.wake) for b in report.batches]
        barrier.report(barrier.index(worker), grant.seq, report.now, report.next_event, report.next_out, outs)
        for batch, out in zip(report.batches, outs, strict=True):
            if self.host_of[batch.worker] == self.host_of[worker]:
                self.inbox[batch.worker].append((worker, batch.records))
            else:
                self.away.append((worker, batch.worker, batch.records, out))
