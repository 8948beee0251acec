"""List registers: layout, what of a written value is kept, and the status that software reads from them.

Source: IHI 0069H ICH_LR<n>_EL2, ICH_EISR_EL2, ICH_ELRSR_EL2, ICH_MISR_EL2; behaviour on a missing list
register: ICH_HCR_EL2.EOIcount.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACTIVE", "ACTIVE_BIT", "EOI", "GROUP1", "HW", "INVALID", "PENDING", "PENDING_ACTIVE", "PENDING_BIT",
    "ListRegisters", "is_private_or_shared", "lr", "pintid", "priority", "state", "vintid",
]  # fmt: skip

PENDING_BIT: Final = 1 << 62
ACTIVE_BIT: Final = 1 << 63
HW: Final = 1 << 61
GROUP1: Final = 1 << 60
EOI: Final = 1 << 41

INVALID: Final = 0
PENDING: Final = 1
ACTIVE: Final = 2
PENDING_ACTIVE: Final = 3

_PINTID_MASK: Final = 0x1FFF << 32


def state(value: int) -> int:
    """``INVALID``, ``PENDING``, ``ACTIVE`` or ``PENDING_ACTIVE``."""
    return value >> 62


def priority(value: int) -> int:
    """Priority, 8 bits."""
    return value >> 48 & 0xFF


def vintid(value: int) -> int:
    """INTID that the guest sees."""
    return value & 0xFFFFFFFF


def pintid(value: int) -> int:
    """Physical INTID; meaningful with HW=1 only."""
    return value >> 32 & 0x1FFF


def is_private_or_shared(intid: int) -> bool:
    """PPIs and SPIs, the extended ranges included: what HW=1 may name."""
    return 16 <= intid <= 1019 or 1056 <= intid <= 1119 or 4096 <= intid <= 5119


def lr(
    vint: int, prio: int, *, group: int = 1, lr_state: int = PENDING, pint: int | None = None, eoi: bool = False
) -> int:
    """A list register's value; ``pint`` makes it HW=1, ``eoi`` asks for a maintenance interrupt on EOI."""
    value = lr_state << 62 | group << 60 | prio << 48 | vint
    if pint is not None:
        return value | HW | pint << 32
    return value | (EOI if eoi else 0)


class ListRegisters:
    """The values of ICH_LR<n>_EL2 and the searches over them. ``pri_mask`` and ``id_bits`` decide what is kept."""

    __slots__ = ("_common", "values")

    def __init__(self, count: int, pri_mask: int, id_bits: int) -> None:
        if not 1 <= count <= 16:
            raise ValueError(f"list_registers must be 1 to 16, not {count!r}")
        self.values = [0] * count
        self._common = 3 << 62 | HW | GROUP1 | pri_mask << 48 | ((1 << id_bits) - 1)

    def write(self, n: int, value: int) -> None:
        """Store the implemented bits; the others, NMI among them, are RES0."""
        self.values[n] = value & (self._common | (_PINTID_MASK if value & HW else EOI))

    def best_pending(self, enabled: tuple[bool, bool]) -> int:
        """Number of the pending list register of highest priority in an enabled group, the first of equals; or -1.

        ``enabled`` is by group. Priority 0xFF is never reported, state pending and active neither.
        """
        best, best_priority = -1, 0xFF
        for n, value in enumerate(self.values):
            if value >> 62 == PENDING and enabled[value >> 60 & 1]:
                prio = value >> 48 & 0xFF
                if prio < best_priority:
                    best, best_priority = n, prio
        return best

    def find_active(self, intid: int) -> int:
        """Number of the list register in which virtual ``intid`` is active (or active and pending), or -1."""
        for n, value in enumerate(self.values):
            if value & ACTIVE_BIT and value & 0xFFFFFFFF == intid:
                return n
        return -1

    def eisr(self) -> int:
        """ICH_EISR_EL2: bit n when list register n ended with an EOI maintenance interrupt to be taken."""
        return sum(1 << n for n, value in enumerate(self.values) if not value >> 62 and value & (HW | EOI) == EOI)

    def elrsr(self) -> int:
        """ICH_ELRSR_EL2: bit n when list register n can be used again."""
        return sum(1 << n for n, value in enumerate(self.values) if not value >> 62 and value & (HW | EOI) != EOI)

    def valid_count(self) -> int:
        """How many are in a state other than invalid."""
        return sum(1 for value in self.values if value >> 62)

    def any_pending(self) -> bool:
        """Is one in state pending (pending and active does not count)?"""
        return any(value >> 62 == PENDING for value in self.values)

    def faults(self) -> list[str]:
        """Contents for which the architecture says UNPREDICTABLE, as texts; checked when a context is loaded."""
        found: list[str] = []
        seen: dict[int, int] = {}
        for n, value in enumerate(self.values):
            if not value >> 62:
                continue
            first = seen.setdefault(vintid(value), n)
            if first != n:
                found.append(f"ICH_LR{n}_EL2 must not repeat vINTID {vintid(value)} of ICH_LR{first}_EL2")
            if value & HW and state(value) == PENDING_ACTIVE:
                found.append(f"ICH_LR{n}_EL2 with HW=1 must not be pending and active: {value:#018x}")
            if value & HW and not is_private_or_shared(pintid(value)):
                found.append(f"ICH_LR{n}_EL2 with HW=1 must have a PPI or SPI as pINTID, not {pintid(value)}")
        return found
