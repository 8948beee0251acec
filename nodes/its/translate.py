"""Translation of events: MSIs (DeviceID, EventID) and GITS_SGIR writes (vPEID, vINTID), in the order in which they came.

An event whose entries are cached is translated at once. One that misses waits in a queue for memory, and so do those
behind it. Failures drop the event without a bus error (IHI 0069H section 5.2), counted and logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cosim.api import BusFault, Queue, Signal
from nodes.arch.gic_net import GIC_NET
from nodes.its.commands import interrupt_home
from nodes.its.mappings import Cause, Fault, Mappings
from nodes.its.net import Net
from nodes.its.tables import Miss, settle


class Msi(NamedTuple):
    """An MSI with its DeviceID and EventID."""

    device_id: int
    event_id: int


class Sgir(NamedTuple):
    """A write to GITS_SGIR."""

    vpeid: int
    sgi: int


Event = Msi | Sgir


class Translator:
    """`on_done(event)` and `on_drop(event, why, cause)` hear of each event's end (`cause`: its mapping is missing);
    `enabled()` tells GITS_CTLR.Enabled."""

    def __init__(
        self,
        maps: Mappings,
        net: Net,
        enabled: Callable[[], bool],
        on_done: Callable[[Event], None],
        on_drop: Callable[[Event, str, Cause | None], None],
    ) -> None:
        self._maps = maps
        self._net = net
        self._enabled = enabled
        self._on_done = on_done
        self._on_drop = on_drop
        self._accepted = 0
        self._finished = 0
        self._backlog: Queue[Event] = Queue("an event whose entries are not cached")
        self._progress = Signal("earlier events to be translated")

    @property
    def idle(self) -> bool:
        """No event waits."""
        return self._accepted == self._finished

    def submit(self, event: Event) -> None:
        """Translate an event after those before it."""
        first = self.idle
        self._accepted += 1
        if first:
            try:
                self._translate(event)
            except Miss:
                pass
            else:
                self._finished += 1
                return
        self._backlog.put(event)

    async def run(self) -> None:
        """The task that translates events which missed; never ends."""
        while True:
            event = await self._backlog.get()
            try:
                await settle(lambda: self._translate(event))  # noqa: B023  (called before the next turn)
            except BusFault as fault:
                self._on_drop(event, str(fault), None)
            self._finished += 1
            self._progress.notify()

    async def drained(self) -> None:
        """Wait until every event accepted so far was translated or dropped."""
        accepted = self._accepted
        while self._finished < accepted:
            await self._progress.wait()

    def _translate(self, event: Event) -> None:
        if not self._enabled():
            self._on_drop(event, "GITS_CTLR.Enabled is 0", None)
            return
        try:
            if isinstance(event, Msi):
                entry = self._maps.interrupt(event.device_id, event.event_id)
                self._net.set_interrupt(interrupt_home(self._maps, entry), entry)
            else:
                self._net.send(self._maps.mapped_vpe(event.vpeid).rd, GIC_NET.SetVsgi, event.vpeid, event.sgi)
        except Fault as fault:
            self._on_drop(event, fault.cause.name, fault.cause)
            return
        self._on_done(event)
