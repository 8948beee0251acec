"""Foreign nodes at the hub: admission, and a check of every record that they send; their inputs are digested here.

For the barrier a foreign node is a worker of one node. What it may do is written in docs/protocol.md; what it does is believed
only after it was checked. A breach is a `ProtocolViolation` with the rule's name.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, NoReturn

import msgpack

from cosim.attach.plan import (
    DELIVER,
    MMIO_INITIATOR,
    MMIO_TARGET,
    POWER_ROLE,
    WIRE_ROLE,
    AttachPlan,
    KindRow,
    LinkRow,
    RegionRow,
    kinds_of,
    may_carry,
)
from cosim.core.barrier import ProtocolViolation
from cosim.core.codec import VERSION, pack_records, unpack_records
from cosim.core.digest import NodeDigest
from cosim.core.message import EXOKAY, MMIO, OKAY, POWER, WIRE, Record
from cosim.core.order import PRIORITY_POWER
from cosim.core.plan import LinkPlan, Plan
from cosim.core.time import NEVER, fmt
from cosim.run.foreign_forms import fits, form, is_attr, is_int, show, well_formed

FRAME_SHOWN = 64
STILL = 1000
"""Answers in a row that leave the clock where it was, after which the node is said to stand still."""
_SIDE_KINDS = (0, 1, 2)  # log, console and mark, as in `cosim.node.node`
_REQUESTS = (MMIO.Read.code, MMIO.Write.code)
_OFF, _EPOCH = POWER.Off.code, POWER.Epoch.code


class Refusal(Exception):
    """A HELLO that is not accepted: `code` as in docs/protocol.md, and what was expected."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what


def foreign_nodes(
    plan: Plan, returns: Sequence[Mapping[int, int]], tokens: Mapping[str, str], stall_s: float
) -> dict[int, Foreign]:
    """The foreign workers of a plan, by number."""
    return {
        worker: Foreign(plan, worker, returns[worker], tokens.get(plan.nodes[group[0]].name, ""), stall_s)
        for worker, group in enumerate(plan.groups)
        if plan.nodes[group[0]].external is not None
    }


