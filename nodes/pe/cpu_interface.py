"""The GIC CPU interface of one PE: pure, without I/O and without a clock.

Three parts meet here: the physical interface (``physical_interface.py``), the virtual one
(``virtual_interface.py``) and the access rules of the System registers (``access.py``). Around it stands:

* the redistributor, whose packets call ``set``, ``clear``, ``vset``, ``vclear`` and ``quiesce``, and which gets
  what ``take_up`` returns. Names are those of the GIC Stream Protocol (IHI 0069H appendix A), not its bits:

      ("Activate", intid)  ("Release", intid)  ("ClearAck",)  ("QuiesceAck",)
      ("VActivate", vpeid, intid)  ("VRelease", vpeid, intid)  ("VClearAck", vpeid)
      ("Deactivate", intid, group)        group 0 to 2, 3: any (see physical_interface.py)
      ("GenerateSgi", "SGI1R" | "ASGI1R" | "SGI0R", value, ns)      ns 1: written in Non-secure state
      ("UpstreamControl", "GroupEnables" | "PMR", value)            GroupEnables: bit n is group n;
                                                                    PMR: with PMHE only, 0xFF when PMHE ends

* software, by ``read`` and ``write``: at EL1 with HCR_EL2.FMO or IMO an ICC name reaches its ICV twin;
* the PE, by the levels ``irq``, ``fiq``, ``virq``, ``vfiq`` and ``maintenance`` (PPI 25).

What the architecture leaves UNPREDICTABLE, or what is not modelled, is counted and told by ``take_reports``.

Source: IHI 0069H chapters 4, 5, 12 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nodes.pe.access import ICC, ICH, SCR_FIQ, SreRegisters, Trap, Undefined, route
from nodes.pe.handlers import (
    Readers,
    Writers,
    icc_readers,
    icc_writers,
    ich_readers,
    ich_writers,
    icv_readers,
    icv_writers,
)
from nodes.pe.physical_interface import Held, PhysicalInterface
from nodes.pe.priority import Scheme
from nodes.pe.regs import BY_NAME, REGISTERS, Kind, esr_for_sysreg, lookup
from nodes.pe.virtual_interface import Direct, VirtualInterface

__all__ = ["ICH_IMAGE_FIELDS", "CpuInterface", "Trap", "Undefined", "esr_for_sysreg", "ich_image_fields"]

Up = tuple[int | str, ...]


def ich_image_fields(list_registers: int = 4, pre_bits: int = 5) -> tuple[str, ...]:
    """Names of the words of ``CpuInterface.ich_image``, in order."""
    words = 1 << (pre_bits - 5)
    return (
        "ICH_HCR_EL2",
        "ICH_VMCR_EL2",
        *(f"ICH_LR{n}_EL2" for n in range(list_registers)),
        *(f"ICH_AP0R{n}_EL2" for n in range(words)),
        *(f"ICH_AP1R{n}_EL2" for n in range(words)),
    )


ICH_IMAGE_FIELDS: Final = ich_image_fields()
"""ICH_HCR, ICH_VMCR, ICH_LR0 to LR3, ICH_AP0R0, ICH_AP1R0: the image with 4 list registers and 5 preemption bits."""


ACKNOWLEDGING: Final = frozenset({"ICC_IAR0_EL1", "ICC_IAR1_EL1", "ICC_NMIAR1_EL1"})
"""Registers whose reading takes an interrupt."""


class CpuInterface:
    """ICC_, ICV_ and ICH_ state of one PE.

    ``mpidr``: MPIDR_EL1 of the PE. ``pri_bits`` and ``pre_bits``: implemented priority (5 to 8) and preemption
    (5 to 7) bits; ``id_bits``: 16 or 24. ``nv4``: ICH_VTR_EL2.nV4, no direct injection. ``vsgi_eoicount``,
    ``dvim``: does ICH_HCR_EL2 have vSGIEOICount (GICv4.1), DVIM. ``rss``, ``ext_range``: ICC_CTLR_EL1.RSS and
    ExtRange. ``sre_writable``: ICC_SRE_ELx can be written and reset to 0; otherwise they are RAO/WI, as on PEs
    without the memory-mapped interface. ``scr``: SCR_EL3 bits IRQ (1) and FIQ (2); by default FIQ with two
    Security states, as firmware sets it: Group 0 belongs to EL3, and Non-secure software sees shifted priorities.
    """

    def __init__(
        self, *, mpidr: int, pri_bits: int = 5, pre_bits: int = 5, list_registers: int = 4, id_bits: int = 16,
        nv4: bool = False, vsgi_eoicount: bool = True, two_security_states: bool = True, dvim: bool = True,
        rss: bool = False, ext_range: bool = True, sre_writable: bool = False, scr: int | None = None,
    ) -> None:  # fmt: skip
        if id_bits not in (16, 24):
            raise ValueError(f"id_bits must be 16 or 24, not {id_bits!r}")
        scheme = Scheme(pri_bits, pre_bits)
        self.mpidr = mpidr
        self.affinity = mpidr & 0xFFFFFF | (mpidr >> 32 & 0xFF) << 24  # Aff3.Aff2.Aff1.Aff0
        self.scheme = scheme
        self.nv4 = nv4
        self.two_security_states = two_security_states
        self.scr = (SCR_FIQ if two_security_states else 0) if scr is None else scr
        self.counters: dict[str, int] = {}
        self.up: list[Up] = []
        self._reports: list[tuple[str, str]] = []
        self._id_limit = 1 << id_bits
        self.sre = SreRegisters(sre_writable, two_security_states)
        self._el3 = self._secure = False
        self.physical = PhysicalInterface(
            scheme,
            id_bits=id_bits,
            two_states=two_security_states,
            rss=rss,
            ext_range=ext_range,
            emit=self._emit,
            report=self._report,
        )
        self.virtual = VirtualInterface(
            scheme, list_registers=list_registers, id_bits=id_bits, vsgi_eoicount=vsgi_eoicount, dvim=dvim,
            emit=self._emit, report=self._report,
        )  # fmt: skip
        id_field = 1 if id_bits == 24 else 0
        vtr = (
            list_registers - 1 | int(dvim) << 18 | 1 << 19 | int(nv4) << 20 | 1 << 21 | id_field << 23
            | pre_bits - 1 << 26 | pri_bits - 1 << 29
        )  # fmt: skip
        self.ich_image_fields = ich_image_fields(list_registers, pre_bits)
        ids = self.physical.read_ctlr(False)  # before anything is written: the read-only fields, shared with ICV
        self._readers: tuple[Readers, ...] = (
            icc_readers(self.physical, self._shifted), icv_readers(self.virtual, ids), ich_readers(self.virtual, vtr)
        )  # fmt: skip
        self._writers: tuple[Writers, ...] = (
            icc_writers(self.physical, self._shifted), icv_writers(self.virtual), ich_writers(self.virtual)
        )  # fmt: skip
        self._add_sre()

    def reset(self) -> None:
        """As after a cold reset of the PE; packets still queued upwards stay queued."""
        self.physical.reset()
        self.virtual.reset()
        self.sre.reset()
        self._el3 = self._secure = False

    # -- the redistributor ------------------------------------------------------------------------------------

    def set(self, intid: int, priority: int, group: int) -> None:
        """Set: the physical interrupt to hold. ``priority`` 8 bits in the Secure view, ``group`` 0 to 2."""
        self._check(intid, priority, group, 2 if self.two_security_states else 1)
        self.physical.offer(Held(intid, priority, group))

    def clear(self, intid: int) -> None:
        """Clear: Release if ``intid`` is held, then ClearAck in any case."""
        if self.physical.held is not None and self.physical.held.intid == intid:
            self.physical.withdraw()
        self._emit(("ClearAck",))

    def vset(self, vpeid: int, intid: int, priority: int, group: int) -> None:
        """VSet: the vLPI or vSGI of the resident vPE to hold. ``priority`` 8 bits, ``group`` 0 or 1."""
        self._check(intid, priority, group, 1)
        if self.nv4:
            self._report("vset_without_v4", f"VSet of vINTID {intid} must not come with ICH_VTR_EL2.nV4=1; released")
            self._emit(("VRelease", vpeid, intid))
            return
        self.virtual.offer(Direct(vpeid, intid, priority, group))

    def vclear(self, vpeid: int, intid: int) -> None:
        """VClear: VRelease if that interrupt of that vPE is held, then VClearAck in any case."""
        direct = self.virtual.direct
        if direct is not None and direct[:2] == (vpeid, intid):
            self.virtual.withdraw()
        self._emit(("VClearAck", vpeid))

    def quiesce(self) -> None:
        """Quiesce: everything held goes back, then QuiesceAck."""
        self.physical.withdraw()
        self.virtual.withdraw()
        self._emit(("QuiesceAck",))

    def take_up(self) -> list[Up]:
        """The packets for the redistributor since the last call, in order."""
        packets = self.up
        self.up = []
        return packets

    def take_reports(self) -> list[tuple[str, str]]:
        """``(counter, text)`` of what went wrong since the last call; ``counters`` has the totals."""
        reports = self._reports
        self._reports = []
        return reports

    def _emit(self, packet: Up) -> None:
        self.up.append(packet)

    def _report(self, counter: str, text: str) -> None:
        self.counters[counter] = self.counters.get(counter, 0) + 1
        self._reports.append((counter, text))

    def _check(self, intid: int, priority: int, group: int, last_group: int) -> None:
        if not 0 <= intid < self._id_limit or 1020 <= intid <= 1023:
            raise ValueError(f"intid must be below {self._id_limit} and not special (1020 to 1023), not {intid!r}")
        if not 0 <= priority <= 0xFF:
            raise ValueError(f"priority must be 0 to 0xFF, not {priority!r}")
        if not 0 <= group <= last_group:
            raise ValueError(f"group must be 0 to {last_group}, not {group!r}")

    # -- outputs ----------------------------------------------------------------------------------------------

    def set_state(self, el: int, secure: bool) -> None:
        """Exception level and Security state of the PE: with two Security states they choose between IRQ and FIQ."""
        self._el3, self._secure = el == 3, secure

    @property
    def irq(self) -> bool:
        """Level of the physical IRQ."""
        return self.physical.outputs(self._el3, self._secure)[0]

    @property
    def fiq(self) -> bool:
        """Level of the physical FIQ."""
        return self.physical.outputs(self._el3, self._secure)[1]

    @property
    def virq(self) -> bool:
        """Level of the virtual IRQ; HCR_EL2.IMO and the Exception level decide whether the PE takes it."""
        return self.virtual.outputs()[0]

    @property
    def vfiq(self) -> bool:
        """Level of the virtual FIQ."""
        return self.virtual.outputs()[1]

    @property
    def maintenance(self) -> bool:
        """Level of the maintenance interrupt, PPI 25."""
        return self.virtual.outputs()[2]

    # -- software ---------------------------------------------------------------------------------------------

    def read(self, name: str, *, el: int, secure: bool = False, hcr: int = 0, rt: int = 0) -> int:
        """MRS of ``name`` at ``el`` (1 to 3); acknowledging registers have their side effect.

        ``secure``: the Security state; at EL3 the opposite of SCR_EL3.NS. ``hcr``: HCR_EL2. ``rt``: number of
        the general register, for a trap's syndrome. Raises ``Undefined``, ``Trap``; ``ValueError`` for a name
        that is no register.
        """
        reg = BY_NAME.get(name) or lookup(name)
        twin = route(
            reg, el=el, secure=secure, hcr=hcr, scr=self.scr, ich_hcr=self.virtual.hcr, sre=self.sre.value, rt=rt,
            is_read=True,
        )  # fmt: skip
        reader = self._readers[twin].get(name)
        if reader is None:
            raise Undefined(name, el, "this implementation has fewer of them")
        return reader(el, secure)

    def snapshot(self) -> dict[str, int]:
        """Values as Non-secure EL2 reads them, EL3's own at EL3, without acknowledging anything; those that there are."""
        values = {}
        for reg in REGISTERS:
            if reg.access == "wo" or reg.name in ACKNOWLEDGING:
                continue
            try:
                values[reg.name] = self.read(reg.name, el=3 if reg.kind is Kind.EL3 else 2)
            except (Trap, Undefined):
                continue  # this PE lacks it, or it is closed to that level
        return values

    def write(self, name: str, value: int, *, el: int, secure: bool = False, hcr: int = 0, rt: int = 0) -> None:
        """MSR of ``name``; arguments and errors as for ``read``. ``value`` has 64 bits."""
        reg = BY_NAME.get(name) or lookup(name)
        twin = route(
            reg, el=el, secure=secure, hcr=hcr, scr=self.scr, ich_hcr=self.virtual.hcr, sre=self.sre.value, rt=rt,
            is_read=False,
        )  # fmt: skip
        writer = self._writers[twin].get(name)
        if writer is None:
            raise Undefined(name, el, "this implementation has fewer of them")
        if not 0 <= value < 1 << 64:
            raise ValueError(f"value of {name} must have 64 bits, not {value:#x}")
        writer(value, el, secure)

    def ich_image(self) -> tuple[int, ...]:
        """The guest's interrupt context, in the order of ``ich_image_fields``."""
        virtual, scheme = self.virtual, self.scheme
        return (
            virtual.hcr,
            virtual.read_vmcr(),
            *virtual.lr.values,
            *(scheme.word(active, n) for active in virtual.active for n in range(scheme.apr_count)),
        )

    def load_ich(self, image: Sequence[int]) -> None:
        """Load a guest's interrupt context; what is UNPREDICTABLE in it is counted as ``lr_unpredictable``."""
        if len(image) != len(self.ich_image_fields):
            raise ValueError(f"image must have {len(self.ich_image_fields)} words, not {len(image)}")
        writers = self._writers[ICH]
        for name, value in zip(self.ich_image_fields, image, strict=True):
            writers[name](value, 2, False)
        for text in self.virtual.lr.faults():
            self._report("lr_unpredictable", text)

    def _shifted(self, el: int, secure: bool) -> bool:
        """Does this access see priorities in the Non-secure view? (ICC_PMR_EL1, ICC_RPR_EL1)"""
        return self.two_security_states and el < 3 and not secure and bool(self.scr & SCR_FIQ)

    def _add_sre(self) -> None:
        """ICC_SRE_ELx, which belong to no group."""
        sre = self.sre
        self._readers[ICC]["ICC_SRE_EL1"] = lambda el, s: sre.value[s]
        self._readers[ICC]["ICC_SRE_EL2"] = lambda el, s: sre.value[2]
        self._readers[ICC]["ICC_SRE_EL3"] = lambda el, s: sre.value[3]
        self._writers[ICC]["ICC_SRE_EL1"] = lambda x, el, s: sre.write(int(s), x)
        self._writers[ICC]["ICC_SRE_EL2"] = lambda x, el, s: sre.write(2, x)
        self._writers[ICC]["ICC_SRE_EL3"] = lambda x, el, s: sre.write(3, x)
