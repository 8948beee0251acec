"""Stream table entries, stage-2 table walks, and what is cached of both (IHI 0070 chapters 3 and 5; VMSAv8-64 stage 2).

All of it is fetched from simulated memory. An invalidation also reaches what is being fetched: a walk that began before it
serves its transaction and is not cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from cosim.api import OKAY, Bank, MmioInitiator
from nodes.smmu.events import CLASS_TT, Event, Fault

STE_SIZE, L1_DESC_SIZE = 64, 8
FETCH_ATTR = 3
"""Non-secure, privileged data."""
CONFIG_ABORT, CONFIG_BYPASS, CONFIG_STAGE2 = 0b000, 0b100, 0b110
FMT_LINEAR, FMT_2LEVEL = 0, 1
PS_BITS = (32, 36, 40, 42, 44, 48, 52)
SHIFTS = (39, 30, 21, 12)
"""Address bit at which the index of each level starts, 4 KiB granule."""
LEAF_SHIFTS = (12, 21, 30)
TLB_ENTRIES = 1024
S2AP_READ, S2AP_WRITE, AF = 1 << 6, 1 << 7, 1 << 10
ADDRESS = 0xFFFF_FFFF_F000


def bits(value: int, hi: int, lo: int) -> int:
    """Bits [hi:lo]."""
    return value >> lo & ((1 << (hi - lo + 1)) - 1)


class Ste(NamedTuple):
    """What a valid stream table entry says. Sizes in address bits; `start` is the level where stage-2 walks start."""

    config: int
    vmid: int = 0
    ttb: int = 0
    input_bits: int = 0
    output_bits: int = 0
    start: int = 0
    access_flag: bool = True
    record: bool = True


def parse_ste(data: bytes, oas: int) -> Ste:
    """Decode the 64 bytes of an STE for an SMMU with `oas` bits of output address, stage 2 only, 4 KiB granule.

    Raises:
        Fault: C_BAD_STE, for an entry that is not valid or asks for what this SMMU does not have.
    """
    word = [int.from_bytes(data[n : n + 8], "little") for n in range(0, 32, 8)]
    if not word[0] & 1:
        raise Fault(Event.C_BAD_STE, "STE.V is 0")
    config = bits(word[0], 3, 1)
    if not config & 0b100:
        return Ste(CONFIG_ABORT)
    if config == CONFIG_BYPASS:
        return Ste(config)
    if config != CONFIG_STAGE2:
        raise Fault(Event.C_BAD_STE, f"STE.Config must be 0, 4 or 6 (no stage 1), not {config}")
    return _parse_stage2(word[2], word[3], oas)


def _parse_stage2(low: int, high: int, oas: int) -> Ste:
    input_bits = 64 - bits(low, 37, 32)
    start = 2 - bits(low, 39, 38)
    indexed = input_bits - SHIFTS[start] if start >= 0 else 0
    ttb = high & 0xF_FFFF_FFFF_FFF0
    wrong = [
        (not bits(low, 51, 51), "S2AA64 must be 1"),
        (bits(low, 47, 46) != 0, "S2TG must be 0 (4 KiB)"),
        (bits(low, 52, 52) != 0, "S2ENDI must be 0"),
        (bits(low, 56, 55) != 0, "S2HA and S2HD must be 0 (no hardware update)"),
        (bits(low, 57, 57) != 0, "S2S must be 0 (no stall)"),
        (not 25 <= input_bits <= 48, "S2T0SZ must be in 16..39"),
        (not 1 <= indexed <= 13, "S2SL0 must fit S2T0SZ, with at most 16 concatenated tables"),
        (ttb >> oas != 0, "S2TTB must lie within the output address size"),
    ]
    for bad, why in wrong:
        if bad:
            raise Fault(Event.C_BAD_STE, f"{why} (STE DW2 {low:#x}, DW3 {high:#x})")
    output_bits = min(oas, PS_BITS[min(bits(low, 50, 48), len(PS_BITS) - 1)])
    table = ttb & ~((8 << indexed) - 1)
    return Ste(
        CONFIG_STAGE2,
        bits(low, 15, 0),
        table,
        input_bits,
        output_bits,
        start,
        not bits(low, 53, 53),
        bool(bits(low, 58, 58)),
    )


class Leaf(NamedTuple):
    """A translation of 2^shift bytes."""

    shift: int
    base: int
    read: bool
    write: bool


class Tlb:
    """Stage-2 translations by VMID; the oldest of `TLB_ENTRIES` goes when another comes."""

    def __init__(self) -> None:
        self.generation = 0
        self._entries: OrderedDict[tuple[int, int, int], Leaf] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, vmid: int, ipa: int) -> Leaf | None:
        """The translation that covers an IPA."""
        for shift in LEAF_SHIFTS:
            leaf = self._entries.get((vmid, shift, ipa >> shift))
            if leaf is not None:
                return leaf
        return None

    def add(self, vmid: int, ipa: int, leaf: Leaf, generation: int) -> None:
        """Cache the result of a walk that began at `generation`, unless something was invalidated since."""
        if generation != self.generation:
            return
        self._entries[vmid, leaf.shift, ipa >> leaf.shift] = leaf
        if len(self._entries) > TLB_ENTRIES:
            self._entries.popitem(last=False)

    def invalidate(self, gone: Callable[[int, int, int], bool]) -> None:
        """Drop the entries for which gone(vmid, shift, page number) holds."""
        self.generation += 1
        for key in [key for key in self._entries if gone(*key)]:
            del self._entries[key]

    def invalidate_all(self) -> None:
        """TLBI_NSNH_ALL."""
        self.invalidate(lambda vmid, shift, page: True)

    def invalidate_vmid(self, vmid: int) -> None:
        """TLBI_S12_VMALL."""
        self.invalidate(lambda v, shift, page: v == vmid)

    def invalidate_ipa(self, vmid: int, ipa: int) -> None:
        """TLBI_S2_IPA: the entry that covers the address, whatever its size."""
        self.invalidate(lambda v, shift, page: v == vmid and page == ipa >> shift)


class StreamTable:
    """Looks StreamIDs up in the stream table, linear or two-level, and caches valid entries."""

    def __init__(self, bank: Bank, bus: MmioInitiator, sid_bits: int, oas: int) -> None:
        self._bank = bank
        self._bus = bus
        self._sid_bits = sid_bits
        self._oas = oas
        self._cache: dict[int, Ste] = {}
        self._generation = 0

    async def lookup(self, sid: int) -> Ste:
        """The entry of a stream. Raises Fault."""
        ste = self._cache.get(sid)
        if ste is not None:
            return ste
        generation = self._generation
        address = await self._address(sid)
        ste = parse_ste(await self._fetch(address, STE_SIZE), self._oas)
        if generation == self._generation:
            self._cache[sid] = ste
        return ste

    async def _address(self, sid: int) -> int:
        config = self._bank["SMMU_STRTAB_BASE_CFG"]
        log2, split, form = bits(config, 5, 0), bits(config, 10, 6), bits(config, 17, 16)
        if sid >> min(log2, self._sid_bits):
            raise Fault(Event.C_BAD_STREAMID, f"StreamID must have {log2} bits, not {sid:#x}")
        base = self._bank["SMMU_STRTAB_BASE"] & 0xF_FFFF_FFFF_FFC0
        if form == FMT_LINEAR:
            return (base & ~((STE_SIZE << log2) - 1)) + sid * STE_SIZE
        if form != FMT_2LEVEL or split not in (6, 8, 10):
            raise Fault(Event.C_BAD_STREAMID, f"STRTAB_BASE_CFG must be linear or split at 6, 8 or 10, not {config:#x}")
        if log2 > split:
            base &= ~max((L1_DESC_SIZE << log2 - split) - 1, 0x3F)
        descriptor = int.from_bytes(await self._fetch(base + (sid >> split) * L1_DESC_SIZE, L1_DESC_SIZE), "little")
        span, index = bits(descriptor, 4, 0), sid & (1 << split) - 1
        if not span or span - 1 > split or index >> span - 1:
            raise Fault(Event.C_BAD_STREAMID, f"level 1 descriptor {descriptor:#x} must cover StreamID {sid:#x}")
        level2 = descriptor & 0xF_FFFF_FFFF_FFC0 & ~((STE_SIZE << span - 1) - 1)
        return level2 + index * STE_SIZE

    async def _fetch(self, address: int, size: int) -> bytes:
        status, data = await self._bus.issue(address, size, None, FETCH_ATTR)
        if status != OKAY:
            raise Fault(Event.F_STE_FETCH, f"stream table fetch from {address:#x} was aborted").at_fetch(address)
        return data.to_bytes(size, "little") if isinstance(data, int) else bytes(data)

    def invalidate(self, first: int, last: int) -> None:
        """CFGI_STE, CFGI_STE_RANGE, CFGI_ALL: drop the entries of StreamIDs first..last."""
        self._generation += 1
        for sid in [sid for sid in self._cache if first <= sid <= last]:
            del self._cache[sid]


class Stage2:
    """Walks stage-2 tables."""

    def __init__(self, bus: MmioInitiator, tlb: Tlb, count: Callable[[str], None], oas: int) -> None:
        self._bus = bus
        self._tlb = tlb
        self._count = count
        self._oas = oas

    async def translate(self, ste: Ste, ipa: int, write: bool) -> int:
        """Physical address of an access to `ipa`.

        Raises:
            Fault: translation, address size, access flag or permission fault, or an aborted fetch.
        """
        if ipa >> self._oas:
            raise Fault(Event.F_ADDR_SIZE, f"input address must have {self._oas} bits, not {ipa:#x}")
        leaf = self._tlb.find(ste.vmid, ipa)
        if leaf is None:
            generation = self._tlb.generation
            self._count("tlb_misses")
            leaf = await self._walk(ste, ipa)
            self._tlb.add(ste.vmid, ipa, leaf, generation)
        if not (leaf.write if write else leaf.read):
            what = "writable" if write else "readable"
            raise _fault(Event.F_PERMISSION, ipa, f"IPA {ipa:#x} must be {what}")
        return leaf.base | ipa & ((1 << leaf.shift) - 1)

    async def _walk(self, ste: Ste, ipa: int) -> Leaf:
        if ipa >> ste.input_bits:
            raise _fault(Event.F_TRANSLATION, ipa, f"IPA must have {ste.input_bits} bits, not {ipa:#x}")
        table = ste.ttb
        for level in range(ste.start, 4):
            shift = SHIFTS[level]
            top = ste.input_bits if level == ste.start else shift + 9
            address = table + 8 * (ipa >> shift & (1 << top - shift) - 1)
            descriptor = await self._fetch(address, ipa)
            is_table = descriptor & 0b11 == 0b11 and level < 3
            if not descriptor & 1 or (descriptor & 0b11 == 0b01) and level in (0, 3):
                raise _fault(Event.F_TRANSLATION, ipa, f"IPA {ipa:#x} is not mapped (level {level}, {descriptor:#x})")
            output = descriptor & ADDRESS
            if output >> ste.output_bits:
                raise _fault(Event.F_ADDR_SIZE, ipa, f"address in {descriptor:#x} must have {ste.output_bits} bits")
            if not is_table:
                return self._leaf(ste, ipa, shift, descriptor)
            table = output
        raise AssertionError("level 3 is a leaf or a fault")

    @staticmethod
    def _leaf(ste: Ste, ipa: int, shift: int, descriptor: int) -> Leaf:
        if not descriptor & AF and ste.access_flag:
            raise _fault(Event.F_ACCESS, ipa, f"access flag of IPA {ipa:#x} must be set ({descriptor:#x})")
        base = descriptor & ADDRESS & ~((1 << shift) - 1)
        return Leaf(shift, base, bool(descriptor & S2AP_READ), bool(descriptor & S2AP_WRITE))

    async def _fetch(self, address: int, ipa: int) -> int:
        status, data = await self._bus.issue(address, 8, None, FETCH_ATTR)
        if status != OKAY:
            fault = Fault(Event.F_WALK_EABT, f"fetch from {address:#x} was aborted", stage2=True, klass=CLASS_TT)
            raise fault.at_fetch(address).at_ipa(ipa)
        assert isinstance(data, int)
        return data


def _fault(event: Event, ipa: int, why: str) -> Fault:
    return Fault(event, why, stage2=True).at_ipa(ipa)
