"""What each ITS command does (IHI 0069H section 5.3; GICv4.1 layouts of VMAPP and VMOVP).

A command is a plain function of one instant: look-ups and checks first (they raise `Miss` or `Fault`), then changes of the
tables and messages to redistributors. Messages are not waited for, with one exception: what moves state between
redistributors, or takes a vPE away, is confirmed by a Sync (VMOVP: a VSync) to the old place before the next command
runs; the function returns the future of that acknowledge. SYNC and VSYNC are carried out by `nodes.its.queue`.
"""

from __future__ import annotations

from collections.abc import Callable

from cosim.api import Future
from nodes.arch.gic_net import GIC_NET
from nodes.arch.intid import NO_DOORBELL
from nodes.arch.its_commands import Command
from nodes.its.config import Config
from nodes.its.entries import INVALID_ITE, Cte, Dte, Ite, Vte
from nodes.its.mappings import Cause, Fault, Mappings, need
from nodes.its.net import Net

SHORTEST_VPT = 14
"""INTID bits: a vPE has LPIs."""

_SYNDROME = 0x01_00_00
_SYNDROME_OPCODES = {"CLEAR": 0x05}
"""The published table has CLEAR under 05, not under its opcode 04."""

Confirmation = tuple[Future[None], ...] | None
"""What must be answered before the next command may run."""

Operation = Callable[[Command], Confirmation]


def syndrome(command: Command, cause: Cause) -> int:
    """0x01_OO_CC: opcode and cause."""
    return _SYNDROME | _SYNDROME_OPCODES.get(command.name, command.opcode) << 8 | cause


def interrupt_home(maps: Mappings, entry: Ite) -> int:
    """Redistributor that holds the interrupt of a mapped event; raises Fault (UNMAPPED_COLLECTION, UNMAPPED_VPE, ...)."""
    if entry.physical:
        return maps.mapped_collection(entry.target).rd
    return maps.mapped_vpe(entry.target).rd


