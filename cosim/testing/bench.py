"""A test bench: a few nodes, a probe in place of every other one, one kernel, no sockets.

bench = Bench()
its = bench.add("its0", Its, {"id_bits": 16})
mem = bench.add("memory", Memory)
tb = bench.probe("tb")
bench.map("its0.bus", [(0, 1 << 48, "memory.bus")], latency=ns(60))
bench.link("tb.mmio", "its0.regs", ns(40), both=True)
bench.run(us(10))
assert tb.take() == [...]
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

from cosim.core.bounds import Distances
from cosim.core.digest import run_digest
from cosim.core.kernel import Kernel, LinkEnd
from cosim.core.message import KINDS, Kind
from cosim.core.plan import LinkPlan, NodePlan, RegionPlan
from cosim.core.time import NEVER, Instant, Span, ns
from cosim.node.node import Node, Peer, Port
from cosim.node.ports import MmioInitiator

N = TypeVar("N", bound=Node)


class Received(NamedTuple):
    """A message that a probe got: time (ps), name of the sender, kind, fields."""

    time: Instant
    sender: str
    kind: Kind
    fields: tuple[Any, ...]


class _ProbePort(Port):
    def receive(self, peer: Peer, kind: int, fields: tuple[Any, ...]) -> bool:
        probe = self.node
        assert isinstance(probe, Probe)
        message = Received(probe.now, peer.name, KINDS[kind], fields)
        probe.received.append(message)
        if probe.respond is not None:
            probe.respond(peer, message)
        return True


class Probe(Node):
    """A node that records what it receives; it has a port of every name asked for, and `bus` as an MMIO initiator.

    `respond`, if set, is called as ``respond(peer, received)`` and may send.
    """

    bus = MmioInitiator()

    def __init__(self, plan: NodePlan, seed: int) -> None:
        super().__init__(plan, seed)
        self.received: list[Received] = []
        self.respond: Any = None

    def _port(self, name: str, link: LinkPlan) -> Port:
        if name not in self.__dict__:
            template = _ProbePort()
            template.name = name
            self.__dict__[name] = template.clone(self)
        port = self.__dict__[name]
        assert isinstance(port, Port)
        return port

    def take(self) -> list[Received]:
        """What came since the last call."""
        received, self.received = self.received, []
        return received

    def send(self, port: str, peer: str | None, kind: Kind, *fields: Any, delay: Span = 0) -> None:
        """Send a message from the named port, now + `delay` ps."""
        self.__dict__[port].send(peer, kind, *fields, delay=delay)


class Bench:
    """Hosts nodes in one kernel. Add nodes and links, then `run`; the first run boots."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self._classes: dict[str, tuple[type[Node], dict[str, Any], int]] = {}
        self._links: list[tuple[str, str, str, str, Span, dict[str, Any]]] = []
        self._maps: dict[tuple[str, str], list[tuple[int, int, str, str, int]]] = {}
        self._nodes: dict[str, Node] = {}
        self._pending: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        self.kernel: Kernel | None = None

    def add(self, name: str, cls: type[N], params: dict[str, Any] | None = None, *, reaction: Span = 0) -> N:
        """Add a node of class `cls`; it is wired and set up at the first `run` (or `boot`)."""
        self._classes[name] = (cls, params or {}, reaction)
        node = cls(NodePlan(-1, name, cls.kind, params or {}, reaction), self.seed)
        self._nodes[name] = node
        return node

    def probe(self, name: str) -> Probe:
        """Add a probe."""
        return self.add(name, Probe)

    def link(self, src: str, dst: str, latency: Span = ns(10), *, both: bool = False, **attributes: Any) -> None:
        """Link ``"node.port"`` to ``"node.port"``; with `both` also back."""
        (a, pa), (b, pb) = src.split("."), dst.split(".")
        self._links.append((a, pa, b, pb, latency, attributes))
        if both:
            self._links.append((b, pb, a, pa, latency, {}))

    def map(
        self,
        port: str,
        regions: Iterable[tuple[int, int, str] | tuple[int, int, str, int]],
        *,
        latency: Span = ns(10),
        **attributes: Any,
    ) -> None:
        """Address map of an initiator port: (base, size, ``"node.port"``[, offset]); makes the links in both directions.

        The offset is added to ``address - base``; pass the base to hand the target absolute addresses.
        """
        name, port_name = port.split(".")
        entries = self._maps.setdefault((name, port_name), [])
        for region in regions:
            base, size, target = region[:3]
            offset = region[3] if len(region) > 3 else 0
            node, target_port = target.split(".")
            if not any(link[:4] == (name, port_name, node, target_port) for link in self._links):
                self.link(port, target, latency, both=True, **attributes)
            entries.append((base, size, node, target_port, offset))

    def boot(self) -> None:
        """Wire, set up and boot every node."""
        names = sorted(self._classes)
        ids = {name: i for i, name in enumerate(names)}
        links = [
            LinkPlan(i, ids[a], pa, ids[b], pb, lat, attrs) for i, (a, pa, b, pb, lat, attrs) in enumerate(self._links)
        ]
        for name in names:
            node = self._nodes[name]
            node.id = ids[name]
            node.maps = {}
            for (owner, port), entries in self._maps.items():
                if owner == name:
                    node.maps[port] = tuple(
                        RegionPlan(base, size, _out(links, ids, name, port, dst, dst_port), offset, dst)
                        for base, size, dst, dst_port, offset in entries
                    )
        nodes = [self._nodes[name] for name in names]
        ends = {link.id: LinkEnd(link.src, link.dst, link.latency, 0) for link in links}
        Distances(len(names), [(k.src, k.dst, k.latency) for k in links], [n.reaction for n in nodes])
        self.kernel = Kernel(0, nodes, ends, {n.id: n.reaction for n in nodes}, {})
        for node in nodes:
            node.connect(self.kernel, links, dict(enumerate(names)))
        for node in nodes:
            node.setup()
        for node in nodes:
            node.boot()

    def run(self, until: Instant = NEVER) -> Instant:
        """Execute every event with t < `until` (an absolute time in ps); returns the time reached.

        Without `until` that is the time of the last event, so that the bench can go on from there.
        """
        if self.kernel is None:
            self.boot()
        assert self.kernel is not None
        for name, coroutine in self._pending:
            self._nodes[name].spawn(coroutine, "bench")
            self.kernel.at(self._nodes[name].id, self.kernel.now, lambda: None)
        self._pending = []
        while True:
            report = self.kernel.grant(until)
            if report.next_event >= until:
                if until == NEVER:
                    self.kernel.now = self.kernel.end_time
                return self.kernel.now

    def spawn(self, node: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Start `coroutine` as a task of the named node with the next `run` or `call`."""
        self._pending.append((node, coroutine))

    def call(self, node: str, coroutine: Coroutine[Any, Any, Any], until: Instant = NEVER) -> Any:
        """Run `coroutine` as a task of the named node and the bench until all is quiet (or `until`); returns its result.

        Raises:
            TimeoutError: it did not finish; says what it waits for.
        """
        if self.kernel is None:
            self.boot()
        result: list[Any] = []
        failure: list[BaseException] = []

        async def body() -> None:
            try:
                result.append(await coroutine)
            except Exception as error:
                failure.append(error)

        self.spawn(node, body())
        self.run(until)
        if failure:
            raise failure[0]
        if not result:
            raise TimeoutError(f"the coroutine on {node} did not finish; waits: {self.waits()}")
        return result[0]

    def waits(self) -> list[str]:
        """Who waits for what, as text."""
        return [
            f"{name}: {task} waits for {what}"
            for name in sorted(self._nodes)
            for task, what, _ in self._nodes[name].scheduler.waits()
        ]

    def digest(self) -> str:
        """Digest of what the nodes consumed."""
        assert self.kernel is not None
        kernel = self.kernel
        return run_digest({node.name: kernel.digests[node.id].result() for node in self._nodes.values()})


def _out(links: list[LinkPlan], ids: dict[str, int], src: str, port: str, dst: str, dst_port: str) -> int:
    return next(k.id for k in links if (k.src, k.src_port, k.dst, k.dst_port) == (ids[src], port, ids[dst], dst_port))
