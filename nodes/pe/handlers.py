"""What each System register's read and write does: tables from name to function.

Readers take ``(el, secure)``, writers ``(value, el, secure)``. An ICC name has one entry in the physical tables
and one in the virtual ones; ``access.route`` has decided which is used. A register that is not in a table does
not exist in this implementation (AP0R1 with 5 preemption bits, LR4 with 4 list registers).
"""

from __future__ import annotations

from collections.abc import Callable

from nodes.arch.groups import GROUP0, GROUP1_NS, GROUP1_S
from nodes.pe.physical_interface import PhysicalInterface
from nodes.pe.virtual_interface import VirtualInterface

__all__ = ["Read", "Readers", "Write", "Writers", "icc_readers", "icc_writers", "ich_readers", "ich_writers",
           "icv_readers", "icv_writers"]  # fmt: skip

Read = Callable[[int, bool], int]
Write = Callable[[int, int, bool], None]
Readers = dict[str, Read]
Writers = dict[str, Write]


def icc_readers(p: PhysicalInterface, shifted: Callable[[int, bool], bool]) -> Readers:
    """ICC registers. ``shifted(el, secure)``: does that access see priorities in the Non-secure view?"""
    table: Readers = {
        "ICC_PMR_EL1": lambda el, s: p.read_pmr(shifted(el, s)),
        "ICC_RPR_EL1": lambda el, s: p.read_rpr(shifted(el, s)),
        "ICC_IAR0_EL1": lambda el, s: p.acknowledge(0, el, s),
        "ICC_IAR1_EL1": lambda el, s: p.acknowledge(1, el, s),
        "ICC_HPPIR0_EL1": lambda el, s: p.highest_pending(0, el, s),
        "ICC_HPPIR1_EL1": lambda el, s: p.highest_pending(1, el, s),
        "ICC_BPR0_EL1": lambda el, s: p.binary[GROUP0],
        "ICC_BPR1_EL1": p.read_bpr1,
        "ICC_CTLR_EL1": lambda el, s: p.read_ctlr(s),
        "ICC_CTLR_EL3": lambda el, s: p.read_ctlr_el3(),
        "ICC_IGRPEN0_EL1": lambda el, s: int(p.enabled[GROUP0]),
        "ICC_IGRPEN1_EL1": lambda el, s: int(p.enabled[p.bank(s)]),
        "ICC_IGRPEN1_EL3": lambda el, s: int(p.enabled[GROUP1_NS]) | int(p.enabled[GROUP1_S]) << 1,
    }

    def active(n: int) -> None:
        table[f"ICC_AP0R{n}_EL1"] = lambda el, s: p.scheme.word(p.active[GROUP0], n)
        table[f"ICC_AP1R{n}_EL1"] = lambda el, s: p.scheme.word(p.active[p.bank(s)], n)

    for n in range(p.scheme.apr_count):
        active(n)
    return table


def icc_writers(p: PhysicalInterface, shifted: Callable[[int, bool], bool]) -> Writers:
    """ICC registers, the SGI registers among them; arguments as for ``icc_readers``."""
    table: Writers = {
        "ICC_PMR_EL1": lambda x, el, s: p.write_pmr(x, shifted(el, s)),
        "ICC_EOIR0_EL1": lambda x, el, s: p.end_of_interrupt(0, x, el, s),
        "ICC_EOIR1_EL1": lambda x, el, s: p.end_of_interrupt(1, x, el, s),
        "ICC_DIR_EL1": p.deactivate,
        "ICC_BPR0_EL1": lambda x, el, s: p.write_bpr0(x),
        "ICC_BPR1_EL1": p.write_bpr1,
        "ICC_CTLR_EL1": lambda x, el, s: p.write_ctlr(x, s),
        "ICC_CTLR_EL3": lambda x, el, s: p.write_ctlr_el3(x),
        "ICC_IGRPEN0_EL1": lambda x, el, s: p.write_enable(GROUP0, x),
        "ICC_IGRPEN1_EL1": lambda x, el, s: p.write_enable(p.bank(s), x),
        "ICC_IGRPEN1_EL3": lambda x, el, s: p.write_enables_el3(x),
        "ICC_SGI1R_EL1": lambda x, el, s: p.generate_sgi("SGI1R", x, s),
        "ICC_ASGI1R_EL1": lambda x, el, s: p.generate_sgi("ASGI1R", x, s),
        "ICC_SGI0R_EL1": lambda x, el, s: p.generate_sgi("SGI0R", x, s),
    }

    def active(n: int) -> None:
        table[f"ICC_AP0R{n}_EL1"] = lambda x, el, s: p.write_active(GROUP0, n, x)
        table[f"ICC_AP1R{n}_EL1"] = lambda x, el, s: p.write_active(p.bank(s), n, x)

    for n in range(p.scheme.apr_count):
        active(n)
    return table


