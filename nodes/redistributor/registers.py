"""What accesses to the redistributor's registers do (IHI 0069H chapter 12; the table is `regs.py`).

With one Security state every access counts as Secure, since then all software may see all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cosim.api import SLVERR, Bank, BusError, Reg, Request
from nodes.arch.idregs import GIC700_IIDR, MODEL_IIDR, pidr2
from nodes.arch.intid import LPI_BASE
from nodes.redistributor import residency
from nodes.redistributor.regs import TABLES

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

VPE_ENTRY_WORDS = 1
"""64-bit words of an entry of the vPE configuration table; as in GITS_BASER2, which may name the same table."""

ENABLE_LPIS, CES, IR, DPG = 1 << 0, 1 << 1, 1 << 2, 7 << 24
PTZ = 1 << 62
PROCESSOR_SLEEP = 1 << 1
VALID = 1 << 63
LOWER = 0xFFFF_FFFF


class Registers:
    """The register bank of one redistributor, and the state that lives only in it."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self.bank = Bank(TABLES[rd.gic_version], on_reserved=self._reserved, on_unmodelled=self._unmodelled)
        self._written = 0
        self._clearing = 0  # register writes whose effect GICR_CTLR.RWP announces
        self._ptz = False
        self._inv_busy = 0
        self._query = -1
        self._query_timer: Any = None
        self._has_inv = rd.v41 or rd.direct_lpi
        self._identify()
        self._hook_rd_frame()
        self._hook_sgi_frame()
        if rd.gic_version != "3":
            self._hook_vlpi_frame()

    # -- the bus ---------------------------------------------------------------------------------------------------------

    def _secure(self, access: Request) -> bool:
        return access.secure or not self._rd.two_states

    def read(self, access: Request) -> int:
        """Serve a read."""
        return self.bank.read(access.addr, access.size, secure=self._secure(access))

    def write(self, access: Request) -> None:
        """Serve a write."""
        if not isinstance(access.data, int):
            raise BusError(SLVERR, f"registers take 1, 2, 4 or 8 bytes, not {access.size}")
        self._written = access.data
        self.bank.write(access.addr, access.size, access.data, secure=self._secure(access))

    def _reserved(self, offset: int, op: str) -> None:
        self._rd.fault("reserved_accesses", f"{op} where this redistributor has no register", offset=f"{offset:#x}")

    def _unmodelled(self, reg: Reg, index: int, op: str) -> None:
        self._rd.fault("unmodelled_accesses", f"{op} of {reg.name}, which is not modelled", index=index)

    # -- identification --------------------------------------------------------------------------------------------------

    def _identify(self) -> None:
        rd, bank = self._rd, self.bank
        version = rd.gic_version
        bank.configure("GICR_CTLR", CES | (IR if rd.v41 else 0))
        typer = 1 << 0 | 1 << 5 | rd.index << 8 | rd.affinity << 32  # PLPIS, DPGS
        typer |= int(rd.last) << 4
        if version != "3":
            typer |= 1 << 1 | 1 << 2  # VLPIS, Dirty
            bank.configure("GICR_VPENDBASER", 0)
        if rd.v41:
            typer |= 1 << 7 | 1 << 26  # RVPEID, VSGI
            bank.configure("GICR_VPROPBASER", (VPE_ENTRY_WORDS - 1) << 59)
        typer |= int(rd.direct_lpi) << 3 | rd.common_lpi_aff << 24
        bank.configure("GICR_TYPER", typer)
        bank.configure("GICR_IIDR", GIC700_IIDR if rd.v41 else MODEL_IIDR)
        if version == "3":
            bank.configure("GICR_PIDR2", pidr2(3))
        absent = ["GICR_MPAMIDR", "GICR_PARTIDR", "GICR_INMIR0"]
        absent += [name for name in bank.block.rules if name.endswith("nE")]
        if not rd.direct_lpi:
            absent += ["GICR_SETLPIR", "GICR_CLRLPIR"]
        if not self._has_inv:
            absent += ["GICR_INVLPIR", "GICR_INVALLR", "GICR_SYNCR"]
        for name in absent:
            bank.absent(name)

    # -- RD_base ---------------------------------------------------------------------------------------------------------

    def _hook_rd_frame(self) -> None:
        bank = self.bank
        bank.on_write("GICR_CTLR", self._write_ctlr)
        bank.on_read("GICR_CTLR", lambda index: bank["GICR_CTLR"] | (8 if self._clearing else 0))
        bank.on_write("GICR_WAKER", self._write_waker)
        bank.on_write("GICR_PROPBASER", self._write_table("GICR_PROPBASER"))
        bank.on_write("GICR_PENDBASER", self._write_table("GICR_PENDBASER"))
        if self._rd.direct_lpi:
            bank.on_write("GICR_SETLPIR", self._write_setlpir)
            bank.on_write("GICR_CLRLPIR", self._write_clrlpir)
        if self._has_inv:
            bank.on_write("GICR_INVLPIR", self._write_invlpir)
            bank.on_write("GICR_INVALLR", self._write_invallr)
            bank.on_read("GICR_SYNCR", lambda index: 1 if self._inv_busy else 0)

    def rwp(self) -> Callable[[], None]:
        """RWP is 1 until the function returned here is called, and for `rwp_ps` after it."""
        self._clearing += 1

        def cleared() -> None:
            self._clearing -= 1

        return lambda: self._rd.later(self._rd.rwp_ps, cleared)

    def _write_ctlr(self, index: int, old: int, new: int, mask: int) -> None:
        rd, bank = self._rd, self.bank
        new &= ~8  # RWP is not stored: it is whether something is under way
        bank["GICR_CTLR"] = new
        if new & ENABLE_LPIS and not old & ENABLE_LPIS:
            if rd.lpis.disabling:
                bank["GICR_CTLR"] = new & ~ENABLE_LPIS
                rd.fault("ctlr_ignored", "EnableLPIs must not be set before RWP is 0 after it was cleared")
            else:
                propbaser, pendbaser = bank["GICR_PROPBASER"], bank["GICR_PENDBASER"]
                id_bits = min((propbaser & 0x1F) + 1, rd.id_bits)
                config, table = propbaser & ((1 << 52) - (1 << 12)), pendbaser & ((1 << 52) - (1 << 16))
                rd.lpis.enable(config, table, id_bits, self._ptz)
        elif old & ENABLE_LPIS and not new & ENABLE_LPIS:
            rd.lpis.disable(self.rwp())
        if (old ^ new) & DPG:
            rd.participate()
            self.rwp()()

    def _write_waker(self, index: int, old: int, new: int, mask: int) -> None:
        if (old ^ new) & PROCESSOR_SLEEP:
            self._rd.sleep_or_wake(bool(new & PROCESSOR_SLEEP))

    def children_asleep(self, asleep: bool) -> None:
        """The CPU interface is quiet, or awake."""
        self.bank.set_field("GICR_WAKER", "ChildrenAsleep", int(asleep))

    def _write_table(self, name: str) -> Callable[[int, int, int, int], None]:
        def write(index: int, old: int, new: int, mask: int) -> None:
            if self.bank["GICR_CTLR"] & ENABLE_LPIS or self._rd.lpis.disabling:
                self.bank[name] = old
                self._rd.fault("table_writes_ignored", f"{name} must not be written while EnableLPIs is 1")
            elif name == "GICR_PENDBASER" and mask & PTZ:
                self._ptz = bool(new & PTZ)

        return write

    # -- invalidation ----------------------------------------------------------------------------------------------------

    def _begin_invalidation(self, name: str) -> None:
        if self._inv_busy:
            self._rd.fault(
                "inv_busy", f"{name} must not be written while GICR_SYNCR.Busy is 1; carried out all the same"
            )
        self._inv_busy += 1

    def _end_invalidation(self) -> None:
        def passed() -> None:
            self._inv_busy -= 1

        self._rd.later(self._rd.syncr_ps, passed)

    def _write_setlpir(self, index: int, old: int, new: int, mask: int) -> None:
        if mask & LOWER:
            self._rd.lpis.set(new & LOWER)

    def _write_clrlpir(self, index: int, old: int, new: int, mask: int) -> None:
        if mask & LOWER:
            self._begin_invalidation("GICR_CLRLPIR")
            self._rd.lpis.clear(new & LOWER)
            self._rd.effects.after(self._end_invalidation)

    def _write_invlpir(self, index: int, old: int, new: int, mask: int) -> None:
        rd = self._rd
        if rd.v41 and mask == LOWER:
            rd.fault("inv_partial", "GICR_INVLPIR must be written with 64 bits, not its lower half")
            return
        self._begin_invalidation("GICR_INVLPIR")
        intid = new & LOWER
        if rd.v41 and new & VALID:
            self._virtual_invalidation("InvVlpi", (new >> 32 & 0xFFFF, intid))
        else:
            if rd.lpis.enabled:
                rd.lpis.invalidate(intid)
            rd.effects.after(self._end_invalidation)

    def _write_invallr(self, index: int, old: int, new: int, mask: int) -> None:
        rd = self._rd
        if rd.v41 and mask == LOWER:
            rd.fault("inv_partial", "GICR_INVALLR must be written with 64 bits, not its lower half")
            return
        self._begin_invalidation("GICR_INVALLR")
        if rd.v41 and new & VALID:
            self._virtual_invalidation("VInvAll", (new >> 32 & 0xFFFF,))
        else:
            if rd.lpis.enabled:
                rd.lpis.invalidate_all()
            rd.effects.after(self._end_invalidation)

    def _virtual_invalidation(self, kind: str, fields: tuple[Any, ...]) -> None:
        vpes = self._rd.vpes
        vpes.seek(fields[0])
        vpes.request(kind, fields)
        vpes.request("VSync", fields[:1], self._end_invalidation)

    # -- SGI_base --------------------------------------------------------------------------------------------------------

    def _visible(self) -> int:
        return self._rd.private.visible(self.bank.secure)

    def _hook_sgi_frame(self) -> None:
        bank, private = self.bank, self._rd.private
        self._bits("GICR_IGROUPR0", lambda: private.group, "group")
        self._bits("GICR_IGRPMODR0", lambda: private.modifier, "modifier")
        self._bits("GICR_NSACR", lambda: private.nsacr, "nsacr")
        self._masked("GICR_ISENABLER0", lambda: private.enabled, self._enable)
        self._masked("GICR_ICENABLER0", lambda: private.enabled, self._disable)
        self._masked("GICR_ISPENDR0", lambda: private.pending, self._set_pending)
        self._masked("GICR_ICPENDR0", lambda: private.pending, self._clear_pending)
        self._masked("GICR_ISACTIVER0", lambda: private.active, self._set_active)
        self._masked("GICR_ICACTIVER0", lambda: private.active, self._clear_active)
        bank.on_read("GICR_IPRIORITYR", lambda index: private.read_priorities(index, bank.secure))
        bank.on_write("GICR_IPRIORITYR", self._write_priorities)
        bank.on_read("GICR_ICFGR1", lambda index: private.read_config(bank.secure))
        bank.on_write("GICR_ICFGR1", self._write_config)

    def _bits(self, name: str, get: Callable[[], int], attribute: str) -> None:
        """A Secure register that is plain state of `Private`."""

        def write(index: int, old: int, new: int, mask: int) -> None:
            setattr(self._rd.private, attribute, new)
            self._rd.update_physical()

        self.bank.on_read(name, lambda index: get())
        self.bank.on_write(name, write)

    def _masked(self, name: str, get: Callable[[], int], change: Callable[[int], None]) -> None:
        """A set or clear register: `change(bits)` with the bits written as 1 that this access may change."""

        def write(index: int, old: int, new: int, mask: int) -> None:
            # What was written, not what changed: a set of what is pending by its level leaves a latch.
            change(self._written & self._visible())
            self._rd.update_physical()

        self.bank.on_read(name, lambda index: get() & self._visible())
        self.bank.on_write(name, write)

    def _enable(self, bits: int) -> None:
        self._rd.private.enabled |= bits

    def _disable(self, bits: int) -> None:
        self._rd.private.enabled &= ~bits
        done = self.rwp()
        self._rd.update_physical()
        self._rd.physical.settle(done)

    def _set_pending(self, bits: int) -> None:
        self._rd.private.set_pending(bits)

    def _clear_pending(self, bits: int) -> None:
        self._rd.private.clear_pending(bits)
        # What its level keeps pending is not withdrawn: an Activate is not of the past.
        bits &= ~self._rd.private.pending
        for intid in range(32):
            if bits >> intid & 1:
                self._rd.physical.cancel(intid)

    def _set_active(self, bits: int) -> None:
        self._rd.private.set_active(bits)

    def _clear_active(self, bits: int) -> None:
        self._rd.private.active &= ~bits

    def _write_priorities(self, index: int, old: int, new: int, mask: int) -> None:
        self._rd.private.write_priorities(index, new, mask, self.bank.secure)
        self._rd.update_physical()

    def _write_config(self, index: int, old: int, new: int, mask: int) -> None:
        self._rd.private.write_config(new, self.bank.secure)
        self._rd.update_physical()

    # -- VLPI_base -------------------------------------------------------------------------------------------------------

    def _hook_vlpi_frame(self) -> None:
        bank, rd = self.bank, self._rd
        bank.on_write("GICR_VPENDBASER", rd.residency.write)
        bank.on_write("GICR_VPROPBASER", self._write_vpropbaser)
        if rd.v41:
            bank.on_write("GICR_VSGIR", self._write_vsgir)

    def _write_vpropbaser(self, index: int, old: int, new: int, mask: int) -> None:
        if self.bank["GICR_VPENDBASER"] & residency.VALID:
            self.bank["GICR_VPROPBASER"] = old
            self._rd.fault("table_writes_ignored", "GICR_VPROPBASER must not be written while VPENDBASER.Valid is 1")
        elif self._rd.v41:
            if new >> 53 & 3 == 3:  # reserved, means 64 KB
                new &= ~(1 << 53)
                self.bank["GICR_VPROPBASER"] = new
            self._rd.vpes.directory.configure(new)

    @property
    def vpe_table_valid(self) -> bool:
        """GICv4.1: GICR_VPROPBASER.Valid."""
        return bool(self.bank["GICR_VPROPBASER"] & VALID)

    @property
    def vm_config(self) -> tuple[int, int]:
        """GICv4.0: (configuration table, ID bits) of the resident VM."""
        value = self.bank["GICR_VPROPBASER"]
        return value & ((1 << 52) - (1 << 12)), max((value & 0x1F) + 1, LPI_BASE.bit_length())

    def _write_vsgir(self, index: int, old: int, new: int, mask: int) -> None:
        rd = self._rd
        if self._query >= 0:
            rd.fault("vsgir_busy", "GICR_VSGIR must not be written while VSGIPENDR.Busy is 1; ignored", vpeid=new)
            return
        self._query = new & 0xFFFF
        self.bank["GICR_VSGIPENDR"] = 1 << 31
        vpe = rd.vpes.table.get(self._query)
        if vpe is not None:
            rd.later(rd.vsgir_ps, lambda: self.vsgi_state(vpe.vpeid, vpe.sgi.pending))
            return
        rd.transfer.ask("QueryVsgi", self._query)
        self._query_timer = rd.after(rd.stray_ps, self._no_vsgi_state, self._query)

    def _no_vsgi_state(self, vpeid: int) -> None:
        self._query_timer = None
        if self._query == vpeid:
            self._rd.fault("vpe_errors", "GICR_VSGIR names a vPE that is not mapped: nothing is pending", vpeid=vpeid)
            self.vsgi_state(vpeid, 0)

    def vsgi_state(self, vpeid: int, pending: int) -> None:
        """The answer to GICR_VSGIR; one that is no longer asked for is ignored."""
        if self._query == vpeid:
            if self._query_timer is not None:
                self._rd.cancel(self._query_timer)
                self._query_timer = None
            self._query = -1
            self.bank["GICR_VSGIPENDR"] = pending
