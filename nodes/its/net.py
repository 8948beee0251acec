"""The ITS's side of gic_net: redistributors by processor number, and the acknowledges of Sync and VSync."""

from __future__ import annotations

from collections.abc import Callable

from cosim.api import Channel, Future, Kind, Peer
from nodes.arch.gic_net import GIC_NET
from nodes.its.entries import CTE_RDS, Ite

PREFIX = "redistributor"


class Net:
    """Sends to redistributors; messages to one of them keep their order."""

    def __init__(self, port: Channel, on_unexpected: Callable[[str, int], None]) -> None:
        self._port = port
        self._on_unexpected = on_unexpected
        self._peers: dict[int, Peer] = {}
        for peer in port.peers:
            number = peer.name.removeprefix(PREFIX)
            if peer.name.startswith(PREFIX) and number.isdecimal() and int(number) < CTE_RDS:
                self._peers[int(number)] = peer
        self._tag = 0
        self._open: dict[int, tuple[Peer, Future[None]]] = {}
        self._meetings: dict[tuple[int, int], Future[None]] = {}

    def knows(self, rd: int) -> bool:
        """Whether there is a redistributor of that processor number."""
        return rd in self._peers

    def send(self, rd: int, kind: Kind, *fields: int) -> None:
        """Send without waiting."""
        self._port.send(self._peers[rd], kind, *fields)

    def set_interrupt(self, rd: int, entry: Ite) -> None:
        """Make the (v)LPI of an event pending."""
        if entry.physical:
            self.send(rd, GIC_NET.SetLpi, entry.intid)
        else:
            self.send(rd, GIC_NET.SetVlpi, entry.target, entry.intid, entry.doorbell)

    def sync(self, rd: int) -> Future[None]:
        """Ask for the acknowledge of everything sent to a redistributor before."""
        tag, future = self._request(rd, "SyncAck")
        self.send(rd, GIC_NET.Sync, tag)
        return future

    def vsync(self, rd: int, vpeid: int) -> Future[None]:
        """Ask for the acknowledge of everything sent for a vPE before."""
        tag, future = self._request(rd, "VSyncAck")
        self.send(rd, GIC_NET.VSync, tag, vpeid)
        return future

    def _request(self, rd: int, what: str) -> tuple[int, Future[None]]:
        self._tag += 1
        future: Future[None] = Future(("{} of {}{}", what, PREFIX, rd))
        self._open[self._tag] = (self._peers[rd], future)
        return self._tag, future

    def meet(self, rd: int, vpeid: int, seqnum: int, itslist: int, its_number: int) -> Future[None]:
        """Meet the other ITSs of a VMOVP at the vPE's new home."""
        future: Future[None] = Future(
            ("every ITS of ITSList {:#x} to execute VMOVP {} of vPE {}", itslist, seqnum, vpeid)
        )
        self._meetings[vpeid, seqnum] = future
        self.send(rd, GIC_NET.MeetVmovp, vpeid, seqnum, itslist, its_number)
        return future

    def met(self, peer: Peer, vpeid: int, seqnum: int) -> None:
        """A VmovpMet came."""
        future = self._meetings.pop((vpeid, seqnum), None)
        if future is None:
            self._on_unexpected(peer.name, seqnum)
        else:
            future.set(None)

    def acknowledge(self, peer: Peer, tag: int) -> None:
        """A SyncAck or VSyncAck came."""
        expected, future = self._open.get(tag, (None, None))
        if future is None or expected is not peer:
            self._on_unexpected(peer.name, tag)
            return
        del self._open[tag]
        future.set(None)
