"""Which vPE runs on the PE: GICR_VPENDBASER's state machine (IHI 0069H section 5.4 and chapter 12).

    none --Valid 0->1--> scheduling (Dirty=1) --scanned--> resident --Valid 1->0--> descheduling (Dirty=1) --> none

Scheduling ends when a deliverable interrupt was found or every pending one was looked at; with the vPE's state on another
redistributor, it is claimed first. Descheduling takes back what the CPU interface holds; its answer decides whether the guest
still took it. Only then is PendingLast worked out. Both take at least `busy_ps`.

A write that the architecture leaves UNPREDICTABLE is ignored, counted (`vpend_ignored`) and logged: any change while Valid
stays 1, Valid=1 before the last deschedule has ended, and Valid=0 while still scheduling, which GIC-700 refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodes.redistributor.vpe import Vpe

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

VALID, DOORBELL, PENDING_LAST, DIRTY, GROUP0, GROUP1 = 1 << 63, 1 << 62, 1 << 61, 1 << 60, 1 << 59, 1 << 58
VPEID = 0xFFFF
VPT_ADDRESS = (1 << 52) - (1 << 16)
NAME = "GICR_VPENDBASER"


class Residency:
    """`state`: "none", "scheduling", "resident" or "descheduling"; `vpe`: the resident one, once its state is here."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self.state = "none"
        self.vpe: Vpe | None = None
        self._vpeid = -1  # wanted; GICv4.1
        self._vpt = -1  # wanted; GICv4.0
        self._group0 = self._group1 = False
        self._settled = False  # busy_ps have passed
        self._drained = False  # the CPU interface has given back what it held
        self._lost = False  # no redistributor has the vPE
        self._waiting: Any = None  # timer while the state is awaited
        self._no_doorbell = False  # deschedule with PendingLast=1
        self._doorbell = False

    # -- the register ----------------------------------------------------------------------------------------------------

    def write(self, index: int, old: int, new: int, mask: int) -> None:
        """Hook of GICR_VPENDBASER."""
        bank = self._rd.registers.bank
        was, valid = bool(old & VALID), bool(new & VALID)
        why = ""
        if was and valid:
            why = "no field may change while Valid is 1"
        elif was and self.state != "resident":
            why = "Valid must not be cleared while Dirty is 1"
        elif valid and self.state != "none":
            why = "Valid must not be set before the last deschedule has ended (Dirty is 1)"
        elif valid and self._rd.v41 and not self._rd.registers.vpe_table_valid:
            why = "Valid must not be set before GICR_VPROPBASER.Valid"
        if why:
            bank[NAME] = old
            if old & ~DIRTY != new & ~DIRTY:
                self._rd.fault("vpend_ignored", f"write to GICR_VPENDBASER ignored: {why}", value=f"{new:#x}")
        elif valid:
            self._schedule(new)
        elif was:
            self._deschedule(old, new)

    def _set_dirty(self) -> None:
        self._settled = False
        self._rd.after(self._rd.busy_ps, self._busy_passed)

    def _busy_passed(self) -> None:
        self._settled = True
        self.progress()

    # -- Valid 0 to 1 ----------------------------------------------------------------------------------------------------

    def _schedule(self, value: int) -> None:
        rd = self._rd
        rd.registers.bank[NAME] = value | PENDING_LAST | DIRTY
        self.state = "scheduling"
        self.vpe = None
        self._lost = False
        self._set_dirty()
        if rd.v41:
            self._vpeid = value & VPEID
            self._group0, self._group1 = bool(value & GROUP0), bool(value & GROUP1)
            self.find()
            return
        self._vpt = value & VPT_ADDRESS
        self._group0 = self._group1 = True
        here = [vpe for vpe in rd.vpes.table.values() if vpe.vpt == self._vpt]
        if here:
            rd.vpes.request("Enter", (here[0].vpeid,))
        else:
            # Software moves the vPE first (VMOVP); it enters when its state arrives.
            self._wait_for_state()

    def find(self) -> None:
        """GICv4.1: enter the vPE if it is here, else claim it."""
        rd = self._rd
        if self._vpeid in rd.vpes.table:
            rd.vpes.request("Enter", (self._vpeid,))
            return
        rd.transfer.ask("Claim", self._vpeid, rd.affinity)
        self._wait_for_state()

    def _wait_for_state(self) -> None:
        self._stop_waiting()
        self._waiting = self._rd.after(self._rd.stray_ps, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._rd.cancel(self._waiting)
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        vpe = {"vpeid": self._vpeid} if self._rd.v41 else {"vpt": self._vpt}
        self._rd.fault("vpe_errors", "no redistributor has the vPE that became resident: VMAPP it first", **vpe)
        self._lost = True
        self.progress()

    def wants(self, vpe: Vpe) -> bool:
        """Whether this is the vPE whose state residency waits for."""
        if self.state != "scheduling" or self.vpe is not None or self._lost:
            return False
        return vpe.vpeid == self._vpeid if self._rd.v41 else vpe.vpt == self._vpt

    def enter(self, vpe: Vpe) -> None:
        """The vPE's state is here and nothing is under way with it."""
        if not self.wants(vpe):
            return
        rd = self._rd
        self._stop_waiting()
        self.vpe = vpe
        vpe.resident = True
        vpe.group0, vpe.group1 = self._group0, self._group1
        if not rd.v41:
            base, id_bits = rd.registers.vm_config
            vpe.vconf, vpe.id_bits = base, min(vpe.id_bits, id_bits)
            rd.vpes.cache.invalidate_range(*vpe.config_range)
        rd.virtual.refused.clear()
        rd.vpes.entered(vpe)
        rd.vpes.evaluate(vpe)
        self.progress()

    # -- Valid 1 to 0 ----------------------------------------------------------------------------------------------------

    def _deschedule(self, old: int, value: int) -> None:
        rd = self._rd
        # The group enables are those of the residency (R2), whatever the clearing write has there.
        keep = GROUP0 | GROUP1 | VPEID if rd.v41 else 0
        rd.registers.bank[NAME] = value & ~keep | old & keep | DIRTY
        self.state = "descheduling"
        self._no_doorbell = rd.v41 and bool(value & PENDING_LAST)
        self._doorbell = rd.v41 and bool(value & DOORBELL)
        self._drained = False
        self._set_dirty()
        if self.vpe is not None:
            self.vpe.busy = "it is leaving the PE"
        rd.virtual.offer(None)
        rd.virtual.settle(self._returned)

    def _returned(self) -> None:
        self._drained = True
        self.progress()

    # -- progress --------------------------------------------------------------------------------------------------------

    def progress(self) -> None:
        """Something that scheduling or descheduling may wait for has happened."""
        if not self._settled:
            return
        if self.state == "scheduling":
            vpe = self.vpe
            if vpe is None:
                done = self._lost
            else:
                done = self._rd.vpes.deliverable(vpe) is not None or not self._rd.vpes.unknown(vpe)
            if done:
                self.state = "resident"
                self._clean()
        elif self.state == "descheduling" and self._drained:
            self._leave()

    def _clean(self) -> None:
        bank = self._rd.registers.bank
        bank[NAME] = bank[NAME] & ~DIRTY

    def _leave(self) -> None:
        rd, vpe = self._rd, self.vpe
        if vpe is None:
            self._finish(self._no_doorbell)
            return
        pending = self._no_doorbell
        if not pending:
            pending = rd.vpes.deliverable(vpe) is not None
            if not pending and rd.vpes.unknown(vpe):
                return  # `progress` comes again with the configuration
        vpe.resident = False
        vpe.requested = self._doorbell and not pending
        vpe.rung = False
        self.vpe = None
        if rd.v41:
            self._finish(pending)
            rd.vpes.unpark(vpe)
            return

        def written() -> None:
            self._finish(pending)
            rd.vpes.unpark(vpe)

        self.state = "writing back"
        rd.vpes.write_back(vpe, written)

    def _finish(self, pending: bool) -> None:
        self.state = "none"
        self._vpeid = self._vpt = -1
        bank = self._rd.registers.bank
        clear = PENDING_LAST | DIRTY
        if pending or not self._rd.v41:
            # No doorbell will come, since software knows that something is pending; GICv4.0: this is IDAI, always valid.
            clear |= DOORBELL
        bank[NAME] = bank[NAME] & ~clear | (PENDING_LAST if pending else 0)

    def abandon(self) -> None:
        """The resident vPE was unmapped: the PE gets nothing more of it."""
        vpe, self.vpe = self.vpe, None
        if vpe is not None:
            vpe.resident = False
        self._lost = True
        self._rd.virtual.offer(None)
        self.progress()
