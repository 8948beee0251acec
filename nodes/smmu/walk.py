"""Translation table walks of both stages, and what is cached of them (VMSAv8-64, DDI 0487 chapter D8; IHI 0070 chapter 3.4).

All descriptors are fetched from simulated memory. A walk that began before an invalidation serves its transaction and is not
cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from nodes.smmu.events import CLASS_IN, Event, Fault

PS_BITS = (32, 36, 40, 42, 44, 48, 52)
GRANULES = (12, 14, 16)
"""Page sizes as powers of two: 4, 16 and 64 KiB."""
LEAF_LEVELS = {12: (1, 2, 3), 14: (2, 3), 16: (2, 3)}
TLB_ENTRIES = 1024
GLOBAL = -1
"""ASID of a translation that holds for all address spaces (nG = 0)."""
READ, WRITE, EXECUTE = 1, 2, 4
USER, PRIVILEGED = 0, 3
"""Position of an unprivileged and of a privileged access's rights in `Leaf.rights`."""
DEVICE = 1 << 6
VALID, TABLE = 1, 0b11
AP_USER, AP_READ_ONLY, AF, NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 10, 1 << 11
S2AP_READ, S2AP_WRITE = 1 << 6, 1 << 7
PXN, UXN = 1 << 53, 1 << 54
PXN_TABLE, UXN_TABLE, AP_TABLE_NO_USER, AP_TABLE_NO_WRITE = 1 << 59, 1 << 60, 1 << 61, 1 << 62
ADDRESS = 0xFFFF_FFFF_F000

Fetch = Callable[[int], Awaitable[int]]


def bits(value: int, hi: int, lo: int) -> int:
    """Bits [hi:lo]."""
    return value >> lo & ((1 << (hi - lo + 1)) - 1)


class Regime(NamedTuple):
    """One set of tables. `granule` is the page's power of two, `start` the level of the table at `ttb`; sizes in address bits.

    `access_flag`: a clear AF faults. `hierarchical`: table descriptors limit what is below (stage 1). `wxn`: writable means not
    executable. `pan`: privileged data accesses may not reach what is accessible to unprivileged ones.
    """

    stage: int
    granule: int
    input_bits: int
    output_bits: int
    start: int
    ttb: int
    access_flag: bool = True
    hierarchical: bool = False
    wxn: bool = False
    pan: bool = False

    def shift(self, level: int) -> int:
        """Address bit at which the index of a level starts."""
        return self.granule + (3 - level) * (self.granule - 3)


def start_level(granule: int, input_bits: int) -> int:
    """Level at which a stage-1 walk starts."""
    stride = granule - 3
    return 4 - -(-(input_bits - granule) // stride)


class Leaf(NamedTuple):
    """A translation of 2^shift bytes; `rights` has READ, WRITE, EXECUTE at USER and at PRIVILEGED, and DEVICE."""

    shift: int
    base: int
    rights: int
    globally: bool = False

    def address(self, address: int) -> int:
        """Output address of an input address that it covers."""
        return self.base | address & ((1 << self.shift) - 1)


class Tlb:
    """Translations of one stage by VMID and ASID; the oldest of `TLB_ENTRIES` goes when another comes."""

    def __init__(self) -> None:
        self.generation = 0
        self._entries: OrderedDict[tuple[int, int, int, int], Leaf] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, vmid: int, asid: int, address: int, granule: int) -> Leaf | None:
        """The translation that covers an address, with this ASID or for all."""
        stride = granule - 3
        for shift in (granule, granule + stride, granule + 2 * stride):
            for tag in (asid, GLOBAL):
                leaf = self._entries.get((vmid, tag, shift, address >> shift))
                if leaf is not None:
                    return leaf
        return None

    def add(self, vmid: int, asid: int, address: int, leaf: Leaf, generation: int) -> None:
        """Cache the result of a walk that began at `generation`, unless something was invalidated since."""
        if generation != self.generation:
            return
        self._entries[vmid, GLOBAL if leaf.globally else asid, leaf.shift, address >> leaf.shift] = leaf
        if len(self._entries) > TLB_ENTRIES:
            self._entries.popitem(last=False)

    def invalidate(self, *, vmid: int | None = None, asid: int | None = None, address: int | None = None) -> None:
        """Drop what matches all that is given. By ASID alone, global entries stay; by ASID and address they go too."""
        self.generation += 1

        def gone(key: tuple[int, int, int, int]) -> bool:
            v, a, shift, page = key
            if vmid is not None and v != vmid:
                return False
            if asid is not None and a != asid and not (a == GLOBAL and address is not None):
                return False
            return address is None or page == address >> shift

        for key in [key for key in self._entries if gone(key)]:
            del self._entries[key]


