"""Inside the GIC, between distributor, ITSs and redistributors. The architecture leaves this open; the kinds are ours.

Configuration is sent without waiting; only Sync and VSync wait, for their acknowledges. Messages of one link keep their order
at the receiver (equal latency), so an acknowledge to Sync says that everything sent before it has taken effect.

Redistributors are named by GICR_TYPER.ProcessorNumber (`rd`, `target`, `source`). vPEs are named by vPEID. A redistributor
reaches another one through the distributor: Forward(target, kind, fields).

What moves state is confirmed before the ITS goes on: after MoveVpe(target) it sends VSync to the old home, after MoveLpi,
MoveAll, MoveVlpi and UnmapVpe Sync, and the acknowledge says that the state has arrived (in memory, for UnmapVpe). Until then
the ITS holds back events of a moving vPE. MoveVpe may name the home itself: only the doorbell fields matter then. Another ITS
that shares the vPE table may still send to a former home, which passes the message on. MapVpe and UnmapVpe go out for the first
VMAPP of a vPE on each ITS and for its end: the redistributor counts the ITSs. GICv4.1: Alloc=1 makes and ends the state;
GICv4.0 has no Alloc (0): the first and the last do.
"""

from __future__ import annotations

from cosim.api import PRIORITY_REQUEST, PRIORITY_RESPONSE, Protocol

_Q, _R = PRIORITY_REQUEST, PRIORITY_RESPONSE

GIC_NET = Protocol(
    "gic_net",
    17,
    [
        # Physical LPIs: ITS to redistributor.
        ("SetLpi", _Q, ("intid",)),
        ("ClearLpi", _Q, ("intid",)),
        ("InvLpi", _Q, ("intid",)),
        ("InvAll", _Q, ()),
        ("MoveLpi", _Q, ("intid", "target")),
        ("MoveAll", _Q, ("target",)),
        # Virtual LPIs and SGIs: ITS to the vPE's home redistributor. `doorbell` is the individual one of GICv4.0, else 1023.
        ("SetVlpi", _Q, ("vpeid", "intid", "doorbell")),
        ("ClearVlpi", _Q, ("vpeid", "intid")),
        ("InvVlpi", _Q, ("vpeid", "intid")),
        ("VInvAll", _Q, ("vpeid",)),
        ("MoveVlpi", _Q, ("vpeid", "intid", "target_vpeid", "target", "doorbell")),
        ("SetVsgi", _Q, ("vpeid", "sgi")),
        ("CfgVsgi", _Q, ("vpeid", "sgi", "enable", "group", "priority")),
        ("ClearVsgi", _Q, ("vpeid", "sgi")),
        ("QueryVsgi", _Q, ("vpeid", "source")),
        ("VsgiState", _R, ("vpeid", "pending")),
        # vPE mapping. alloc and ptz as in VMAPP (GICv4.1); vconf, vpt are physical addresses; vpt_size is ID bits minus 1.
        ("MapVpe", _Q, ("vpeid", "alloc", "ptz", "vconf", "vpt", "vpt_size", "doorbell")),
        ("UnmapVpe", _Q, ("vpeid", "alloc")),
        ("MoveVpe", _Q, ("vpeid", "target", "keep_doorbell", "doorbell")),
        ("VpeState", _Q, ("vpeid", "state")),
        ("InvDb", _Q, ("vpeid",)),
        ("Doorbell", _Q, ("intid",)),
        # Synchronisation: tag chosen by the sender.
        ("Sync", _Q, ("tag",)),
        ("SyncAck", _R, ("tag",)),
        ("VSync", _Q, ("tag", "vpeid")),
        ("VSyncAck", _R, ("tag", "vpeid")),
        # SGIs: redistributor to distributor (GenerateSgi), distributor to each target (Sgi).
        ("GenerateSgi", _Q, ("source", "register", "value", "nonsecure")),
        ("Sgi", _Q, ("intid", "source", "register", "nonsecure")),
        # SPIs: distributor to redistributor and back.
        ("Spi", _Q, ("intid", "priority", "group")),
        ("ClearSpi", _Q, ("intid",)),
        ("SpiActivate", _R, ("intid",)),
        ("SpiRelease", _R, ("intid",)),
        ("SpiDeactivate", _R, ("intid",)),
        ("SpiClearAck", _R, ("intid",)),
        # Distributor state that redistributors follow, acknowledged for GICD_CTLR.RWP.
        ("GroupEnables", _Q, ("tag", "group0", "group1_ns", "group1_s")),
        ("GroupEnablesAck", _R, ("tag",)),
        # Redistributor to redistributor through the distributor; `fields` is the tuple of the inner kind.
        ("Forward", _Q, ("target", "kind", "fields")),
        ("Forwarded", _Q, ("source", "kind", "fields")),
        # Redistributor to distributor: groups (bit n: group n) of which this PE takes 1-of-N SPIs.
        ("Participation", _R, ("groups",)),
        # VMOVP with GITS_TYPER.VMOVP = 0: the ITSs of the list meet at the new home, and go on when all have come.
        ("MeetVmovp", _Q, ("vpeid", "seqnum", "itslist", "its_number")),
        ("VmovpMet", _R, ("vpeid", "seqnum")),
        # Distributor to redistributor: GICD_CTLR.nASSGIreq, SGIs have no active state.
        ("StatelessSgis", _Q, ("on",)),
    ],
)
