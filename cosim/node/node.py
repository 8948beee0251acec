"""`Node`: the base class of every Python model.

A model declares its ports as class attributes, reads `self.params` in `setup`, registers what it serves, and reacts: to
messages (`@on(Kind)` methods), to bus accesses (`MmioTarget.serve`), to time (`after`, `sleep`). System software is written
as coroutines started with `spawn`. Nothing in a model sees wall-clock time, another node's state, or a random number that
does not come from `self.rng`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from cosim.core.digest import blake2b
from cosim.core.kernel import Entry, Kernel, Outlet
from cosim.core.message import KINDS, POWER, Kind
from cosim.core.plan import LinkPlan, NodePlan, RegionPlan
from cosim.core.regs import Bank
from cosim.core.tasks import Future, Label, Scheduler, Task
from cosim.core.time import Instant, Span, fmt

if TYPE_CHECKING:
    from random import Random

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SIDE_LOG, SIDE_CONSOLE, SIDE_MARK, SIDE_TEST = 0, 1, 2, 3
"""Side records, outside the digest: [time, node id, number, type, payload]."""


class ModelError(Exception):
    """A model found that it is used wrongly (bad parameter, unknown peer); names what to change."""


def on(kind: Kind, port: str | None = None) -> Callable[[F], F]:
    """Mark a method as the handler of message `kind`: called as ``method(self, peer, *fields)``; plain or async.

    Args:
        kind: e.g. ``GIC_NET.SetVlpi``.
        port: only for messages of that port; otherwise of every port of the node.
    """

    def mark(function: F) -> F:
        existing = getattr(function, "__cosim_on__", ())
        function.__cosim_on__ = (*existing, (kind.code, port))  # type: ignore[attr-defined]
        return function

    return mark


class Peer:
    """The node at the other end of one port's links: `name`, its port, `out` and `back` link ids, attributes of the plan."""

    __slots__ = ("attributes", "back", "emit", "index", "latency", "name", "out", "port", "remote_port")

    def __init__(self, name: str, remote_port: str, port: Port, index: int) -> None:
        self.name = name
        self.remote_port = remote_port
        self.port = port
        self.index = index
        self.out: int | None = None
        self.back: int | None = None
        self.latency = 0
        self.attributes: dict[str, Any] = {}
        self.emit: Outlet = self._nowhere

    def _nowhere(self, _kind: int, _fields: tuple[Any, ...], _delay: Span = 0, _known: bool = False) -> None:
        here = f"{self.port.node.name}.{self.port.name}"
        raise ModelError(f"no link leads from {here} to {self!r}: the topology has only the other direction")

    def __repr__(self) -> str:
        return f"{self.name}.{self.remote_port}"


class _Sleep:
    """First item of the label of a sleep; the time is put into words only when somebody asks who waits for what."""

    def format(self, delay: Span) -> str:
        """The label as text."""
        return f"{fmt(delay)} of simulated time"


_SLEEP = _Sleep()