async def walk(regime: Regime, address: int, fetch: Fetch, *, klass: int = CLASS_IN) -> Leaf:
    """Walk the tables for an input address of at most `input_bits` bits.

    Args:
        fetch: reads a descriptor at an address of the table's own address space.
        klass: what the address is for, as the record of a fault has it.

    Raises:
        Fault: translation, address size or access flag fault, or what `fetch` raises.
    """

    def fault(event: Event, why: str) -> Fault:
        made = Fault(event, f"stage {regime.stage}: {why}", stage2=regime.stage == 2, klass=klass)
        return made.at_ipa(address) if regime.stage == 2 else made

    table, limits = regime.ttb, 0
    for level in range(regime.start, 4):
        shift = regime.shift(level)
        top = regime.input_bits if level == regime.start else shift + regime.granule - 3
        descriptor = await fetch(table + 8 * (address >> shift & (1 << top - shift) - 1))
        is_table = descriptor & TABLE == TABLE and level < 3
        is_leaf = descriptor & TABLE == (TABLE if level == 3 else VALID) and level in LEAF_LEVELS[regime.granule]
        if not is_table and not is_leaf:
            raise fault(Event.F_TRANSLATION, f"{address:#x} is not mapped (level {level}, descriptor {descriptor:#x})")
        output = descriptor & ADDRESS & ~((1 << (regime.granule if is_table else shift)) - 1)
        if output >> regime.output_bits:
            raise fault(Event.F_ADDR_SIZE, f"address in {descriptor:#x} must have {regime.output_bits} bits")
        if is_table:
            table = output
            limits |= descriptor if regime.hierarchical else 0
            continue
        if not descriptor & AF and regime.access_flag:
            raise fault(Event.F_ACCESS, f"access flag of {address:#x} must be set ({descriptor:#x})")
        rights = _rights1(regime, descriptor, limits) if regime.stage == 1 else _rights2(descriptor)
        return Leaf(shift, output, rights, regime.stage == 1 and not descriptor & NOT_GLOBAL)
    raise AssertionError("level 3 is a leaf or a fault")


def _rights1(regime: Regime, descriptor: int, limits: int) -> int:
    user = bool(descriptor & AP_USER) and not limits & AP_TABLE_NO_USER
    writable = not descriptor & AP_READ_ONLY and not limits & AP_TABLE_NO_WRITE
    privileged_x = not (descriptor & PXN or limits & PXN_TABLE or (user and writable))
    user_x = not (descriptor & UXN or limits & UXN_TABLE)
    if regime.wxn and writable:
        privileged_x = False
        user_x = user_x and not user
    data = READ | (WRITE if writable else 0)
    rights = (data if user else 0) | (EXECUTE if user_x else 0)
    privileged = 0 if regime.pan and user else data
    return rights << USER | (privileged | (EXECUTE if privileged_x else 0)) << PRIVILEGED


def _rights2(descriptor: int) -> int:
    rights = (READ if descriptor & S2AP_READ else 0) | (WRITE if descriptor & S2AP_WRITE else 0)
    rights |= EXECUTE if descriptor & S2AP_READ and not descriptor & UXN else 0
    device = 0 if bits(descriptor, 5, 4) else DEVICE
    return rights << USER | rights << PRIVILEGED | device
