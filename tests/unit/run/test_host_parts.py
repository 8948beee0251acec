"""What goes between hosts, who waits for whom over hosts, and which host gets which nodes: without any process."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.barrier import Wait
from cosim.core.codec import WireError
from cosim.core.plan import HostPlan, LinkPlan, NodePlan, Plan
from cosim.core.time import NEVER
from cosim.run import hostwire
from cosim.run.hostview import merge_waits
from cosim.run.hostwire import Entry
from cosim.topo.hosts import Host, Rule, parse_hosts, place_on_hosts

TIMES = st.integers(0, NEVER)
ENTRIES = st.lists(
    st.builds(
        lambda dst, src, times, blob: Entry(dst, src, min(times), max(times), blob),
        st.integers(0, 9),
        st.integers(10, 19),
        st.tuples(TIMES, TIMES),
        st.binary(max_size=40),
    ),
    min_size=1,
    max_size=20,
)


@given(entries=ENTRIES)
def test_parcels_keep_what_is_put_in_and_its_order(entries: list[Entry]) -> None:
    """All entries come out in their order, and a batch's times are the least of its entries': the root's barrier relies on them."""
    limit, hostwire.PARCEL_BYTES = hostwire.PARCEL_BYTES, 64
    try:
        batches = list(hostwire.pack_parcels(1, entries))
    finally:
        hostwire.PARCEL_BYTES = limit
    out: list[Entry] = []
    for host, arrival, wake, parcel in batches:
        part = hostwire.unpack_parcel(parcel, range(10), range(10, 20))
        assert (host, arrival, wake) == (1, min(e.arrival for e in part), min(e.wake for e in part))
        assert len(part) == 1 or sum(len(e.blob) for e in part) <= 64
        out += part
    assert out == entries


@pytest.mark.parametrize(
    "body",
    [7, [7], [[1, 2, 3]], [[99, 10, 0, 0, b""]], [[1, 99, 0, 0, b""]], [[1, 10, 5, 4, b""]], [[1, 10, 0, 0, "text"]],
     [[1, 10, -1, 4, b""]], [[1, 10, 0, 2**63, b""]], [[1, 10, 0, 0, b"", 1]], [["a", 10, 0, 0, b""]]],
)  # fmt: skip
def test_a_parcel_that_is_none(body: object) -> None:
    """Another form, a worker of another host as receiver or sender, times out of order or range: a WireError."""
    with pytest.raises(WireError):
        hostwire.unpack_parcel(msgpack.packb(body), range(10), range(10, 20))


@given(data=st.binary(max_size=200))
def test_whatever_comes_from_a_host_is_taken_or_refused(data: bytes) -> None:
    """Any bytes in place of a parcel, a plan, a report or a heartbeat give a value or a WireError, and nothing else."""
    for opener in (
        lambda d: hostwire.unpack_parcel(d, range(10), range(10, 20)),
        hostwire.unpack_welcome,
        hostwire.unpack_reports,
        hostwire.unpack_beat,
        lambda d: hostwire.error_fields(d.decode("latin-1")),
    ):
        try:
            opener(data)
        except WireError as error:
            assert str(error)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_batches_are_cut_where_a_frame_ends(parcels: list[bytes]) -> None:
    """A DONE's batches keep their order in parts below the limit; one that is larger goes alone, and the last part stays."""
    batches = [(host, 5, 6, parcel) for host, parcel in enumerate(parcels)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hostwire, "OUTBOX_BYTES", 50)
        ahead, rest = hostwire.split_batches(batches)
    assert [batch for part in [*ahead, rest] for batch in part] == batches
    assert all(len(part) == 1 or sum(len(batch[3]) for batch in part) <= 50 for part in [*ahead, rest] if part)
    assert all(ahead) and (rest or not batches)


def test_reports_go_in_parts_and_come_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that are too much for one frame go in several; only the last has what the host adds."""
    monkeypatch.setattr(hostwire, "REPORT_BYTES", 50)
    reports = [msgpack.packb([number, b"x" * 30]) for number in range(5)]
    parts = [hostwire.unpack_reports(part) for part in hostwire.pack_reports(reports, {"waits": []})]
    assert [number for found, _last in parts for number, _fill in found] == [0, 1, 2, 3, 4]
    assert [last for _found, last in parts] == [None] * 4 + [{"waits": []}]


def test_side_records_are_cut_where_a_frame_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side records are packed in parts below the limit; one record that is larger goes alone."""
    monkeypatch.setattr(hostwire, "SIDE_BYTES", 100)
    records = [[n, 0, n, 1, "x" * (200 if n == 2 else 20)] for n in range(8)]
    parts = hostwire.pack_side(records)
    assert [r for part in parts for r in msgpack.unpackb(part)] == records
    assert all(len(part) <= 100 or len(msgpack.unpackb(part)) == 1 for part in parts)


def plan(count: int, pairs: list[tuple[int, int, int]]) -> Plan:
    """Nodes n0 and so on with links (from, to, latency in ps)."""
    nodes = tuple(NodePlan(i, f"n{i}", "node", {"secret": i}) for i in range(count))
    links = tuple(LinkPlan(k, a, "o", b, "i", latency, {"fact": k}) for k, (a, b, latency) in enumerate(pairs))
    return Plan("p", 1, nodes, links, ())