class Port:
    """A node's connection to the outside, declared as a class attribute; each instance of the node gets its own copy.

    `peers` lists the other ends in the order of the plan; `peer(name)` finds one by node name.
    """

    def __init__(self, doc: str = "") -> None:
        self.doc = doc
        self.name = ""
        self.node: Node = cast("Node", None)
        self.peers: list[Peer] = []
        self._by_name: dict[str, Peer] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def clone(self, node: Node) -> Port:
        """The instance's own port."""
        copy = type(self).__new__(type(self))
        copy.__dict__ = {**self.__dict__, "node": node, "peers": [], "_by_name": {}}
        copy.bind()
        return copy

    def bind(self) -> None:
        """Make the state that an instance owns."""

    def link(self, plan: LinkPlan, other: str, outgoing: bool) -> Peer:
        """Account for a link of the plan that starts (`outgoing`) or ends at this port."""
        remote_port = plan.dst_port if outgoing else plan.src_port
        key = f"{other}.{remote_port}"
        peer = self._by_name.get(key)
        if peer is None:
            peer = Peer(other, remote_port, self, len(self.peers))
            self.peers.append(peer)
            self._by_name[key] = peer
            self._by_name.setdefault(other, peer)
        if outgoing:
            peer.out = plan.id
            peer.emit = self.node.kernel.outlet(plan.id)
        else:
            peer.back = plan.id
        peer.latency = plan.latency
        peer.attributes.update(plan.attributes)
        return peer

    def peer(self, name: str | None = None) -> Peer:
        """The other end by node name (``"node"`` or ``"node.port"``); without a name the only one.

        Raises:
            ModelError: no such peer.
        """
        if name is None and len(self.peers) == 1:
            return self.peers[0]
        found = self._by_name.get(name or "")
        if found is None:
            have = ", ".join(repr(p) for p in self.peers) or "none"
            raise ModelError(
                f"port {self.node.name}.{self.name} must be linked to {name!r}; it is linked to: {have}. Check the topology's links"
            )
        return found

    def send(self, peer: Peer | str | None, kind: Kind, *fields: Any, delay: Span = 0) -> None:
        """Send a message now + `delay` ps; it arrives after the link's latency."""
        if type(peer) is not Peer:
            peer = self.peer(cast("str | None", peer))
        emit = peer.emit
        emit(kind.code, fields, delay)

    def handler(self, kind: int) -> Callable[..., Any] | None:
        """What takes a message kind that the node has no `@on` method for: called as ``handler(peer, *fields)``."""
        return None

    def receive(self, peer: Peer, kind: int, fields: tuple[Any, ...]) -> bool:
        """Handle a message that neither `@on` nor `handler` takes; returns whether it was handled."""
        return False


class PowerPort(Port):
    """The power line: Off is the kernel's; at Epoch the node notes its counters."""

    def receive(self, peer: Peer, kind: int, fields: tuple[Any, ...]) -> bool:
        if kind != POWER.Epoch.code:
            return False
        self.node.note_epoch(fields[0])
        return True


