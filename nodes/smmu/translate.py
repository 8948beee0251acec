"""From a transaction to its physical address: stream, substream, stage 1, stage 2 (IHI 0070 chapters 3.3, 3.4 and 15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cosim.api import OKAY, Bank, MmioInitiator
from nodes.smmu.config import (
    CONFIG_ABORT,
    DSS_BYPASS,
    DSS_TERMINATE,
    FETCH_ATTR,
    Context,
    ContextTable,
    Features,
    Ste,
    StreamTable,
)
from nodes.smmu.events import CLASS_CD, CLASS_IN, CLASS_TT, Event, Fault
from nodes.smmu.walk import DEVICE, EXECUTE, GLOBAL, PRIVILEGED, READ, USER, WRITE, Leaf, Regime, Tlb, walk

TOP_BYTE = 0xFF << 56


class Access(NamedTuple):
    """What a transaction wants: direction, privilege, instruction or data."""

    write: bool = False
    privileged: bool = False
    instruction: bool = False

    @property
    def need(self) -> int:
        """The bit of `Leaf.rights` that it needs."""
        kind = WRITE if self.write else EXECUTE if self.instruction else READ
        return kind << (PRIVILEGED if self.privileged else USER)


WALK = Access(privileged=True)
"""The SMMU's own fetch of a descriptor."""