@given(st.data())
def test_every_node_has_one_place(data: st.DataObject) -> None:
    """Whatever the links, hosts, rules and workers: each node is in one worker, each worker on one host, no host is empty, a rule
    is kept; and the same question has the same answer."""
    count = data.draw(st.integers(2, 14))
    nodes = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(nodes, nodes, st.integers(1, 10**6)), max_size=30))
    hosts = [Host(f"h{n}") for n in range(data.draw(st.integers(1, min(4, count))))]
    rules: list[Rule] = data.draw(st.sampled_from([[], [Rule("n0", hosts[-1].name), Rule("n?", hosts[0].name)]]))
    choices: list[str | int] = ["per-node", 1, 2]
    workers = data.draw(st.sampled_from(choices))
    machine = plan(count, pairs)
    try:
        found = place_on_hosts(machine, hosts, rules, workers, [])
    except ValueError as error:
        assert rules and "every host must have a node" in str(error)
        return
    assert place_on_hosts(machine, hosts, rules, workers, []) == found
    assert sorted(n for group in found.groups for n in group) == list(range(count))
    assert [w for host in found.hosts for w in host.workers] == list(range(len(found.groups)))
    assert all(host.workers for host in found.hosts)
    where = found.host_of_worker()
    if rules:
        assert where[found.worker_of()[0]] == len(hosts) - 1
        assert all(where[found.worker_of()[n]] == 0 for n in range(1, min(count, 10)))


def test_a_cut_goes_where_links_are_long() -> None:
    """Two clusters of close nodes that are far apart go to two hosts."""
    near = [(a, b, 1_000) for half in (0, 4) for a in range(half, half + 4) for b in range(half, half + 4) if a != b]
    found = place_on_hosts(plan(8, [*near, (0, 4, 900_000)]), [Host("a"), Host("b")], [], "per-node", [])
    assert {frozenset(n for w in host.workers for n in found.groups[w]) for host in found.hosts} == {
        frozenset(range(4)),
        frozenset(range(4, 8)),
    }


def test_a_host_gets_what_it_has_to_know() -> None:
    """A host's part of the plan has the whole shape, and parameters and link attributes of its own nodes only."""
    whole = plan(4, [(0, 1, 5), (2, 3, 5), (1, 2, 5)])
    whole = whole._replace(groups=((0,), (1,), (2, 3)), hosts=(HostPlan("a", "", (0, 1)), HostPlan("b", "", (2,))))
    part = Plan.from_dict(msgpack.unpackb(msgpack.packb(whole.host_part(1).to_dict()), strict_map_key=False))
    assert [n.params for n in part.nodes] == [{}, {}, {"secret": 2}, {"secret": 3}]
    assert [k.attributes for k in part.links] == [{}, {"fact": 1}, {"fact": 2}]
    assert (part.groups, part.hosts, part.host_of_worker()) == (whole.groups, whole.hosts, [0, 0, 1])
    assert [k[:6] for k in part.links] == [k[:6] for k in whole.links]


@pytest.mark.parametrize("text", ["0", "a,,b", "a,a", "", "5000"])
def test_hosts_that_cannot_be(text: str) -> None:
    """No host, too many, an empty address, one twice."""
    with pytest.raises(ValueError, match="must be a number of hosts"):
        parse_hosts(text)


def test_hosts_by_number_and_by_address() -> None:
    """A number makes so many without an address; addresses are taken in their order."""
    assert parse_hosts("2") == [Host("h0"), Host("h1")]
    assert parse_hosts("me@10.0.0.1, box") == [Host("h0", "me@10.0.0.1"), Host("h1", "box")]


def _wait(worker: int, state: str, next_event: int, limiter: int | None = None, base: int = NEVER) -> Wait:
    return Wait(worker, f"n{worker}", state, 1, 0, next_event, 10, limiter, base, 4, ())


def test_a_worker_that_waits_for_another_host_is_shown_as_blocked() -> None:
    """Its host's hub calls it idle; over all hosts it waits for the worker with the earliest work on the host that holds its own
    back. A host that did not answer still has a row for each worker."""
    whole = plan(5, [(0, 1, 5)])._replace(
        groups=tuple((n,) for n in range(5)),
        hosts=(HostPlan("a", "", (0, 1)), HostPlan("b", "", (2, 3)), HostPlan("c", "", (4,))),
    )
    roots = [_wait(0, "blocked", 20, limiter=1, base=6), _wait(1, "running", 7), _wait(2, "idle", NEVER)]
    rows = {
        0: [{**_wait(0, "idle", 20)._asdict(), "host": "a"}, {**_wait(1, "idle", NEVER)._asdict(), "host": "a"}],
        1: [{**_wait(2, "running", 9)._asdict(), "host": "b"}, {**_wait(3, "idle", 30)._asdict(), "host": "b"}],
    }
    found = merge_waits(whole, roots, rows)
    assert [(row["worker"], row["state"], row["limiter"], row["chain"]) for row in found] == [
        (0, "blocked", 2, (2,)),
        (1, "idle", None, ()),
        (2, "running", None, ()),
        (3, "blocked", 2, (2,)),
        (4, "idle", None, ()),
    ]
    assert (found[4]["host"], found[4]["name"], found[4]["pid"]) == ("c", "n4", None)