class Node:
    """Base class of models. Class attributes that are ports are bound per instance.

    Attributes for models: `name`, `params` (dict from the topology), `now` (ps), `rng` (seeded by run seed and name),
    `count` (counters, reported in result.json as NODE.COUNTER).
    """

    kind: ClassVar[str] = ""
    _handlers: ClassVar[dict[tuple[int, str | None], str]] = {}
    _declared: ClassVar[dict[str, Port]] = {}
    _ports: ClassVar[dict[str, Port]] = {}
    counters: ClassVar[tuple[str, ...]] = ()
    """Counters that are reported also when they are 0."""
    parameters: ClassVar[Mapping[str, type | range | tuple[Any, ...]]] = {}
    """Names of the parameters that a topology may give, with their types (int, bool, str, list, dict), the range of integers
    or the tuple of values that are allowed; checked when the topology is loaded. Empty: not checked."""
    promising: ClassVar[bool] = False
    """Whether this class overrides `promise`; the kernel asks only those."""

    ready: deque[Any]
    settle: Callable[[], int]

    power = PowerPort("the machine's power: Off ends this node's part of the run")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = {}
        cls._ports = {}
        cls.promising = cls.promise is not Node.promise
        cls._declared = {name: value for name, value in vars(cls).items() if isinstance(value, Port)}
        for name in cls._declared:
            delattr(cls, name)  # instances have their own; an attribute that the class has too is found more slowly
        for base in reversed(cls.__mro__):
            cls._ports.update(vars(base).get("_declared", {}))
            for name, value in vars(base).items():
                if isinstance(value, Port):
                    cls._ports[name] = value
                for key in getattr(value, "__cosim_on__", ()):
                    cls._handlers[key] = name

    def __init__(self, plan: NodePlan, seed: int) -> None:
        self.id = plan.id
        self.name = plan.name
        self.params = plan.params
        self.reaction = plan.reaction
        self.now: Instant = 0
        self.kernel: Kernel = cast("Kernel", None)
        self.scheduler = Scheduler()
        self.ready = self.scheduler.ready
        self.settle = self.scheduler.drain
        self.count: Counter[str] = Counter(dict.fromkeys(self.counters, 0))
        self._seed = seed
        self.side: list[list[Any]] = []
        self.epochs: list[tuple[int, dict[str, int]]] = []
        self._side_number = 0
        self._epoch = 0
        self._in: dict[int, Peer] = {}
        self.maps = plan.maps
        self.banks: dict[str, Bank] = {}
        ports = {name: port.clone(self) for name, port in self._ports.items()}
        self.__dict__ = {**self.__dict__, **ports}  # a table of its own: the kernel sets `now` in it

    @cached_property
    def rng(self) -> Random:
        """Random numbers of this node, seeded by run seed and name."""
        from random import Random  # few models draw any

        return Random(int.from_bytes(blake2b(f"{self._seed}:{self.name}".encode(), digest_size=8).digest(), "little"))

    # -- wiring, by the worker -----------------------------------------------------------------------------------------

    def connect(self, kernel: Kernel, links: Iterable[LinkPlan], names: dict[int, str]) -> None:
        """Bind ports to the links of the plan; then `setup` may run.

        Raises:
            ModelError: a link names a port that this model does not have.
        """
        self.kernel = kernel
        for link in links:
            if link.src == self.id:
                self._port(link.src_port, link).link(link, names[link.dst], outgoing=True)
            if link.dst == self.id:
                port = self._port(link.dst_port, link)
                self._in[link.id] = port.link(link, names[link.src], outgoing=False)

    def _port(self, name: str, link: LinkPlan) -> Port:
        port = self.__dict__.get(name)
        if not isinstance(port, Port):
            have = ", ".join(sorted(self._ports))
            raise ModelError(
                f"{self.name} ({type(self).__name__}) has no port {name!r} (link {link.id}); it has: {have}"
            )
        return port

    @classmethod
    def conflicts(cls, params: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """What is wrong with parameters that are right one by one: names, and what they "must be". Asked at load."""
        return ()

    def setup(self) -> None:
        """Read parameters, make state, register what ports serve. No messages may be sent here."""

    def start(self) -> Coroutine[Any, Any, Any] | None:
        """First event of the node, at time 0; plain or async."""
        return None

    def boot(self) -> None:
        """Queue `start` if the model overrides it; by the worker after `setup`."""
        if type(self).start is not Node.start:
            self.kernel.at(self.id, 0, self._start)

    def _start(self) -> None:
        result = self.start()
        if result is not None:
            self.spawn(result, "start")

    def stop(self) -> None:
        """The run is over: close tasks."""
        self.scheduler.stop()

    # -- the kernel's side ---------------------------------------------------------------------------------------------

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """What handles a kind of message of a link, called with its fields."""
        peer = self._in[link]
        return partial(self._find(peer, kind), peer)

    def accept(self, result: Any) -> None:
        """What a handler or timer returned: if that is a coroutine, it goes on from here."""
        if hasattr(result, "send"):
            self.spawn(result, getattr(result, "__name__", "handler"))

    def _find(self, peer: Peer, kind: int) -> Callable[..., Any]:
        name = self._handlers.get((kind, peer.port.name)) or self._handlers.get((kind, None))
        if name is not None:
            return cast(Callable[..., Any], getattr(self, name))
        port = peer.port
        direct = port.handler(kind)
        if direct is not None:
            return direct

        def by_port(peer: Peer, *fields: Any) -> None:
            if not port.receive(peer, kind, fields):
                raise ModelError(
                    f"{self.name}.{port.name} got a {KINDS[kind]!r} from {peer!r} and has no handler for it: "
                    f"add a method with @on({KINDS[kind]!r})"
                )

        return by_port

    def promise(self) -> Instant | None:
        """Override for models whose events are not outputs (a free-running clock): the earliest send time (ps) of any later
        message without a new input. None: the next event."""
        return None

    # -- for models ----------------------------------------------------------------------------------------------------

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str = "task", *, daemon: bool = False) -> Task:
        """Start a coroutine of this node. A `daemon` may wait for ever without that being a deadlock."""
        return self.scheduler.spawn(coroutine, name, daemon=daemon)

    def future(self, label: Label = None) -> Future[Any]:
        """A value that a handler will set; `label` tells `cosim why` what it is."""
        return Future(label)

    def after(self, delay: Span, fn: Callable[..., Any], *args: Any) -> Entry:
        """Call `fn(*args)` in `delay` ps as an event of this node; give the result to `cancel` to take it back."""
        return self.kernel.at(self.id, self.now + delay, partial(fn, *args) if args else fn)

    def cancel(self, timer: Entry) -> None:
        """Take a timer back; no effect when it has fired."""
        self.kernel.cancel(timer)

    async def sleep(self, delay: Span) -> None:
        """Wait `delay` ps of simulated time."""
        future: Future[None] = Future((_SLEEP, delay))
        self.kernel.at(self.id, self.now + delay, partial(future.set, None))
        await future

    async def poll(
        self,
        read: Callable[[], Awaitable[T]],
        until: Callable[[T], bool],
        *,
        every: Span,
        limit: Span,
        what: str = "a register",
    ) -> T:
        """Read until `until(value)` holds, every `every` ps; raises TimeoutError naming `what` after `limit` ps."""
        deadline = self.now + limit
        while True:
            value = await read()
            if until(value):
                return value
            if self.now + every > deadline:
                raise TimeoutError(f"{what} must reach the awaited state within {fmt(limit)}; last value {value!r}")
            await self.sleep(every)

    def log(self, event: str, **fields: Any) -> None:
        """A structured log event of this node (log.jsonl), with its simulated time."""
        self._record(SIDE_LOG, [event, fields])

    def console(self, file: str, text: str) -> None:
        """Text for console/FILE.log, as a guest or the host printed it."""
        self._record(SIDE_CONSOLE, [file, text])

    def mark(self, name: str, *identity: Any) -> None:
        """A named point in time with an identity, paired by the supervisor for latencies and paths."""
        self._record(SIDE_MARK, [name, list(identity)])

    def report_test(self, name: str, status: str, detail: str = "", **extra: Any) -> None:
        """Verdict of test software: status is "passed", "failed", "skipped" or "running" (it starts now). Every node notes its
        counters when the power line has brought the word, so that each test has counters of its own."""
        self._epoch += 1
        self._record(SIDE_TEST, [name, status, detail, extra, self._epoch])
        number = self._epoch
        last = self._over_power(POWER.Epoch, number)
        self.kernel.at(self.id, self.now + last, lambda: self.note_epoch(number))

    def power_off(self) -> None:
        """Switch the machine off: Off goes to every node over the power links; this node ends when the last has arrived."""
        last = self._over_power(POWER.Off)
        self.kernel.at(self.id, self.now + last, lambda: self.kernel.power_off(self.id))

    def _over_power(self, kind: Kind, *fields: Any) -> Span:
        port, last = self.__dict__["power"], 0
        for peer in port.peers:
            if peer.out is not None:
                port.send(peer, kind, *fields)
                last = max(last, peer.latency)
        return last

    def note_epoch(self, number: int) -> None:
        """Note the counters as they stand."""
        self.epochs.append((number, dict(self.count)))

    def snapshot(self) -> dict[str, dict[str, int]]:
        """{block: {register: value}} for `cosim regs`: the banks that ports serve and those put into `self.banks`.

        Called between two events. Must change nothing: what runs with and without it is the same run.
        """
        return {name: bank.snapshot() for name, bank in self.banks.items()}

    def _record(self, kind: int, payload: list[Any]) -> None:
        if not self.side:
            self.kernel.noted.append(self)
        self.side.append([self.now, self.id, self._side_number, kind, payload])
        self._side_number += 1

    def region(self, port: str) -> tuple[RegionPlan, ...]:
        """The address map of an initiator port."""
        return self.maps.get(port, ())
