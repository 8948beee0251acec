"""Where the ITSs of a VMOVP meet (GITS_TYPER.VMOVP = 0; IHI 0069H section 5.3, VMOVP).

Software gives the same VMOVP, with one SequenceNumber and ITSList, to every ITS of the list. Each of them moves its own
mapping and asks for the move of the state, of which the first one counts. None goes on before all have come: else an ITS that
is late could undo a later move. The new home (RDbase, the same in all of them) is where they meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosim.api import Peer
from nodes.arch.gic_net import GIC_NET

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor


class Rendezvous:
    """Those who have come, by (vPEID, SequenceNumber)."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self._meetings: dict[tuple[int, int], tuple[int, dict[int, Peer]]] = {}

    def arrive(self, peer: Peer, vpeid: int, seqnum: int, itslist: int, its_number: int) -> None:
        """An ITS executes that VMOVP; when the last of the list does, all of them hear of it."""
        key = (vpeid, seqnum)
        wanted, present = self._meetings.setdefault(key, (itslist, {}))
        if its_number in present or wanted != itslist:
            self._rd.fault(
                "vmovp_errors",
                "VMOVP: one ITSList for one SequenceNumber, and each ITS once",
                vpeid=vpeid,
                seqnum=seqnum,
                itslist=f"{itslist:#x}",
                first_itslist=f"{wanted:#x}",
                its=its_number,
            )
        if its_number in present:
            self._rd.net.send(peer, GIC_NET.VmovpMet, vpeid, seqnum)
            return
        present[its_number] = peer
        if any(wanted >> number & 1 and number not in present for number in range(wanted.bit_length())):
            return
        del self._meetings[key]
        for number in sorted(present):
            self._rd.net.send(present[number], GIC_NET.VmovpMet, vpeid, seqnum)