class Commands:
    """The commands of one ITS: `run` carries one out."""

    def __init__(
        self,
        config: Config,
        maps: Mappings,
        net: Net,
        on_remap: Callable[[int, int], None],
        its_number: Callable[[], int],
    ) -> None:
        self._config = config
        self._maps = maps
        self._net = net
        self._on_remap = on_remap
        self._its_number = its_number
        self._table: dict[str, Operation] = {
            "MAPD": self._mapd,
            "MAPC": self._mapc,
            "MAPTI": self._mapti,
            "MAPI": self._mapti,
            "MOVI": self._movi,
            "MOVALL": self._movall,
            "INT": self._int,
            "CLEAR": self._clear,
            "DISCARD": self._discard,
            "INV": self._inv,
            "INVALL": self._invall,
        }
        if config.virtual:
            self._table |= {
                "VMAPP": self._vmapp,
                "VMAPTI": self._vmapti,
                "VMAPI": self._vmapti,
                "VMOVI": self._vmovi,
                "VMOVP": self._vmovp,
                "VINVALL": self._vinvall,
            }
        if config.v41:
            self._table |= {"VSGI": self._vsgi, "INVDB": self._invdb}

    def run(self, command: Command) -> Confirmation:
        """Carry a command out; the futures of the result, if any, are to be awaited before the next one.

        Raises:
            Fault: it is wrong and changed nothing. Miss: something must be fetched first.
        """
        operation = self._table.get(command.name)
        if operation is None:
            raise Fault(Cause.UNKNOWN_COMMAND)
        return operation(command)

    # -- devices, collections, events ----------------------------------------------------------------------------------

    def _mapd(self, command: Command) -> None:
        device_id, size = command["device_id"], command["size"]
        self._maps.device(device_id)
        if not command["valid"]:
            self._maps.set_device(device_id, Dte(False, 0, 0))
            return
        need(size < self._config.event_bits, Cause.SIZE_OR_PROCNUM_OOR)
        self._maps.set_device(device_id, Dte(True, size, command["itt"]))

    def _mapc(self, command: Command) -> None:
        icid, rd = command["icid"], command["rdbase"]
        self._maps.collection(icid)
        if command["valid"]:
            self._check_rd(rd)
        self._maps.collections.write(icid, Cte(bool(command["valid"]), rd).pack())

    def _mapti(self, command: Command) -> None:
        maps, device_id, event_id = self._maps, command["device_id"], command["event_id"]
        old = maps.event(device_id, event_id)
        intid = command.fields.get("pintid", event_id)
        maps.check_lpi(intid)
        maps.collection(command["icid"])
        self._map_event(device_id, event_id, old, Ite(True, True, intid, command["icid"]))

    def _vmapti(self, command: Command) -> None:
        maps, device_id, event_id = self._maps, command["device_id"], command["event_id"]
        old = maps.event(device_id, event_id)
        vpe = maps.mapped_vpe(command["vpeid"])
        intid = command.fields.get("vintid", event_id)
        maps.check_lpi(intid, vpe.vpt_size + 1)
        doorbell = maps.doorbell(command["doorbell"])
        self._map_event(device_id, event_id, old, Ite(True, False, intid, command["vpeid"], doorbell))

    def _map_event(self, device_id: int, event_id: int, old: Ite, new: Ite) -> None:
        # Mapping a mapped event is UNPREDICTABLE: the new mapping holds, and somebody is told.
        if old.valid:
            self._on_remap(device_id, event_id)
        self._maps.set_event(device_id, event_id, new)

    def _movi(self, command: Command) -> Confirmation:
        maps, device_id, event_id, icid = self._maps, command["device_id"], command["event_id"], command["icid"]
        entry = maps.interrupt(device_id, event_id)
        need(entry.physical, Cause.UNMAPPED_INTERRUPT)
        new = maps.mapped_collection(icid)
        old = maps.mapped_collection(entry.target)
        maps.set_event(device_id, event_id, entry._replace(target=icid))
        if old.rd == new.rd:
            return None
        self._net.send(old.rd, GIC_NET.MoveLpi, entry.intid, new.rd)
        return (self._net.sync(old.rd),)

    def _movall(self, command: Command) -> Confirmation:
        source, target = command["rdbase1"], command["rdbase2"]
        self._check_rd(source, Cause.DEVICE_OOR)
        self._check_rd(target, Cause.DEVICE_OOR)
        if source == target:
            return None
        self._net.send(source, GIC_NET.MoveAll, target)
        return (self._net.sync(source),)

    # -- mapped interrupts ---------------------------------------------------------------------------------------------

    def _target(self, command: Command) -> tuple[Ite, int]:
        """(entry, redistributor) of the command's event."""
        entry = self._maps.interrupt(command["device_id"], command["event_id"])
        try:
            return entry, interrupt_home(self._maps, entry)
        except Fault as fault:
            # Without a mapped collection the interrupt counts as unmapped, as in the published tables.
            raise Fault(Cause.UNMAPPED_INTERRUPT if entry.physical else fault.cause) from None

    def _int(self, command: Command) -> None:
        entry, rd = self._target(command)
        self._net.set_interrupt(rd, entry)

    def _clear(self, command: Command) -> None:
        entry, rd = self._target(command)
        self._clear_interrupt(entry, rd)

    def _discard(self, command: Command) -> None:
        entry, rd = self._target(command)
        self._maps.set_event(command["device_id"], command["event_id"], INVALID_ITE)
        self._clear_interrupt(entry, rd)

    def _clear_interrupt(self, entry: Ite, rd: int) -> None:
        if entry.physical:
            self._net.send(rd, GIC_NET.ClearLpi, entry.intid)
        else:
            self._net.send(rd, GIC_NET.ClearVlpi, entry.target, entry.intid)

    def _inv(self, command: Command) -> None:
        entry, rd = self._target(command)
        if entry.physical:
            self._net.send(rd, GIC_NET.InvLpi, entry.intid)
        else:
            self._net.send(rd, GIC_NET.InvVlpi, entry.target, entry.intid)

    def _invall(self, command: Command) -> None:
        self._net.send(self._maps.mapped_collection(command["icid"]).rd, GIC_NET.InvAll)

    # -- vPEs ----------------------------------------------------------------------------------------------------------

    def _vmapp(self, command: Command) -> Confirmation:
        maps, vpeid = self._maps, command["vpeid"]
        alloc = command["alloc"] if self._config.v41 else 0
        if not command["valid"]:
            return self._unmap_vpe(vpeid, alloc)
        old = maps.vpe(vpeid)
        rd, size = command["rdbase"], command["vpt_size"]
        self._check_rd(rd)
        need(SHORTEST_VPT <= size + 1 <= self._config.id_bits, Cause.SIZE_OR_PROCNUM_OOR)
        if not self._config.v41:
            return self._vmapp_v40(vpeid, old, Vte(True, size, rd), command["vpt"])
        doorbell = maps.checked_doorbell(command["default_doorbell"]) if alloc else NO_DOORBELL
        new = self._allocated(vpeid, old, Vte(True, size, rd), alloc)
        maps.map_vpe(vpeid, new, owner=bool(alloc))
        if alloc:
            fields = (alloc, command["ptz"], command["vconf"], command["vpt"], size, doorbell)
            self._net.send(rd, GIC_NET.MapVpe, vpeid, *fields)
        elif not old.valid:
            self._net.send(new.rd, GIC_NET.MapVpe, vpeid, 0, 0, 0, 0, size, NO_DOORBELL)
        return None

    def _allocated(self, vpeid: int, old: Vte, new: Vte, alloc: int) -> Vte:
        """The entry that VMAPP leaves. With Alloc=0 a shared one stays: its home is where the state is, whatever RDbase says."""
        if not self._config.shared_vpes:
            need(not (alloc and old.valid), Cause.VPE_ALLOC)
            return new
        present = self._maps.shared_vpe(vpeid)
        need(present.valid != bool(alloc), Cause.VPE_ALLOC)
        return new if alloc else present

    def _vmapp_v40(self, vpeid: int, old: Vte, new: Vte, vpt: int) -> Confirmation:
        """GICv4.0. A mapped vPE gets the new mapping: its state goes to the new home, or to the new pending table."""
        self._maps.map_vpe(vpeid, new, owner=True)
        if old.valid and old.rd != new.rd:
            self._net.send(old.rd, GIC_NET.MoveVpe, vpeid, new.rd, 0, NO_DOORBELL)
            return (self._net.vsync(old.rd, vpeid),)
        if old.valid:
            self._net.send(old.rd, GIC_NET.UnmapVpe, vpeid, 0)
        self._net.send(new.rd, GIC_NET.MapVpe, vpeid, 0, 0, 0, vpt, new.vpt_size, NO_DOORBELL)
        return None

    def _unmap_vpe(self, vpeid: int, alloc: int) -> Confirmation:
        old = self._maps.mapped_vpe(vpeid, fresh=bool(alloc))
        self._maps.map_vpe(vpeid, Vte(False, 0, 0), owner=bool(alloc))
        self._net.send(old.rd, GIC_NET.UnmapVpe, vpeid, alloc)
        return (self._net.sync(old.rd),)

    def _vmovi(self, command: Command) -> Confirmation:
        maps, device_id, event_id, vpeid = self._maps, command["device_id"], command["event_id"], command["vpeid"]
        entry = maps.interrupt(device_id, event_id)
        need(not entry.physical, Cause.UNMAPPED_INTERRUPT)
        new = maps.mapped_vpe(vpeid)
        maps.check_lpi(entry.intid, new.vpt_size + 1)
        old = maps.vpe(entry.target)
        doorbell = maps.doorbell(command["doorbell"]) if command["d"] else entry.doorbell
        maps.set_event(device_id, event_id, entry._replace(target=vpeid, doorbell=doorbell))
        if not old.valid or entry.target == vpeid:
            return None
        self._net.send(old.rd, GIC_NET.MoveVlpi, entry.target, entry.intid, vpeid, new.rd, doorbell)
        return (self._net.sync(old.rd),)

    def _vmovp(self, command: Command) -> Confirmation:
        maps, vpeid, rd = self._maps, command["vpeid"], command["rdbase"]
        old = maps.mapped_vpe(vpeid, fresh=True)
        self._check_rd(rd)
        keep = command["db"] if self._config.v41 else 0
        doorbell = maps.checked_doorbell(command["default_doorbell"]) if keep else NO_DOORBELL
        number = self._its_number()
        need(not self._config.meets or bool(command["itslist"] >> number & 1), Cause.ITS_LIST)
        self._net.send(old.rd, GIC_NET.MoveVpe, vpeid, rd, keep, doorbell)
        moved = self._net.vsync(old.rd, vpeid)
        maps.move_vpe(vpeid, old._replace(rd=rd), moved)
        if not self._config.meets:
            return (moved,)
        # Events may go on when the state has moved; the next command when every ITS of the list has come so far.
        return (moved, self._net.meet(rd, vpeid, command["seqnum"], command["itslist"], number))

    def _vinvall(self, command: Command) -> None:
        self._net.send(self._maps.mapped_vpe(command["vpeid"]).rd, GIC_NET.VInvAll, command["vpeid"])

    def _invdb(self, command: Command) -> None:
        self._net.send(self._maps.mapped_vpe(command["vpeid"]).rd, GIC_NET.InvDb, command["vpeid"])

    def _vsgi(self, command: Command) -> None:
        vpeid, sgi = command["vpeid"], command["sgi"]
        rd = self._maps.mapped_vpe(vpeid).rd
        if command["clear"]:
            self._net.send(rd, GIC_NET.ClearVsgi, vpeid, sgi)
        else:
            fields = (command["enable"], command["group"], command["priority"])
            self._net.send(rd, GIC_NET.CfgVsgi, vpeid, sgi, *fields)

    def _check_rd(self, rd: int, cause: Cause = Cause.SIZE_OR_PROCNUM_OOR) -> None:
        need(self._net.knows(rd), cause)
