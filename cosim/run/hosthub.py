"""The hub of one host: a hub to the workers here, a worker to the root hub.

Between two grants of the root it decides alone (`cosim.core.host_barrier`). What its workers send to workers of other hosts it
keeps until nobody here may run any more, and puts it into its DONE, one parcel per host (`cosim.run.hostwire`). Console text,
log events and marks go with it; errors go up at once. A heartbeat goes up twice a second, also while workers compute; the root
sends as many. A host that has not heard from the root for the time of its lease gives up.

Events for the host's process besides those of `cosim.run.hub`: orphaned text (the lease is over, or the connection).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from cosim.core.barrier import Barrier, ProtocolViolation
from cosim.core.bounds import Distances
from cosim.core.codec import FrameType, WireError, decode, encode
from cosim.core.host_barrier import HostBarrier
from cosim.core.journal import HEADER
from cosim.core.plan import Plan
from cosim.core.time import NEVER
from cosim.link.base import LinkClosed
from cosim.node.worker import Socket
from cosim.run.foreign import Foreign
from cosim.run.hostwire import (
    HEARTBEAT,
    OUTBOX_BYTES,
    RECEIVED,
    Entry,
    error_text,
    outs,
    pack_beat,
    pack_parcels,
    pack_reports,
    pack_side,
    split_batches,
    unpack_parcel,
)
from cosim.run.hub import Hub
from cosim.run.hubparts import HubLink, Journal

HEARTBEAT_S = 0.5
ORPHANED = "orphaned"


class HostHub(Hub):
    """A host's hub at work.

    Args:
        plan: the host's part of the plan (`Plan.host_part`).
        host: its number among ``plan.hosts``.
        root: the link to the root, joined and welcomed.
        link, emit, others: as of every hub; see `cosim.run.hubstate`.
        lease_s: how long the root may be silent.
    """

    barrier: HostBarrier

    passing = False

    def __init__(
        self,
        plan: Plan,
        host: int,
        root: Socket,
        link: HubLink,
        emit: Callable[[list[Any]], None],
        *,
        lease_s: float = 10.0,
        **others: Any,
    ) -> None:
        self.host = host
        self.name = plan.hosts[host].name
        self._own = plan.hosts[host].workers
        self._place = {worker: index for index, worker in enumerate(self._own)}
        self._host_of = plan.host_of_worker()
        others["commands"] = partial(self._sorted, others.get("commands", list))
        super().__init__(plan, link, emit, **others)
        self._root = root
        self._lease = lease_s
        self._heard = time.monotonic()
        self._next_beat = 0.0
        self._seq = 0
        self._open = False  # a grant of the root is out
        self._failed = False
        self._inputs: list[Entry] = []  # of grants that only deliver
        self._outbox: dict[int, list[Entry]] = {}
        self._outbox_bytes = 0
        self._outbox_arrival = NEVER

    # -- where it differs from the hub of a run on one machine ---------------------------------------------------------

    def _served(self) -> Sequence[int]:
        return self._own

    def _barrier(self, distances: Distances) -> Barrier:
        names = [self._worker_name(group) for group in self.plan.groups]
        return HostBarrier(distances.between(self.plan.groups), self._own, self._host_of, names=names)

    def _journal(self, folder: Path | None) -> Journal:
        return _NamedJournal(folder, [f"w{worker}" for worker in self._own])

    def _foreign_workers(self, tokens: Mapping[str, str], stall_s: float) -> dict[int, Foreign]:
        found: dict[int, Foreign] = {}
        for index, worker in enumerate(self._own):
            node = self.plan.nodes[self.plan.groups[worker][0]]
            if node.external is not None:
                foreign = Foreign(self.plan, worker, self._returns[worker], tokens.get(node.name, ""), stall_s)
                foreign.worker = index  # the number under which the hub blames it
                found[index] = foreign
        return found

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the root says BYE, or is gone; the last event is ``end`` or ``orphaned``."""
        try:
            while self._stop is None:
                self._step()
            if self._stop != ORPHANED:
                self._farewell(self._stop)
                self._last_report()
                self._await_receipt()
            if self._stop != ORPHANED:
                self.emit(["end", {}])
        except LinkClosed as closed:
            self._orphan(str(closed))
        finally:
            self.journal.close()

    def _step(self) -> None:
        self._listen()
        if self._stop is None:
            self._grant()  # what the root allows: nothing else would wake the wait that follows
            super()._step()

    def _orphan(self, text: str) -> None:
        self._stop = ORPHANED
        self.emit(["orphaned", text])

    def _housekeeping(self, now: float) -> None:
        super()._housekeeping(now)
        self._pulse(now)
        if self._stop is None and now - self._heard > self._lease:
            self._orphan(f"the root hub must be heard within {self._lease:g} s (--lease), and was not")

    def _pulse(self, now: float) -> None:
        """Send the heartbeat when it is due: with it the figures so far."""
        if self._stop not in (None, ORPHANED):
            while self._root.receive(0) is not None:
                self._heard = now  # what the root still sends after its BYE means nothing
        if now >= self._next_beat and self._stop != ORPHANED:
            self._next_beat = now + HEARTBEAT_S
            self._send_side()
            # What waits to go to other hosts will make them act from its arrival on.
            horizon = min(self._horizon(), self._outbox_arrival)
            beat = pack_beat(self._seq, horizon, max(self._now), self._figures())
            self._root.send(encode(FrameType.STATUS, HEARTBEAT, beat))

    def _sorted(self, source: Callable[[], list[list[Any]]]) -> list[list[Any]]:
        """The parent's commands that every hub knows; "failed" is told to the root: the workers could not be started."""
        commands = source()
        for _name, fields in [c for c in commands if c[0] == "failed"]:
            self._error(**fields)
        return [c for c in commands if c[0] != "failed"]

    # -- with the root -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take what the root has sent."""
        while self._stop is None and (data := self._root.receive(0)) is not None:
            self._heard = time.monotonic()
            try:
                self._obey(data)
            except (WireError, ProtocolViolation) as error:
                self._root_fault(str(error))

    def _obey(self, data: bytes) -> None:
        frame = decode(data)
        if frame.type is FrameType.GRANT:
            self._granted(*frame.body)
        elif frame.type is FrameType.QUERY:
            if frame.body[0] != HEARTBEAT:
                self._query(*frame.body)
        elif frame.type is FrameType.BYE:
            self._stop = frame.body[0]
        else:
            raise WireError(f"a host must get GRANT, QUERY or BYE, not {frame.type.name}")

    def _root_fault(self, text: str) -> None:
        self._error(
            "bad-frame",
            f"the root hub broke a rule of the protocol: {text}",
            exit_code=5,
            node=None,
            sim_time_ps=max(self._now),
            where="root hub",
            next_step="docs/protocol.md explains the rule; this is a fault of cosim: please report it",
        )

    def _granted(self, seq: int, bound: int, parcels: Sequence[tuple[int, bytes]]) -> None:
        """The root's grant; one of sequence number 0 only delivers."""
        if seq not in (0, self._seq + 1) or self._open:
            raise WireError(f"GRANT must have sequence number {self._seq + 1}, after the answer to the last, not {seq}")
        for host, parcel in parcels:
            if not 0 <= host < len(self.plan.hosts) or host == self.host:
                raise WireError(f"a parcel must be from another host of 0..{len(self.plan.hosts) - 1}, not {host}")
            for entry in unpack_parcel(parcel, self._place, self.plan.hosts[host].workers):
                index = self._place[entry.dst]
                self._blobs[index].append((entry.src, entry.blob))
                self._arrival[index] = min(self._arrival[index], entry.arrival)
                self._inputs.append(entry)
        if seq:
            inputs, self._inputs = self._inputs, []
            self._seq, self._open = seq, True
            self.barrier.open(bound, outs(inputs))

    def _close(self) -> None:
        """Answer the root's grant: nobody here may run any more, or too much waits to go."""
        report = self.barrier.close()
        batches = [batch for host in sorted(self._outbox) for batch in pack_parcels(host, self._outbox[host])]
        self._outbox, self._outbox_bytes, self._outbox_arrival, self._open = {}, 0, NEVER, False
        ahead, rest = split_batches(batches)
        sides = self._sides()
        side = sides.pop() if sides and sum(len(parcel) for *_, parcel in rest) <= OUTBOX_BYTES else None
        for packed in sides:
            self._root.send(encode(FrameType.LOG, packed))
        for part in ahead:
            self._root.send(encode(FrameType.DONE, 0, 0, 0, 0, 0, part, None))
        figures = (report.now, report.next_event, report.next_out)
        self._root.send(encode(FrameType.DONE, self._seq, *figures, 0, rest, side))

    def _sides(self) -> list[bytes]:
        """All side records not sent yet, in parts; the root puts those of all hosts in order."""
        return [packed for part in self._side.take(NEVER) for packed in pack_side(part)]

    def _send_side(self) -> None:
        for part in self._sides():
            self._root.send(encode(FrameType.LOG, part))

    def _last_report(self) -> None:
        """BYE with the final reports of the workers here."""
        self._send_side()
        last = {
            "events": self.events,
            "grants": self.grants,
            "frames": self.frames,
            "waits": self._waits(),
            "complete": len(self._finals) == len(self._own),
        }
        reports = [msgpack.packb(self._finals[worker], use_bin_type=True) for worker in sorted(self._finals)]
        for part in pack_reports(reports, last):
            self._root.send(encode(FrameType.BYE, self._stop or "", part))

    def _await_receipt(self) -> None:
        """Stay until the root has all: what is on its way when a socket closes is lost once the other end writes to it."""
        self._heard = time.monotonic()
        while (left := self._heard + self._lease - time.monotonic()) > 0:
            data = self._root.receive(int(left * 1000) + 1)
            if data is not None:
                self._heard = time.monotonic()
                frame = decode(data)
                if frame.type is FrameType.BYE and frame.body[0] == RECEIVED:
                    return
        self._orphan(
            f"the root hub must tell within {self._lease:g} s (--lease) that it has the last report, and did not"
        )

    # -- with the workers ----------------------------------------------------------------------------------------------

    def _set_ready(self, worker: int, next_event: int, next_out: int) -> None:
        super()._set_ready(worker, next_event, next_out)
        if len(self._ready) == len(self._own):
            self._root.send(encode(FrameType.READY, *self.barrier.first()))

    def _route(self, worker: int, batches: Sequence[tuple[int, int, int, bytes]]) -> None:
        number = self._own[worker]
        for dst, arrival, wake, blob in batches:
            index = self._place.get(dst)
            if index is None:
                self._outbox.setdefault(self._host_of[dst], []).append(Entry(dst, number, arrival, wake, blob))
                self._outbox_bytes += len(blob)
                self._outbox_arrival = min(self._outbox_arrival, arrival)
            else:
                self._blobs[index].append((number, blob))
                self._arrival[index] = min(self._arrival[index], arrival)

    def _grant(self) -> None:
        if not self._open or self._failed:
            return
        if self._outbox_bytes < OUTBOX_BYTES:
            super()._grant()
        if not self._granted_at and (self.barrier.idle or self._outbox_bytes >= OUTBOX_BYTES):
            self._close()

    # -- what the root must know ---------------------------------------------------------------------------------------

    def _release_side(self, horizon: int) -> None:
        """Kept for the root: the next DONE or heartbeat takes it along."""

    def _error(self, code: str, what: str, *, exit_code: int, **fields: Any) -> None:
        """Tell the root, which ends the run; here nobody is granted any more."""
        self._errors += 1
        self._failed = True
        fields["where"] = f"host {self.name}, {fields.get('where', '')}".removesuffix(", ")
        text = error_text({**fields, "exit_code": exit_code})
        self._send_side()
        node, sim_time_ps = fields.get("node") or "", fields.get("sim_time_ps") or 0
        self._root.send(encode(FrameType.ERROR, code, node, sim_time_ps, what, text))

    def _waits(self) -> list[dict[str, Any]]:
        """`Barrier.explain`, in the numbers of the plan."""
        now = time.monotonic()
        return [
            {
                **wait._asdict(),
                "worker": self._own[wait.worker],
                "limiter": None if wait.limiter is None else self._own[wait.limiter],
                "chain": [self._own[w] for w in wait.chain],
                "pid": self._pid.get(wait.worker),
                "host": self.name,
                "running_s": now - self._granted_at.get(wait.worker, now),
            }
            for wait in self.barrier.explain()
        ]

    def _reply(self, number: int) -> None:
        _deadline, _missing, found = self._replies.pop(number)
        reports = [msgpack.packb(report, use_bin_type=True) for report in found]
        for part in pack_reports(reports, {"waits": self._waits()}):
            self._root.send(encode(FrameType.STATUS, number, part))


class _NamedJournal(Journal):
    """Journals whose files have the workers' numbers of the plan."""

    def __init__(self, folder: Path | None, names: Sequence[str]) -> None:
        super().__init__(None, 0)
        if folder is not None:
            for name in names:
                file = (folder / f"{name}.journal").open("wb", buffering=1 << 16)
                file.write(HEADER)
                self._files.append(file)