class Foreign:
    """One foreign node.

    Args:
        plan: the whole plan; `worker` hosts that node alone.
        returns: early-return times (ps) by destination node.
        token: secret that its HELLO must show.
        stall_s: wall-clock limit of a grant, unless the topology gives this node its own.
    """

    def __init__(self, plan: Plan, worker: int, returns: Mapping[int, int], token: str, stall_s: float) -> None:
        self.worker = worker
        self.node = plan.nodes[plan.groups[worker][0]]
        external = self.node.external
        assert external is not None
        self.external = external
        self.name = self.node.name
        limit = external["wall_limit_ms"]
        self.stall_s: float = stall_s if limit is None else limit / 1000
        self.wait_s: float = external["wait_ms"] / 1000
        self.joined, self.whole = False, True  # whole: each of its grants must be one frame
        self.off_at = NEVER
        self.messages = 0
        self.end_time = 0
        self._plan = plan
        self._token = token
        self._where = plan.worker_of()
        self._names = {n.id: n.name for n in plan.nodes}
        self._reactions = {n.id: n.reaction for n in plan.nodes}
        self._returns = returns
        self._roles: dict[str, str] = dict(external["ports"])
        self._kinds = {row[0]: KindRow(row[0], row[1], row[2], tuple(row[3])) for row in external["kinds"]}
        self._links = {k.id: k for k in plan.links if self.node.id in (k.src, k.dst)}
        self._windows = self._regions()
        self._digest = NodeDigest()
        self._inputs: list[tuple[Any, ...]] = []  # (arrival, priority, src, seq, link, kind, fields), not consumed yet
        self._sent = dict.fromkeys((k.id for k in self._links.values() if k.src == self.node.id), 0)
        self.requests: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}  # at a target, by port and peer: tag to
        # (arrival, bytes that a read wants)
        self._pending: dict[tuple[str, int], dict[int, int]] = {}  # of an initiator: tag to the completion's arrival
        self._seq = 0
        self._side_number = 0
        self._now = self._still = 0  # its clock; grants that have not moved it
        self._floor = 0  # no send may lie below it
        self._next_out = 0

    def _regions(self) -> dict[int, list[tuple[int, int]]]:
        """By link of an initiator: the offsets [first, end) that its address map reaches over it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for regions in self.node.maps.values():
            for r in regions:
                found.setdefault(r.link, []).append((r.offset, r.offset + r.size))
        return found

    # -- joining -------------------------------------------------------------------------------------------------------

    def admit(self, body: tuple[Any, ...]) -> bytes:
        """Check a HELLO; the plan for its WELCOME. Raises Refusal."""
        version, name, _kind, _pid, options = body
        if version[:1] != VERSION[:1]:
            raise Refusal("version", f"protocol version must be {VERSION[0]}.x, not {show(version)}")
        token = options.get("token")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Refusal("token", "token in HELLO must be the one in the file that COSIM_TOKEN_FILE names")
        if name != self.name:
            raise Refusal("unknown-name", f"name in HELLO must be {self.name!r}, as the routing id, not {show(name)}")
        if self.joined:
            raise Refusal("duplicate", f"{self.name} has joined already: a second HELLO must not come")
        self._check_ports(options.get("ports"))
        caps = options.get("caps")
        if self.external.get("wave") and not (type(caps) is tuple and "wave" in caps):
            raise Refusal("wave", f"caps in HELLO must have 'wave': this run wants waveforms of it, not {show(caps)}")
        self._check_times(options.get("lookahead_ps", 0), options.get("quantum_ps", 0))
        self.joined, self.whole = True, not (type(caps) is tuple and DELIVER in caps)
        return self._attach_plan().to_msgpack()

    def _check_ports(self, ports: Any) -> None:
        if not isinstance(ports, dict) or not all(isinstance(v, str) for pair in ports.items() for v in pair):
            raise Refusal("options", f"ports in HELLO must be a map of names to roles, not {show(ports)}")
        wanted = {k.src_port if k.src == self.node.id else k.dst_port for k in self._links.values()} - {"power"}
        for port in sorted(wanted):
            if ports.get(port) != self._roles.get(port):
                raise Refusal(
                    "ports",
                    f"port {port} must be {self._roles.get(port)}, as the topology links it, not {show(ports.get(port))}; "
                    f"HELLO has {show(ports)}",
                )

    def _check_times(self, lookahead: Any, quantum: Any) -> None:
        for what, value in (("lookahead_ps", lookahead), ("quantum_ps", quantum)):
            if type(value) is not int or not 0 <= value <= NEVER:
                raise Refusal("options", f"{what} in HELLO must be a time in ps, not {show(value)}")
        if lookahead < self.node.reaction:
            raise Refusal(
                "lookahead",
                f"lookahead_ps must be at least the topology's {self.node.reaction} ps, not {lookahead} ps",
            )
        for link in self._links.values():
            if quantum and link.latency % quantum:
                raise Refusal(
                    "quantum",
                    f"quantum_ps must divide every latency; {quantum} ps does not divide the {link.latency} ps of "
                    f"{self._end(link)}",
                )

    def _end(self, link: LinkPlan) -> str:
        ends = ((link.src, link.src_port), (link.dst, link.dst_port))
        return " -> ".join(f"{self._names[node]}.{port}" for node, port in ends)

    def _attach_plan(self) -> AttachPlan:
        rows = []
        for k in self._links.values():
            out = k.src == self.node.id
            peer, port = (k.dst, k.dst_port) if out else (k.src, k.src_port)
            name = f"{self._names[peer]}.{port}"
            back = self._returns.get(peer, NEVER) if out else 0
            mine = k.src_port if out else k.dst_port
            rows.append(LinkRow(k.id, mine, int(out), name, k.latency, back, peer, k.attributes))
        used = {row.port for row in rows}
        channel = self._kinds.values()
        kinds: dict[int, KindRow] = {}
        for port, role in self._roles.items():
            if port in used:
                protocol = role.partition(":")[2]
                mine_kinds = [r for r in channel if r.name.partition(".")[0] == protocol]
                kinds.update((row.code, row) for row in kinds_of(role, mine_kinds))
        return AttachPlan(
            self.node.id,
            self.name,
            self.node.kind,
            self._plan.seed,
            self.node.reaction,
            int(self.stall_s * 1000),
            tuple(rows),
            tuple((port, role) for port, role in sorted(self._roles.items()) if port in used),
            tuple(
                (p, tuple(RegionRow(r.base, r.size, r.link, r.offset, r.name) for r in m))
                for p, m in self.node.maps.items()
            ),
            tuple(kinds[code] for code in sorted(kinds)),
            self.node.params,
        )

    # -- running -------------------------------------------------------------------------------------------------------

    def ready(self, next_event: int, next_out: int) -> None:
        """READY came."""
        if not self.joined:
            self._breach("order", "READY must not come before HELLO")
        self._next_out = max(next_event, next_out)

    def granted(self, batches: Sequence[tuple[int, bytes]]) -> None:
        """A grant goes out with these inputs."""
        self._floor = self._next_out
        for _worker, blob in batches:
            for record in unpack_records(blob):
                link = self._links[record.link]
                row = self._kinds.get(record.kind)
                if row is None or not may_carry(self._roles.get(link.dst_port, ""), False, record.kind, self._kinds):
                    continue  # the sender's fault; a Python node raises there, the receiver reports it as unknown
                if record.arrival >= self.off_at and (record.arrival, row.priority) > (self.off_at, PRIORITY_POWER):
                    continue
                self._take(record, row, link)

    def _take(self, record: Record, row: KindRow, link: LinkPlan) -> None:
        arrival, seq, number, kind, fields = record
        heappush(self._inputs, (arrival, row.priority, link.src, seq, number, kind, fields))
        self._floor = min(self._floor, arrival + self.node.reaction)
        key = (link.dst_port, link.src)
        if kind in _REQUESTS:
            self.requests.setdefault(key, {})[fields[0]] = (arrival, fields[2] if kind == MMIO.Read.code else 0)
        elif kind == MMIO.Completion.code:
            waiting = self._pending.get(key, {})
            if fields[0] in waiting:
                waiting[fields[0]] = arrival
        elif kind == _OFF:
            self.off_at = arrival

    def answered(self, body: tuple[Any, ...]) -> list[tuple[int, int, int, bytes]]:
        """DONE came: check its records; the batches (worker, arrival, wake, blob) that go on."""
        _seq, now, next_event, next_out, _events, batches, side = body
        if side is not None:
            self.check_side(side)
        records: tuple[Record, ...] = ()
        if batches:
            if len(batches) != 1 or batches[0][:3] != (0, 0, 0):
                self._breach(
                    "batches", "a foreign node's DONE must have no batch or one, [0, 0, 0, blob]: the hub routes it"
                )
            records = unpack_records(batches[0][3])
        stop = NEVER
        routed: dict[int, list[Any]] = {}
        for record in records:
            link = self._check(record)
            wake = record.arrival + self._reactions[link.dst]
            box = routed.setdefault(self._where[link.dst], [record.arrival, wake, []])
            box[0], box[1] = min(box[0], record.arrival), min(box[1], wake)
            box[2].append(record)
            back = self._returns.get(link.dst, NEVER)
            stop = min(stop, record.arrival + back)
        if now > stop:
            self._breach(
                "early-return",
                f"after what it sent it must go no further than {fmt(stop)} ({stop} ps), when an answer may come, not to {now} ps",
            )
        self._still = self._still + 1 if now == self._now else 0
        if self._still > STILL:
            self._breach(
                "progress",
                f"its clock must move when it is granted time; it has answered {STILL:,} grants in a row with {now} ps",
            )
        self._consume(now)
        self._check_kept(now, next_event, next_out)
        self._now = now
        self._next_out = max(next_out, next_event, self._floor)
        return [(worker, box[0], box[1], pack_records(box[2])) for worker, box in sorted(routed.items())]

    def _consume(self, now: int) -> None:
        """Digest the inputs that the node's clock has passed."""
        while self._inputs and self._inputs[0][0] < now:
            arrival, priority, src, seq, link, kind, fields = heappop(self._inputs)
            self.end_time = max(self.end_time, arrival)
            self._digest.add(arrival, priority, src, seq, kind, fields)
            if kind == MMIO.Completion.code:  # the tag is free, and no send can lie before this
                waiting = self._pending.get((self._links[link].dst_port, src), {})
                if waiting.get(fields[0], NEVER) <= arrival:
                    del waiting[fields[0]]
            if kind == _OFF:
                self._inputs.clear()

    def _check_kept(self, now: int, next_event: int, next_out: int) -> None:
        """What the node holds back must be in its promises; without power it has none."""
        if self._inputs:
            arrival = self._inputs[0][0]
            if next_event > arrival:
                self._breach(
                    "kept-input",
                    f"next_event must be at most {arrival} ps, when an input that it holds arrives, not {next_event}",
                )
            if next_out > arrival + self.node.reaction:
                self._breach(
                    "kept-input", f"next_out must be at most {arrival + self.node.reaction} ps, when an input that it holds "
                    f"may make it speak, not {next_out}"
                )  # fmt: skip
        if self.off_at < now and (next_event < NEVER or next_out < NEVER):
            self._breach("after-off", "next_event and next_out must be never once the power is off")

    def _check(self, record: Record) -> LinkPlan:
        """One record that the node sent; its link."""
        arrival, seq, number, kind, fields = record
        link = self._links.get(number)
        if link is None or link.src != self.node.id:
            self._breach("bad-link", f"a message must leave by a link of this node, not by link {number}", record)
        if seq != self._seq:
            self._breach("message-sequence", f"the message must have sequence number {self._seq}, not {seq}", record)
        self._seq += 1
        sent = arrival - link.latency
        for limit, rule, why in (
            (self._now, "message-in-the-past", "its clock at the grant"),
            (self._floor, "promise", "as it promised by next_out or its lookahead"),
        ):
            if sent < limit:
                self._breach(
                    rule,
                    f"it must be sent at or after {limit} ps ({why}) and so arrive at or after {limit + link.latency} ps, not at "
                    f"{arrival} ps",
                    record,
                )
        if arrival >= NEVER:
            self._breach("fields", f"a message must arrive before {NEVER} ps, which means never", record)
        if sent > self.off_at:
            self._breach("after-off", f"nothing may be sent after the power went off at {self.off_at} ps", record)
        role = self._roles.get(link.src_port, "")
        if not may_carry(role, True, kind, self._kinds):
            name = self._kinds[kind].name if kind in self._kinds else f"kind {kind}"
            self._breach("kind", f"port {link.src_port} ({role}) must not send {name}", record)
        self._check_fields(record, link, sent)
        self._sent[number] += 1
        self.messages += 1
        self.end_time = max(self.end_time, sent)
        return link

    def _check_fields(self, record: Record, link: LinkPlan, sent: int) -> None:
        kind, fields = record.kind, record.fields
        row = self._kinds[kind]
        if len(fields) != len(row.fields):
            self._breach("fields", f"{row.name} must have the fields {', '.join(row.fields) or 'none'}", record)
        role = self._roles[link.src_port]
        key = (link.src_port, link.dst)
        if role == MMIO_TARGET:
            self._check_completion(record, self.requests.get(key, {}), sent)
        elif role == MMIO_INITIATOR:
            self._check_request(record, self._pending.setdefault(key, {}), sent)
        elif role == WIRE_ROLE and not (is_int(fields[0], 2**31 - 1) and is_int(fields[1], 1)):
            self._breach("fields", f"{WIRE.Level!r} must have a line from 0 on and a level of 0 or 1", record)
        elif role == POWER_ROLE and kind == _EPOCH and not is_int(fields[0], 2**63 - 1):
            self._breach("fields", "power.Epoch must have a number", record)

    def _check_completion(self, record: Record, requests: dict[int, tuple[int, int]], sent: int) -> None:
        tag, status, data = record.fields
        if not is_int(tag, 2**63 - 1) or tag not in requests:
            self._breach(
                "completion", f"a completion must answer an outstanding request; tag {show(tag)} is none", record
            )
        if not is_int(status, 3):
            self._breach("fields", f"status of a completion must be 0 to 3, not {show(status)}", record)
        arrival, size = requests.pop(tag)
        if not (fits(data, size) if size and status in (OKAY, EXOKAY) else data == 0 and type(data) is int):
            wanted = form(size) if size and status in (OKAY, EXOKAY) else "0 (a write, or a read that failed)"
            self._breach("fields", f"data of the completion of tag {tag} must be {wanted}, not {show(data)}", record)
        if sent < arrival + self.node.reaction:
            self._breach(
                "causality",
                f"the completion of tag {tag} must be sent at or after {arrival + self.node.reaction} ps, when its request "
                f"had arrived, not at {sent} ps",
                record,
            )

    def _check_request(self, record: Record, pending: dict[int, int], sent: int) -> None:
        kind, fields = record.kind, record.fields
        tag, addr, size, *rest = fields if kind in _REQUESTS else (0, *fields)
        attr = rest[-1]
        if not (is_int(tag, 2**63 - 1) and is_int(addr, 2**64 - 1) and is_int(size, 4096) and size and is_attr(attr)):
            self._breach(
                "fields",
                "a request must have a tag, an address, a size of 1 to 4096, and as attributes AxPROT in bits 0 to 2 and, with "
                "bit 8, a PASID in bits 12 to 31",
                record,
            )
        if kind != MMIO.Read.code and not fits(rest[0], size):
            self._breach("fields", f"data of a write of {size} bytes must be {form(size)}, not {show(rest[0])}", record)
        if not any(first <= addr and addr + size <= end for first, end in self._windows.get(record.link, ())):
            self._breach(
                "address", f"[{addr:#x}, {addr + size:#x}) is not in the address map over link {record.link}", record
            )
        if kind in _REQUESTS:
            if tag in pending and pending[tag] > sent:
                self._breach("tag", f"tag {tag} is outstanding: a request must have one of its own", record)
            pending[tag] = NEVER

    # -- side, end -----------------------------------------------------------------------------------------------------

    def check_side(self, packed: bytes) -> None:
        """Log, console and mark records must be this node's, numbered from 0, and such that nobody stumbles over them."""
        records = self._unpack(packed, "side records")
        if type(records) is not tuple:
            self._breach("side", "side records must be an array")
        for entry in records:
            if type(entry) is not tuple or len(entry) != 5 or type(entry[4]) is not tuple:
                self._breach("side", f"a side record must be [time, node, number, type, payload], not {show(entry)}")
            time, node, number, kind, payload = entry
            if not (
                is_int(time, NEVER) and node == self.node.id and number == self._side_number and kind in _SIDE_KINDS
            ):
                self._breach(
                    "side", f"a side record must be of node {self.node.id}, number {self._side_number} and type 0 to 2, "
                    f"not {show(entry)}"
                )  # fmt: skip
            self._side_number += 1
            if not well_formed(kind, payload):
                self._breach("side", f"payload of a side record of type {kind} is malformed: {show(payload)}")

    def final(self, packed: bytes | None) -> list[Any]:
        """The final report, in the form of a Python worker's; `packed` comes with BYE: [counters, epochs], each name to int."""
        counters: Any = {}
        epochs: Any = ()
        if packed is not None:
            report = self._unpack(packed, "final report")
            if type(report) is not tuple or len(report) != 2 or type(report[1]) is not tuple:
                self._breach("report", f"final report must be [counters, epochs], not {show(report)}")
            counters, epochs = report
        for entry in epochs:
            if type(entry) is not tuple or len(entry) != 2 or not is_int(entry[0], NEVER):
                self._breach("report", f"an epoch must be [number, counters], not {show(entry)}")
        for table in (counters, *(entry[1] for entry in epochs)):
            if type(table) is not dict or not all(isinstance(k, str) and type(v) is int for k, v in table.items()):
                self._breach("report", f"counters must be a map of names to integers, not {show(table)}")
        self._consume(NEVER if self._plan.until is None else self._plan.until)
        count, digest = self._digest.result()
        name = self.name
        waits = [
            (f"{port} access", f"completion of tag {tag} by {self._names[peer]}", True)
            for (port, peer), tags in sorted(self._pending.items())
            for tag, arrival in tags.items()
            if arrival == NEVER
        ]
        off = self.off_at < NEVER
        entry = [name, self._now, count, digest, dict(sorted(counters.items())), waits, off, [list(e) for e in epochs]]
        traffic = [[(link, n) for link, n in self._sent.items() if n], [(self.node.id, count + self.messages)]]
        return [self.end_time, count, self.messages, [entry], None, [], traffic]

    def _unpack(self, packed: bytes, what: str) -> Any:
        try:
            return msgpack.unpackb(packed, use_list=False, strict_map_key=True, max_ext_len=0)
        except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeError and its own
            self._breach("side", f"{what} must be msgpack, not {type(error).__name__}: {error}")

    def _in_words(self, record: Record) -> str:
        link, row = self._links.get(record.link), self._kinds.get(record.kind)
        if link is None or row is None or len(record.fields) != len(row.fields):
            return show(list(record), 120)
        fields = " ".join(f"{name}={show(value, 24)}" for name, value in zip(row.fields, record.fields, strict=True))
        ends = f"{link.src_port} to {self._names.get(link.dst, '?')}.{link.dst_port}"
        return f"#{record.seq} from {ends}, sent at {record.arrival - link.latency} ps: {row.name} {fields}"

    def _breach(self, rule: str, text: str, record: Record | None = None) -> NoReturn:
        shown = "" if record is None else f"; message {self._in_words(record)}"
        raise ProtocolViolation(rule, f"{text}{shown}", self.worker)


def frame_text(data: bytes) -> str:
    """The first bytes of a frame, for a message."""
    more = f"... ({len(data)} bytes)" if len(data) > FRAME_SHOWN else ""
    return f"frame {data[:FRAME_SHOWN].hex()}{more}"
