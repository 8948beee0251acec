"""Who may reach which register of the CPU interface: UNDEFINED, traps, ICC or ICV.

The order of the checks is that of the registers' accessibility pseudocode: SRE of the current Exception level,
then traps to EL2 (ICH_HCR_EL2), then the virtual twin (HCR_EL2.FMO and IMO), then traps to EL3 (SCR_EL3).

Secure EL2 is not modelled: an access at Secure EL1 is neither trapped to EL2 nor virtual. HCR_EL2.NV is not
modelled either: ICH_ registers are UNDEFINED at EL1.

Source: IHI 0069H chapter 12, accessibility of each register; Arm ARM, HCR_EL2, SCR_EL3.
"""

from __future__ import annotations

from typing import Final

from nodes.pe.regs import EC_SYSREG, Kind, SysReg, esr_for_sysreg, iss_for_sysreg

__all__ = [
    "HCR_FMO", "HCR_IMO", "ICC", "ICH", "ICV", "SCR_FIQ", "SCR_IRQ", "SreRegisters", "Trap", "Undefined", "route",
]  # fmt: skip

HCR_FMO: Final = 1 << 3
HCR_IMO: Final = 1 << 4
SCR_IRQ: Final = 1 << 1
SCR_FIQ: Final = 1 << 2

TC: Final = 1 << 10
TALL0: Final = 1 << 11
TALL1: Final = 1 << 12
TDIR: Final = 1 << 14

SRE_ENABLE: Final = 1 << 3

ICC: Final = 0
ICV: Final = 1
ICH: Final = 2


class Undefined(Exception):
    """The access is UNDEFINED at this Exception level: the PE takes an exception with EC 0x00 to its own EL."""

    def __init__(self, name: str, el: int, why: str) -> None:
        self.name = name
        self.el = el
        super().__init__(f"{name} is UNDEFINED at EL{el}: {why}")


class Trap(Exception):
    """The access traps: ``target_el`` (1 to 3) gets ``esr``, made of ``ec`` (0x18), IL 1 and ``iss``."""

    def __init__(self, name: str, target_el: int, rt: int, is_read: bool, why: str) -> None:
        self.name = name
        self.target_el = target_el
        self.ec = EC_SYSREG
        self.iss = iss_for_sysreg(name, rt, is_read)
        self.esr = esr_for_sysreg(name, rt, is_read)
        super().__init__(f"{'read' if is_read else 'write'} of {name} traps to EL{target_el}: {why}")


# Kind -> (ICH_HCR_EL2 trap bits, HCR_EL2 bits that select the virtual twin, SCR_EL3 bits that must all be set
# for a trap to EL3)
_RULES: Final[dict[Kind, tuple[int, int, int]]] = {
    Kind.GROUP0: (TALL0, HCR_FMO, SCR_FIQ),
    Kind.GROUP1: (TALL1, HCR_IMO, SCR_IRQ),
    Kind.COMMON: (TC, HCR_FMO | HCR_IMO, SCR_IRQ | SCR_FIQ),
    Kind.DIR: (TC | TDIR, HCR_FMO | HCR_IMO, SCR_IRQ | SCR_FIQ),
    Kind.SGI: (TC, HCR_FMO | HCR_IMO, SCR_IRQ | SCR_FIQ),
}


