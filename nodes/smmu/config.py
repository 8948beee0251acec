"""Stream table entries and context descriptors: what they say, and the caches of both (IHI 0070 chapters 3.3 and 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cosim.api import OKAY, Bank, MmioInitiator
from nodes.smmu.events import Event, Fault
from nodes.smmu.walk import PS_BITS, Regime, bits, start_level

STE_SIZE, L1_DESC_SIZE, CD_SIZE = 64, 8, 64
FETCH_ATTR = 3
"""Non-secure, privileged data."""
CONFIG_ABORT, CONFIG_BYPASS, CONFIG_STAGE1, CONFIG_STAGE2, CONFIG_NESTED = 0b000, 0b100, 0b101, 0b110, 0b111
FMT_LINEAR, FMT_2LEVEL = 0, 1
CD_SPLIT = {1: 6, 2: 10}
"""Context descriptors of a level-2 table as a power of two, by S1Fmt: 4 KiB or 64 KiB."""
DSS_TERMINATE, DSS_BYPASS, DSS_SUBSTREAM0 = 0, 1, 2
TG0 = {0: 12, 1: 16, 2: 14}
TG1 = {1: 14, 2: 12, 3: 16}
STRW_EL1 = 0
POINTER = 0xF_FFFF_FFFF_FFC0


class Features(NamedTuple):
    """What an SMMU has: stage 1, bits of output address, bits of SubstreamID."""

    stage1: bool
    oas: int
    ssid_bits: int


class Ste(NamedTuple):
    """What a valid stream table entry says: stage 2's regime or None, the table of context descriptors, and overrides of
    privilege and instruction attributes (None: as they come)."""

    config: int
    vmid: int = 0
    stage2: Regime | None = None
    record: bool = True
    protected_walk: bool = False
    contexts: int = 0
    contexts_format: int = 0
    contexts_bits: int = 0
    default_substream: int = DSS_TERMINATE
    privileged: bool | None = None
    instruction: bool | None = None

    @property
    def stage1(self) -> bool:
        """Whether stage 1 translates."""
        return self.config in (CONFIG_STAGE1, CONFIG_NESTED)


def _refuse(event: Event, rules: list[tuple[object, str]], where: str) -> None:
    for bad, why in rules:
        if bad:
            raise Fault(event, f"{why} ({where})")


def parse_ste(data: bytes, features: Features) -> Ste:
    """Decode the 64 bytes of an STE.

    Raises:
        Fault: C_BAD_STE, for an entry that is not valid or asks for what this SMMU does not have.
    """
    word = [int.from_bytes(data[n : n + 8], "little") for n in range(0, 32, 8)]
    if not word[0] & 1:
        raise Fault(Event.C_BAD_STE, "STE.V is 0")
    config = bits(word[0], 3, 1)
    if not config & 0b100:
        return Ste(CONFIG_ABORT)
    ste = Ste(
        config,
        bits(word[2], 15, 0),
        privileged={2: False, 3: True}.get(bits(word[1], 49, 48)),
        instruction={2: False, 3: True}.get(bits(word[1], 51, 50)),
    )
    if config in (CONFIG_STAGE1, CONFIG_NESTED):
        ste = _parse_stage1(ste, word[0], word[1], features)
    if config in (CONFIG_STAGE2, CONFIG_NESTED):
        ste = _parse_stage2(ste, word[2], word[3], features)
    return ste


def _parse_stage1(ste: Ste, low: int, high: int, features: Features) -> Ste:
    form, pointer, size = bits(low, 5, 4), low & POINTER, bits(low, 63, 59)
    rules: list[tuple[object, str]] = [
        (not features.stage1, "Config must be 0, 4 or 6 (no stage 1)"),
        (size > features.ssid_bits, f"S1CDMax must be at most {features.ssid_bits}"),
        (size and form > 2, "S1Fmt must be 0, 1 or 2"),
        (size and bits(high, 1, 0) > DSS_SUBSTREAM0, "S1DSS must be 0, 1 or 2"),
        (bits(high, 27, 27), "S1STALLD must be 0 (no stall)"),
        (ste.config == CONFIG_STAGE1 and bits(high, 31, 30) != STRW_EL1, "STRW must be 0 (no EL2 contexts)"),
        (
            ste.config == CONFIG_STAGE1 and pointer >> features.oas,
            "S1ContextPtr must lie within the output address size",
        ),
    ]
    _refuse(Event.C_BAD_STE, rules, f"STE DW0 {low:#x}, DW1 {high:#x}")
    if not size or form == 0:
        pointer &= ~((CD_SIZE << size) - 1)
    return ste._replace(contexts=pointer, contexts_format=form, contexts_bits=size, default_substream=bits(high, 1, 0))


def _parse_stage2(ste: Ste, low: int, high: int, features: Features) -> Ste:
    input_bits, granule, sl0 = 64 - bits(low, 37, 32), TG0.get(bits(low, 47, 46)), bits(low, 39, 38)
    _refuse(Event.C_BAD_STE, [(granule is None, "S2TG must be 0, 1 or 2")], f"STE DW2 {low:#x}")
    assert granule is not None
    start = (2 if granule == 12 else 3) - sl0
    regime = Regime(2, granule, input_bits, 0, start, 0, not bits(low, 53, 53))
    indexed = input_bits - regime.shift(start) if sl0 < 3 else 0
    ttb = high & 0xF_FFFF_FFFF_FFF0
    rules: list[tuple[object, str]] = [
        (not bits(low, 51, 51), "S2AA64 must be 1"),
        (bits(low, 52, 52), "S2ENDI must be 0"),
        (bits(low, 56, 55), "S2HA and S2HD must be 0 (no hardware update)"),
        (bits(low, 57, 57), "S2S must be 0 (no stall)"),
        (not 25 <= input_bits <= 48, "S2T0SZ must be in 16..39"),
        (not 1 <= indexed <= granule + 1, "S2SL0 must fit S2T0SZ, with at most 16 concatenated tables"),
        (ttb >> features.oas, "S2TTB must lie within the output address size"),
    ]
    _refuse(Event.C_BAD_STE, rules, f"STE DW2 {low:#x}, DW3 {high:#x}")
    output_bits = min(features.oas, PS_BITS[min(bits(low, 50, 48), len(PS_BITS) - 1)])
    regime = regime._replace(output_bits=output_bits, ttb=ttb & ~((8 << indexed) - 1))
    return ste._replace(stage2=regime, record=bool(bits(low, 58, 58)), protected_walk=bool(bits(low, 54, 54)))


class Context(NamedTuple):
    """What a context descriptor says: the lower and the upper half's tables (None: walks are disabled), whether the top byte
    of an address is ignored in each, ASID, and whether faults are recorded."""

    lower: Regime | None
    upper: Regime | None
    ignore_top: tuple[bool, bool]
    asid: int
    record: bool


def parse_cd(data: bytes, oas: int) -> Context:
    """Decode the 64 bytes of a CD.

    Raises:
        Fault: C_BAD_CD, for a descriptor that is not valid or asks for what this SMMU does not have.
    """
    word = [int.from_bytes(data[n : n + 8], "little") for n in range(0, 24, 8)]
    low = word[0]
    output_bits = min(oas, PS_BITS[min(bits(low, 34, 32), len(PS_BITS) - 1)])
    rules: list[tuple[object, str]] = [
        (not bits(low, 31, 31), "CD.V must be 1"),
        (not bits(low, 41, 41), "AA64 must be 1"),
        (bits(low, 15, 15), "ENDI must be 0"),
        (bits(low, 43, 42), "HA and HD must be 0 (no hardware update)"),
        (bits(low, 44, 44), "S must be 0 (no stall)"),
        (not bits(low, 46, 46), "A must be 1 (faults only abort)"),
    ]
    _refuse(Event.C_BAD_CD, rules, f"CD DW0 {low:#x}")
    halves = [
        _half(low, word[1 + n], tuple(TG.get(bits(low, at + 7, at + 6)) for TG in (TG0, TG1))[n], at, output_bits)
        for n, at in enumerate((0, 16))
    ]
    return Context(
        halves[0], halves[1], (bool(bits(low, 38, 38)), bool(bits(low, 39, 39))), bits(low, 63, 48),
        bool(bits(low, 45, 45)),
    )  # fmt: skip


def _half(low: int, ttb: int, granule: int | None, at: int, output_bits: int) -> Regime | None:
    """The tables of one half of the address space; its fields start at bit `at` of DW0. None when EPD is set."""
    if bits(low, at + 14, at + 14):
        return None
    input_bits, base = 64 - bits(low, at + 5, at), ttb & 0xF_FFFF_FFFF_FFF0
    rules: list[tuple[object, str]] = [
        (granule is None, "TG must be a granule of this SMMU"),
        (not 25 <= input_bits <= 48, "TSZ must be in 16..39"),
        (base >> output_bits, "TTB must lie within IPS"),
    ]
    _refuse(Event.C_BAD_CD, rules, f"CD DW0 {low:#x}, TTB {ttb:#x}")
    assert granule is not None
    regime = Regime(
        1,
        granule,
        input_bits,
        output_bits,
        start_level(granule, input_bits),
        0,
        access_flag=not bits(low, 35, 35),
        hierarchical=not bits(ttb, 1, 1),
        wxn=bool(bits(low, 36, 36)),
        pan=bool(bits(low, 40, 40)),
    )
    return regime._replace(ttb=base & ~((8 << input_bits - regime.shift(regime.start)) - 1))


class StreamTable:
    """Looks StreamIDs up in the stream table, linear or two-level, and caches valid entries."""

    def __init__(self, bank: Bank, bus: MmioInitiator, sid_bits: int, features: Features) -> None:
        self._bank = bank
        self._bus = bus
        self._sid_bits = sid_bits
        self._features = features
        self._cache: dict[int, Ste] = {}
        self._generation = 0

    async def lookup(self, sid: int) -> Ste:
        """The entry of a stream. Raises Fault."""
        ste = self._cache.get(sid)
        if ste is not None:
            return ste
        generation = self._generation
        address = await self._address(sid)
        ste = parse_ste(await self._fetch(address, STE_SIZE), self._features)
        if generation == self._generation:
            self._cache[sid] = ste
        return ste

    async def _address(self, sid: int) -> int:
        config = self._bank["SMMU_STRTAB_BASE_CFG"]
        log2, split, form = bits(config, 5, 0), bits(config, 10, 6), bits(config, 17, 16)
        if sid >> min(log2, self._sid_bits):
            raise Fault(Event.C_BAD_STREAMID, f"StreamID must have {log2} bits, not {sid:#x}")
        base = self._bank["SMMU_STRTAB_BASE"] & POINTER
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
        level2 = descriptor & POINTER & ~((STE_SIZE << span - 1) - 1)
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


Place = Callable[[int], Awaitable[int]]


class ContextTable:
    """Looks context descriptors up by stream and substream, in a linear or two-level table, and caches valid ones."""

    def __init__(self, bus: MmioInitiator, oas: int) -> None:
        self._bus = bus
        self._oas = oas
        self._cache: dict[tuple[int, int], Context] = {}
        self._generation = 0

    async def lookup(self, ste: Ste, sid: int, ssid: int, place: Place) -> Context:
        """The context of a substream, which the table must have.

        Args:
            place: physical address of a descriptor; by stage 2 if there is one.

        Raises:
            Fault: C_BAD_CD, C_BAD_SUBSTREAMID, F_CD_FETCH, or what `place` raises.
        """
        context = self._cache.get((sid, ssid))
        if context is not None:
            return context
        generation = self._generation
        address = ste.contexts + ssid * CD_SIZE
        split = CD_SPLIT.get(ste.contexts_format) if ste.contexts_bits else None
        if split is not None:
            level1 = await self._fetch(ste.contexts + (ssid >> split) * L1_DESC_SIZE, L1_DESC_SIZE, place)
            descriptor = int.from_bytes(level1, "little")
            if not descriptor & 1:
                raise Fault(Event.C_BAD_SUBSTREAMID, f"level 1 of the CD table must be valid for SubstreamID {ssid:#x}")
            address = (descriptor & 0xF_FFFF_FFFF_F000) + (ssid & (1 << split) - 1) * CD_SIZE
        context = parse_cd(await self._fetch(address, CD_SIZE, place), self._oas)
        if generation == self._generation:
            self._cache[sid, ssid] = context
        return context

    async def _fetch(self, address: int, size: int, place: Place) -> bytes:
        physical = await place(address)
        status, data = await self._bus.issue(physical, size, None, FETCH_ATTR)
        if status != OKAY:
            raise Fault(Event.F_CD_FETCH, f"fetch of a CD from {physical:#x} was aborted").at_fetch(physical)
        return data.to_bytes(size, "little") if isinstance(data, int) else bytes(data)

    def invalidate(self, first: int, last: int, ssid: int | None = None) -> None:
        """CFGI_CD, CFGI_CD_ALL, and the invalidations of STEs: one SubstreamID or all of StreamIDs first..last."""
        self._generation += 1
        for key in [k for k in self._cache if first <= k[0] <= last and (ssid is None or k[1] == ssid)]:
            del self._cache[key]