class Translator:
    """Translates, with the caches of one SMMU: `streams`, `contexts`, and a TLB for each stage."""

    def __init__(
        self, bank: Bank, bus: MmioInitiator, sid_bits: int, features: Features, count: Callable[[str], None]
    ) -> None:
        self._bus = bus
        self._count = count
        self.features = features
        self.streams = StreamTable(bank, bus, sid_bits, features)
        self.contexts = ContextTable(bus, features.oas)
        self.tlb1 = Tlb()
        self.tlb2 = Tlb()

    async def translate(self, sid: int, ssid: int | None, address: int, access: Access) -> tuple[int, bool]:
        """(physical address, whether a stage translated) of an access.

        Raises:
            Fault: the transaction is terminated; the fault has what its record needs.
        """
        ste: Ste | None = None
        try:
            ste = await self.streams.lookup(sid)
            if ste.config == CONFIG_ABORT:
                raise Fault(None, "STE.Config is abort")
            access = Access(
                access.write,
                access.privileged if ste.privileged is None else ste.privileged,
                (access.instruction if ste.instruction is None else ste.instruction) and not access.write,
            )
            return await self._translate(ste, sid, ssid, address, access)
        except Fault as fault:
            fault.ssid, fault.access = ssid, access
            fault.silent = fault.silent or (fault.stage2 and ste is not None and not ste.record)
            raise

    async def _translate(self, ste: Ste, sid: int, ssid: int | None, address: int, access: Access) -> tuple[int, bool]:
        substream = self._substream(ste, ssid)
        if substream is None:
            if address >> self.features.oas:
                raise Fault(Event.F_ADDR_SIZE, f"input address must have {self.features.oas} bits, not {address:#x}")
        else:
            context = await self.contexts.lookup(ste, sid, substream, lambda at: self._place(ste, at, CLASS_CD))
            address = await self._stage1(ste, context, address, access)
        if ste.stage2 is not None:
            address = (await self._stage2(ste, address, access, CLASS_IN)).address(address)
        return address, substream is not None or ste.stage2 is not None

    def _substream(self, ste: Ste, ssid: int | None) -> int | None:
        """Index of the context descriptor; None if stage 1 is bypassed."""
        if ssid is not None:
            if not ste.stage1 or not ste.contexts_bits or ssid >> ste.contexts_bits:
                raise Fault(
                    Event.C_BAD_SUBSTREAMID,
                    f"SubstreamID {ssid:#x} must have {ste.contexts_bits} bits, and stage 1 be on",
                )
            if not ssid and ste.default_substream not in (DSS_TERMINATE, DSS_BYPASS):
                raise Fault(
                    Event.C_BAD_SUBSTREAMID, "SubstreamID 0 must not be used: it is that of the stream without one"
                )
            return ssid
        if not ste.stage1:
            return None
        if not ste.contexts_bits:
            return 0
        if ste.default_substream == DSS_TERMINATE:
            raise Fault(Event.F_STREAM_DISABLED, "STE.S1DSS refuses transactions without a SubstreamID")
        return None if ste.default_substream == DSS_BYPASS else 0

    # -- stages --------------------------------------------------------------------------------------------------------

    async def _stage1(self, ste: Ste, context: Context, address: int, access: Access) -> int:
        try:
            regime, address = self._half(context, address)
            leaf = self.tlb1.find(ste.vmid, context.asid, address, regime.granule)
            if leaf is None:
                generation = self.tlb1.generation
                self._count("tlb_misses")

                async def fetch(at: int) -> int:
                    return await self._descriptor(await self._place(ste, at, CLASS_TT), stage2=False)

                leaf = await walk(regime, address, fetch)
                self.tlb1.add(ste.vmid, context.asid, address, leaf, generation)
            if not leaf.rights & access.need:
                raise Fault(Event.F_PERMISSION, f"stage 1: {address:#x} must allow {access}")
        except Fault as fault:
            if not fault.stage2:
                fault.silent = not context.record
            raise
        return leaf.address(address)

    @staticmethod
    def _half(context: Context, address: int) -> tuple[Regime, int]:
        """The tables for an address, by its upper bits, and the address without what is ignored of it."""
        upper = address >> 55 & 1
        regime = context.upper if upper else context.lower
        if context.ignore_top[upper]:
            address = address | TOP_BYTE if upper else address & ~TOP_BYTE
        if regime is None:
            raise Fault(Event.F_TRANSLATION, f"stage 1: walks for {address:#x} are disabled (EPD)")
        rest = address >> regime.input_bits
        if rest != ((1 << 64 - regime.input_bits) - 1 if upper else 0):
            raise Fault(Event.F_TRANSLATION, f"stage 1: address must have {regime.input_bits} bits, not {address:#x}")
        return regime, address

    async def _stage2(self, ste: Ste, ipa: int, access: Access, klass: int) -> Leaf:
        regime = ste.stage2
        assert regime is not None
        leaf = self.tlb2.find(ste.vmid, GLOBAL, ipa, regime.granule)
        if leaf is None:
            generation = self.tlb2.generation
            self._count("tlb_misses")
            if ipa >> regime.input_bits:
                why = f"stage 2: IPA must have {regime.input_bits} bits, not {ipa:#x}"
                raise Fault(Event.F_TRANSLATION, why, stage2=True, klass=klass).at_ipa(ipa)

            async def fetch(at: int) -> int:
                try:
                    return await self._descriptor(at, stage2=True)
                except Fault as fault:
                    raise fault.at_ipa(ipa) from None

            leaf = await walk(regime, ipa, fetch, klass=klass)
            self.tlb2.add(ste.vmid, GLOBAL, ipa, leaf, generation)
        protected = klass == CLASS_TT and ste.protected_walk and leaf.rights & DEVICE
        if not leaf.rights & access.need or protected:
            what = "must not be Device memory (S2PTW)" if protected else f"must allow {access}"
            raise Fault(Event.F_PERMISSION, f"stage 2: IPA {ipa:#x} {what}", stage2=True, klass=klass).at_ipa(ipa)
        return leaf

    async def _place(self, ste: Ste, address: int, klass: int) -> int:
        """Physical address of a descriptor of stage 1."""
        if ste.stage2 is None:
            return address
        return (await self._stage2(ste, address, WALK, klass)).address(address)

    async def _descriptor(self, address: int, *, stage2: bool) -> int:
        status, data = await self._bus.issue(address, 8, None, FETCH_ATTR)
        if status != OKAY:
            why = f"fetch from {address:#x} was aborted"
            raise Fault(Event.F_WALK_EABT, why, stage2=stage2, klass=CLASS_TT).at_fetch(address)
        assert isinstance(data, int)
        return data