def route(
    reg: SysReg, *, el: int, secure: bool, hcr: int, scr: int, ich_hcr: int, sre: tuple[int, int, int, int],
    rt: int, is_read: bool,
) -> int:  # fmt: skip
    """``ICC``, ``ICV`` or ``ICH`` for a permitted access; raises ``Undefined`` or ``Trap`` otherwise.

    ``sre`` holds ICC_SRE_EL1 of the Non-secure and the Secure state, ICC_SRE_EL2 and ICC_SRE_EL3; ``hcr`` is
    HCR_EL2, ``scr`` SCR_EL3, ``ich_hcr`` ICH_HCR_EL2. ``secure`` is the Security state below EL3.
    """
    if reg.access == ("wo" if is_read else "ro"):
        raise Undefined(reg.name, el, f"it is {'write' if is_read else 'read'}-only")
    if el not in (1, 2, 3):
        raise Undefined(reg.name, el, "the CPU interface needs EL1 or higher")
    kind = reg.kind
    rule = _RULES.get(kind)
    if rule is None:
        return _route_control(reg, el, secure, sre, rt, is_read)
    own = sre[el] if el > 1 else sre[secure]
    if not own & 1:
        raise Trap(reg.name, el, rt, is_read, f"ICC_SRE_EL{el}.SRE is 0")
    if el == 3:
        return ICC
    traps, virtual, monitor = rule
    if el == 1 and not secure:
        if ich_hcr & traps:
            raise Trap(reg.name, 2, rt, is_read, f"ICH_HCR_EL2 {ich_hcr & traps:#x} is set")
        if hcr & virtual:
            if kind is Kind.SGI:
                raise Trap(reg.name, 2, rt, is_read, "HCR_EL2.IMO or FMO is 1 and there is no virtual SGI register")
            return ICV
    if scr & monitor == monitor:
        raise Trap(reg.name, 3, rt, is_read, f"SCR_EL3 {scr & monitor:#x} is set")
    return ICC


def _route_control(reg: SysReg, el: int, secure: bool, sre: tuple[int, int, int, int], rt: int, is_read: bool) -> int:
    """The registers that SRE itself, EL2 and EL3 own."""
    kind = reg.kind
    if kind is Kind.ABSENT:
        raise Undefined(reg.name, el, "this CPU interface does not implement it")
    lowest = {Kind.SRE_EL1: 1, Kind.SRE_EL2: 2, Kind.ICH: 2, Kind.EL3: 3}[kind]
    if el < lowest:
        raise Undefined(reg.name, el, f"it needs EL{lowest}")
    if kind is Kind.ICH:
        if not sre[el] & 1:
            raise Trap(reg.name, el, rt, is_read, f"ICC_SRE_EL{el}.SRE is 0")
        return ICH
    if kind in (Kind.SRE_EL1, Kind.SRE_EL2):
        for above in range(el + 1, 4):
            if not sre[above] & SRE_ENABLE and not (secure and above == 2):
                raise Trap(reg.name, above, rt, is_read, f"ICC_SRE_EL{above}.Enable is 0")
    elif reg.name != "ICC_SRE_EL3" and not sre[3] & 1:
        raise Trap(reg.name, 3, rt, is_read, "ICC_SRE_EL3.SRE is 0")
    return ICC


class SreRegisters:
    """ICC_SRE_EL1 (one per Security state), ICC_SRE_EL2, ICC_SRE_EL3.

    Not ``writable``: there is no memory-mapped CPU interface, SRE, DFB, DIB and Enable are RAO/WI. Writable: 0 at
    reset; SRE of a level is RAZ/WI while that of a higher one is 0, and EL3 owns DFB and DIB with two Security
    states. SRE = 0 makes every other register of that level trap, for there is nothing behind it.
    """

    __slots__ = ("_stored", "_two_states", "_writable", "value")

    def __init__(self, writable: bool, two_states: bool) -> None:
        self._writable = writable
        self._two_states = two_states
        self.reset()

    def reset(self) -> None:
        """Reset values."""
        self._stored = [0, 0, 0, 0] if self._writable else [0x7, 0x7, 0xF, 0xF]
        self._derive()

    def write(self, which: int, value: int) -> None:
        """``which``: 0 ICC_SRE_EL1 Non-secure, 1 Secure, 2 ICC_SRE_EL2, 3 ICC_SRE_EL3."""
        if not self._writable:
            return
        self._stored[which] = value & (0xF if which >= 2 else 0x7)
        if not self._two_states and which != 3:
            self._stored[3] = self._stored[3] & ~0x6 | value & 0x6
        self._derive()

    def _derive(self) -> None:
        nonsecure, secure, el2, el3 = self._stored
        bypass = el3 & 0x6
        el2 = el2 & 0x8 | bypass | el2 & el3 & 1
        self.value = (bypass | nonsecure & el2 & 1, bypass | secure & el3 & 1, el2, el3)