def icv_readers(v: VirtualInterface, ids: int) -> Readers:
    """The virtual twins, under their ICC names. ``ids``: read-only fields of ICV_CTLR_EL1."""
    table: Readers = {
        "ICC_PMR_EL1": lambda el, s: v.pmr,
        "ICC_RPR_EL1": lambda el, s: v.running(),
        "ICC_CTLR_EL1": lambda el, s: ids | int(v.cbpr) | int(v.eoimode) << 1,
    }

    def of_group(g: int) -> None:
        table[f"ICC_IAR{g}_EL1"] = lambda el, s: v.acknowledge(g)
        table[f"ICC_HPPIR{g}_EL1"] = lambda el, s: v.highest_pending(g)
        table[f"ICC_BPR{g}_EL1"] = lambda el, s: v.read_bpr(g)
        table[f"ICC_IGRPEN{g}_EL1"] = lambda el, s: int(v.enabled[g])

    def active(g: int, n: int) -> None:
        table[f"ICC_AP{g}R{n}_EL1"] = lambda el, s: v.scheme.word(v.active[g], n)

    for g in (0, 1):
        of_group(g)
        for n in range(v.scheme.apr_count):
            active(g, n)
    return table


def icv_writers(v: VirtualInterface) -> Writers:
    """The virtual twins, under their ICC names."""
    table: Writers = {
        "ICC_PMR_EL1": lambda x, el, s: v.write_pmr(x),
        "ICC_CTLR_EL1": lambda x, el, s: v.write_ctlr(x),
        "ICC_DIR_EL1": lambda x, el, s: v.deactivate(x),
    }

    def of_group(g: int) -> None:
        table[f"ICC_EOIR{g}_EL1"] = lambda x, el, s: v.end_of_interrupt(g, x)
        table[f"ICC_BPR{g}_EL1"] = lambda x, el, s: v.write_bpr(g, x)
        table[f"ICC_IGRPEN{g}_EL1"] = lambda x, el, s: v.write_enable(g, x)

    def active(g: int, n: int) -> None:
        table[f"ICC_AP{g}R{n}_EL1"] = lambda x, el, s: v.write_active(g, n, x)

    for g in (0, 1):
        of_group(g)
        for n in range(v.scheme.apr_count):
            active(g, n)
    return table


def ich_readers(v: VirtualInterface, vtr: int) -> Readers:
    """ICH registers. ``vtr``: ICH_VTR_EL2."""
    table: Readers = {
        "ICH_HCR_EL2": lambda el, s: v.hcr,
        "ICH_VTR_EL2": lambda el, s: vtr,
        "ICH_MISR_EL2": lambda el, s: v.misr(),
        "ICH_EISR_EL2": lambda el, s: v.lr.eisr(),
        "ICH_ELRSR_EL2": lambda el, s: v.lr.elrsr(),
        "ICH_VMCR_EL2": lambda el, s: v.read_vmcr(),
    }

    def list_register(n: int) -> None:
        table[f"ICH_LR{n}_EL2"] = lambda el, s: v.lr.values[n]

    def active(n: int) -> None:
        table[f"ICH_AP0R{n}_EL2"] = lambda el, s: v.scheme.word(v.active[0], n)
        table[f"ICH_AP1R{n}_EL2"] = lambda el, s: v.scheme.word(v.active[1], n)

    for n in range(len(v.lr.values)):
        list_register(n)
    for n in range(v.scheme.apr_count):
        active(n)
    return table


def ich_writers(v: VirtualInterface) -> Writers:
    """ICH registers."""
    table: Writers = {
        "ICH_HCR_EL2": lambda x, el, s: v.write_hcr(x),
        "ICH_VMCR_EL2": lambda x, el, s: v.write_vmcr(x),
    }

    def list_register(n: int) -> None:
        table[f"ICH_LR{n}_EL2"] = lambda x, el, s: v.write_lr(n, x)

    def active(n: int) -> None:
        table[f"ICH_AP0R{n}_EL2"] = lambda x, el, s: v.write_active(0, n, x)
        table[f"ICH_AP1R{n}_EL2"] = lambda x, el, s: v.write_active(1, n, x)

    for n in range(len(v.lr.values)):
        list_register(n)
    for n in range(v.scheme.apr_count):
        active(n)
    return table
