"""What a kernel and its nodes say to each other, and what it answers to a grant: the types."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, NamedTuple, Protocol

from cosim.core.digest import NodeDigest
from cosim.core.message import RecordTuple
from cosim.core.time import fmt


class ModelFault(Exception):
    """A model raised or broke a rule of time; carries the node's name and simulated time."""

    def __init__(self, node: str, sim_time_ps: int, what: str, rule: str = "node-raised") -> None:
        super().__init__(f"{node} at {fmt(sim_time_ps)}: {what}")
        self.node = node
        self.sim_time_ps = sim_time_ps
        self.what = what
        self.rule = rule


class Hosted(Protocol):
    """What the kernel needs of a node."""

    id: int
    name: str
    now: int
    reaction: int

    @property
    def ready(self) -> Sized:
        """The tasks that are ready to run: always the same object. `settle` is called after an event that leaves any."""

    @property
    def promising(self) -> bool:
        """Whether `promise` is to be asked at all."""

    def receiver(self, link: int, kind: int) -> Callable[..., Any]:
        """What handles messages of a kind that come over a link: it is called with their fields, at `now`. Asked once."""

    def accept(self, result: Any) -> None:
        """Take what a receiver or timer returned, if that is not None."""

    def settle(self) -> int:
        """Run ready tasks until all wait; returns the number of steps taken."""

    def promise(self) -> int | None:
        """Earliest send time of any later message without a new input; None: the earliest event."""


class LinkEnd(NamedTuple):
    """What the kernel knows of a link: its ends (node ids), latency in ps and the worker that hosts the destination."""

    src: int
    dst: int
    latency: int
    worker: int


class Batch(NamedTuple):
    """Messages for one other worker: earliest arrival, earliest arrival + reaction of its destination, records in seq order."""

    worker: int
    arrival: int
    wake: int
    records: list[RecordTuple]


class Report(NamedTuple):
    """Answer to a grant (the body of DONE): times in ps and one batch per destination worker."""

    now: int
    next_event: int
    next_out: int
    batches: list[Batch]
    events: int


Outlet = Callable[..., None]
"""``send(kind, fields, delay=0, known=False)``: the way out over one link; `known`: the fields are plain, see `Kernel.outlet`."""

Inlet = tuple[
    int,
    Hosted,
    dict[str, Any],
    int,
    dict[int, Callable[..., Any]],
    Callable[[Any], Any],
    Callable[[Any], None],
    NodeDigest,
    Sized,
    Callable[[], int],
]
"""Where an event goes: link id (-1: timers), node, its attributes, its reaction (ps), the link's receivers by kind, the digest's
`pack` and `update`, the digest, the ready tasks and what settles them. The clock is set in the attributes: the interpreter does
that faster than it sets an attribute of an object that may be of any class."""

Entry = tuple[int, int, int, int, Inlet, int, Any]
"""(arrival, priority, src, seq, inlet, kind, fields). For a timer `fields` is the function to call, and `kind` is ``~floor``: the
earliest time at which its node may send, as a negative number."""
