"""Redistributor to redistributor: a vPE's state changes hands, and what still arrives at an earlier owner follows it.

One redistributor owns a vPE: the one VMAPP named, then each that the state was handed to. It is handed over

* by VMOVP (`MoveVpe`), to the new home;
* by a claim: a redistributor on which software makes the vPE resident without being its owner asks for it; GICD_TYPER and
  GICR_TYPER.CommonLPIAff allow that inside the group. It keeps the state, also after the residency, until the next VMOVP or
  claim; the home still has the doorbell LPI.

An owner that gave a vPE away knows to whom (`moved`), and forwards. Links keep their order, so what is forwarded arrives behind
the state. What arrives at a new owner *before* the state waits there (`Vpes.request`). A fence is a request that is answered
when everything before it, on the same way, has taken effect: VSYNC waits for it, so its acknowledge means the same wherever
the vPE is.

The messages are ours (the architecture leaves it open): Forward(target, kind, fields) by way of the distributor; target -1
reaches every other redistributor. Kinds, beside those of gic_net with their fields:

    VpeState(vpeid, state)                          hand over
    Claim(vpeid, requester, affinity, everybody)    hand it over to me
    Seek(vpeid, requester, everybody)               tell me who has it
    VpeAt(vpeid, owner)                             you are its home now, the state is there
    Fence(tag, vpeid)  FenceAck(tag)                vpeid -1: of the physical LPIs
    SetLpis(intids)                                 physical LPIs that moved
    QueryVsgi(vpeid, requester, everybody)  VsgiState(vpeid, pending)

The three questions go to where the vPE is thought to be, else to everybody. Knowledge can be out of date (a vPE may be unmapped
and mapped elsewhere), therefore a redistributor that was asked alone and knows nothing passes the question on to everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nodes.arch.gic_net import GIC_NET
from nodes.redistributor.effects import Done
from nodes.redistributor.vpe import Vpe

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

EVERYBODY = -1
PHYSICAL = -1

VPE_KINDS = frozenset(
    {
        "SetVlpi", "ClearVlpi", "InvVlpi", "VInvAll", "MoveVlpi", "SetVsgi", "CfgVsgi", "ClearVsgi", "MapVpe", "UnmapVpe",
        "MoveVpe", "InvDb",
    }
)  # fmt: skip
"""Requests that follow a vPE."""


class Transfer:
    """The Forward messages of one redistributor."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self._fences: dict[int, Done] = {}
        self._tag = 0
        self._kinds: dict[str, Callable[..., None]] = {
            "VpeState": lambda source, vpeid, state: rd.vpes.install(Vpe.unpack(vpeid, state)),
            "Claim": lambda source, *fields: self._question("Claim", *fields),
            "Seek": lambda source, *fields: self._question("Seek", *fields),
            "VpeAt": self._at,
            "Fence": self._fence,
            "FenceAck": lambda source, tag: self._fences.pop(tag)(),
            "SetLpis": self._set_lpis,
            "ClearLpi": lambda source, intid: rd.lpis.clear(intid),
            "InvLpi": lambda source, intid: rd.lpis.invalidate(intid),
            "Doorbell": lambda source, intid: rd.lpis.ring(intid),
            "QueryVsgi": lambda source, *fields: self._question("QueryVsgi", *fields),
            "VsgiState": lambda source, vpeid, pending: rd.registers.vsgi_state(vpeid, pending),
        }

    def forward(self, target: int, kind: str, fields: tuple[Any, ...]) -> None:
        """Send `kind` to another redistributor, or to all others (-1)."""
        self._rd.net.send("distributor", GIC_NET.Forward, target, kind, fields)

    def fence(self, target: int, done: Done, vpeid: int = PHYSICAL) -> None:
        """Call `done` when what was forwarded to `target` so far (for that vPE) has taken effect."""
        self._tag += 1
        self._fences[self._tag] = done
        self.forward(target, "Fence", (self._tag, vpeid))

    def received(self, source: int, kind: str, fields: tuple[Any, ...]) -> None:
        """A Forwarded message."""
        if kind in VPE_KINDS:
            self._rd.vpes.request(kind, fields)
            return
        handler = self._kinds.get(kind)
        if handler is None:
            self._rd.fault("net_errors", f"forwarded message of unknown kind {kind!r} dropped", source=source)
            return
        handler(source, *fields)

    # -- hand over -------------------------------------------------------------------------------------------------------

    def hand_over(self, vpe: Vpe, target: int) -> None:
        """Give a vPE, which is neither resident nor busy, to `target`; a fence for that vPE tells when it is there."""
        assert not vpe.resident and not vpe.busy and not vpe.parked
        vpes = self._rd.vpes
        del vpes.table[vpe.vpeid]
        vpes.moved[vpe.vpeid] = target
        self.forward(target, "VpeState", (vpe.vpeid, vpe.pack()))

    def ask(self, kind: str, vpeid: int, *fields: Any) -> None:
        """Ask for a vPE that is not here: Claim, Seek or QueryVsgi in the name of this redistributor."""
        target = self._rd.vpes.moved.get(vpeid, EVERYBODY)
        self.forward(target, kind, (vpeid, self._rd.index, *fields, int(target == EVERYBODY)))

    def _question(self, kind: str, vpeid: int, requester: int, *rest: Any) -> None:
        vpes, index = self._rd.vpes, self._rd.index
        if requester == index:
            return
        *fields, everybody = rest
        if vpeid in vpes.table:
            self._answer(kind, vpeid, requester, *fields)
        elif vpes.moved.get(vpeid, requester) != requester:
            self.forward(vpes.moved[vpeid], kind, (vpeid, requester, *fields, everybody))
        elif not everybody:
            self.forward(EVERYBODY, kind, (vpeid, requester, *fields, 1))

    def _answer(self, kind: str, vpeid: int, requester: int, *fields: Any) -> None:
        if kind == "Claim":
            self._rd.vpes.request("Claim", (vpeid, requester, *fields))
        elif kind == "Seek":
            self.forward(requester, "VpeAt", (vpeid, self._rd.index))
        else:
            self.forward(requester, "VsgiState", (vpeid, self._rd.vpes.table[vpeid].sgi.pending))

    def _at(self, source: int, vpeid: int, owner: int) -> None:
        if vpeid not in self._rd.vpes.table:
            self._rd.vpes.moved_to(vpeid, owner)

    def _fence(self, source: int, tag: int, vpeid: int) -> None:
        def reply() -> None:
            self.forward(source, "FenceAck", (tag,))

        # Of this redistributor's effects only, not of its own transfers: two that wait for each other would wait for ever.
        if vpeid == PHYSICAL:
            self._rd.effects.after(reply)
        else:
            self._rd.vpes.request("VSync", (vpeid,), reply)

    def _set_lpis(self, source: int, intids: tuple[int, ...]) -> None:
        for intid in intids:
            self._rd.lpis.set(intid)
