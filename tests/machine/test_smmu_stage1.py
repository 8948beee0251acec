"""Stage 1, context descriptors, substreams, both stages together, and their invalidations (IHI 0070 chapters 3.3, 5.4, 7.3)."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault
from nodes.arch.pcie import with_pasid
from nodes.smmu.translate import Access
from tests.machine.smmute_bench import (
    AF,
    CMDQEN,
    CR0,
    CR0ACK,
    DATA,
    EVENTQEN,
    HOLE,
    IOVA,
    RAM,
    RW,
    SIDS,
    SMMUEN,
    SYNC,
    TABLES,
    VALID,
    VMID,
    Rig,
    command,
)

CONTEXTS = RAM + 0x70_0000
TTB = RAM + 0x71_0000
SPARE = RAM + 0x74_0000
ASID = 0x21
READ, INSTRUCTION, PRIVILEGED = 1 << 35, 1 << 34, 1 << 33
S2, CLASS_TT, CLASS_IN = 1 << 39, 1 << 40, 2 << 40
USER, READ_ONLY, NG, PXN, UXN = 1 << 6, 1 << 7, 1 << 11, 1 << 53, 1 << 54
PAGE = AF | NG | USER
GRANULE = {12: (0, 2), 14: (2, 1), 16: (1, 3)}
"""TG0 and TG1 (S2TG is as TG0)."""
CFGI_CD, CFGI_CD_ALL, NH_ALL, NH_ASID, NH_VA, NH_VAA, S12, S2_IPA, NSNH = (
    5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2A, 0x30,
)  # fmt: skip


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in (*values, *[0] * (8 - len(values))))


def cd(ttb: int = TTB, *, granule: int = 12, tsz: int = 16, flip: int = 0, asid: int = ASID, upper: int = 0) -> bytes:
    """A CD of the lower half (TTB0); EPD1 unless `upper` is a TTB1. `flip` toggles bits of DW0."""
    low = tsz | GRANULE[granule][0] << 6 | (1 << 30 if not upper else tsz << 16 | GRANULE[granule][1] << 22)
    low |= 1 << 31 | 5 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | asid << 48
    return words(low ^ flip, ttb, upper)


def ste1(
    *, config: int = 5, root: int = TABLES, cdmax: int = 0, form: int = 0, dss: int = 0, low: int = 0, high: int = 0
) -> bytes:
    """An STE of stage 1 (5) or both (7); stage 2 as in smmute_bench. `low`, `high` toggle bits of DW0, DW1."""
    word0 = VALID | config << 1 | form << 4 | CONTEXTS | cdmax << 59
    return words(word0 ^ low, dss ^ high, VMID | 16 << 32 | 2 << 38 | 5 << 48 | 1 << 51 | 1 << 58, root)


class Tables:
    """Places stage-1 tables in memory."""

    def __init__(self, rig: Rig, root: int = TTB, granule: int = 12) -> None:
        self.rig, self.root, self.granule = rig, root, granule
        self.next = root + 0x1_0000

    def map(
        self, address: int, output: int, attributes: int = PAGE, *, level: int = 3, start: int = 0, table: int = 0
    ) -> int:
        """Map one leaf; returns the address of its descriptor. `table` is or-ed into new table descriptors."""
        stride = self.granule - 3
        base = self.root
        for n in range(start, level):
            slot = base + 8 * (address >> self.granule + (3 - n) * stride & (1 << stride) - 1)
            entry = int.from_bytes(self.rig.memory.peek(slot, 8), "little")
            if not entry & 1:
                entry = self.next | 3 | table
                self.next += 1 << self.granule
                self.rig.memory.poke(slot, entry.to_bytes(8, "little"))
            base = entry & 0xFFFF_FFFF_F000
        slot = base + 8 * (address >> self.granule + (3 - level) * stride & (1 << stride) - 1)
        self.rig.memory.poke(slot, (output | attributes | (3 if level == 3 else 1)).to_bytes(8, "little"))
        return slot


def rig(entry: bytes | None = None, context: bytes | None = None, **params: Any) -> tuple[Rig, Tables]:
    """An SMMU whose stream 0 has stage 1 with one context."""
    r = Rig(endpoint=False, **params).start()
    r.ste(SIDS[0], ste1() if entry is None else entry)
    r.memory.poke(CONTEXTS, cd() if context is None else context)
    return r, Tables(r)


def refused(r: Rig, iova: int = IOVA, *, write: bool = False, attr: int = 2) -> None:
    with pytest.raises(BusFault, match="SLVERR"):
        if write:
            r.store(iova, 1, attr=attr)
        else:
            r.load(iova, attr=attr)


def kind(r: Rig, slot: int = 0) -> int:
    return r.event(slot)[0] & 0xFF


# -- walks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granule", "tsz", "start", "level"),
    [(12, 16, 0, 3), (12, 16, 0, 2), (12, 16, 0, 1), (12, 25, 1, 3), (12, 34, 2, 3), (14, 16, 0, 3), (14, 17, 1, 2), (14, 28, 2, 3),
     (16, 16, 1, 3), (16, 22, 2, 2), (16, 39, 3, 3)],
)  # fmt: skip
def test_granules_levels_and_blocks(granule: int, tsz: int, start: int, level: int) -> None:
    """Each granule starts at the level that T0SZ gives and maps pages and blocks of its sizes, to the last word."""
    r, tables = rig(context=cd(granule=granule, tsz=tsz))
    tables.granule = granule
    span = 1 << granule + (3 - level) * (granule - 3)
    iova = (1 << 64 - tsz) - span
    output = RAM & -span
    tables.map(iova, output, level=level, start=start)
    r.memory.poke(DATA + 0x100, b"datadata")
    where = DATA + 0x100 if span > 0x80_0000 else RAM + 0x108
    r.memory.poke(where, b"datadata")
    assert r.load(iova + where - output) == int.from_bytes(b"datadata", "little")
    before = r.smmu.count["tlb_misses"]
    r.load(iova + (where - output & ~0xFFF))
    assert r.smmu.count["tlb_misses"] == before
    refused(r, 0)
    assert r.event(0) == [0x10 | SIDS[0] << 32, CLASS_IN | READ, 0, 0]


def test_a_block_where_the_granule_has_none() -> None:
    """Blocks at level 1 of 16 and 64 KiB granules and at level 0 of 4 KiB are translation faults."""
    for granule, level, start in ((14, 1, 0), (16, 1, 1), (12, 0, 0)):
        r, tables = rig(context=cd(granule=granule))
        tables.granule = granule
        tables.map(IOVA, 0, level=level, start=start)
        refused(r)
        assert kind(r) == 0x10


def test_upper_half_and_ignored_top_byte() -> None:
    """TTB1 translates addresses of ones; TBI ignores the top byte of each half; EPD and a wrong extension are not mapped."""
    r, tables = rig(context=cd(upper=SPARE))
    tables.map(IOVA, DATA)
    Tables(r, SPARE).map(0xFFFF_FFFF_8000_0000, DATA + 0x1000)
    top = 0xFFFF_FFFF_8000_0010

    async def ask(address: int) -> int:
        return (await r.smmu.translator.translate(SIDS[0], None, address, Access()))[0]

    assert r.bench.call("smmu0", ask(top)) == DATA + 0x1010
    assert r.bench.call("smmu0", ask(IOVA)) == DATA
    for bad in (0x12 << 56 | IOVA, 0x7F << 56 | top & (1 << 56) - 1, 1 << 48 | IOVA):
        with pytest.raises(Exception, match="must have 48 bits"):
            r.bench.call("smmu0", ask(bad))
    r.memory.poke(CONTEXTS, cd(upper=SPARE, flip=3 << 38))
    r.run(command(CFGI_CD_ALL, SIDS[0]), SYNC)
    assert r.bench.call("smmu0", ask(0x12 << 56 | IOVA)) == DATA
    assert r.bench.call("smmu0", ask(0x7F << 56 | top & (1 << 56) - 1)) == DATA + 0x1010
    r.memory.poke(CONTEXTS, cd())
    r.run(command(CFGI_CD_ALL, SIDS[0]), SYNC)
    with pytest.raises(Exception, match="disabled"):
        r.bench.call("smmu0", ask(top))


@pytest.mark.parametrize(
    ("attributes", "table", "attr", "write", "allowed"),
    [
        (PAGE, 0, 2, True, True), (PAGE, 0, 3, True, True),
        (AF | NG, 0, 2, False, False), (AF | NG, 0, 3, True, True),
        (PAGE | READ_ONLY, 0, 2, True, False), (PAGE | READ_ONLY, 0, 3, True, False), (PAGE | READ_ONLY, 0, 2, False, True),
        (PAGE | READ_ONLY, 0, 2 | 4, False, True), (PAGE | READ_ONLY | UXN, 0, 2 | 4, False, False),
        (PAGE | READ_ONLY, 0, 3 | 4, False, True), (PAGE | READ_ONLY | PXN, 0, 3 | 4, False, False), (PAGE, 0, 3 | 4, False, False),
        (PAGE, 1 << 61, 2, False, False), (PAGE, 1 << 62, 2, True, False), (PAGE, 1 << 60, 2 | 4, False, False),
        (PAGE | READ_ONLY, 1 << 59, 3 | 4, False, False),
    ],
)  # fmt: skip
def test_permissions(attributes: int, table: int, attr: int, write: bool, allowed: bool) -> None:
    """AP, UXN, PXN and the limits in table descriptors, for privileged and unprivileged data and instruction accesses."""
    r, tables = rig()
    tables.map(IOVA, DATA, attributes, table=table)
    if allowed:
        r.store(IOVA, 7, attr=attr) if write else r.load(IOVA, attr=attr)
        return
    refused(r, write=write, attr=attr)
    who = (PRIVILEGED if attr & 1 else 0) | (INSTRUCTION if attr & 4 else 0) | (0 if write else READ)
    assert r.event(0) == [0x13 | SIDS[0] << 32, CLASS_IN | who, IOVA, 0]


def test_hierarchical_limits_can_be_disabled_and_pan_and_wxn_apply() -> None:
    """HAD0 ignores table limits; PAN keeps privileged data accesses from unprivileged pages; WXN makes writable not executable."""
    r, tables = rig()
    tables.map(IOVA, DATA, PAGE, table=1 << 62)
    r.memory.poke(CONTEXTS, cd(TTB | 2))
    r.store(IOVA, 1)
    r, tables = rig(context=cd(flip=1 << 40 | 1 << 36))
    tables.map(IOVA, DATA)
    r.load(IOVA)
    refused(r, attr=3)
    refused(r, attr=2 | 4)
    assert [kind(r, n) for n in range(2)] == [0x13, 0x13]


def test_access_flag_and_output_size() -> None:
    """A clear access flag faults unless CD.AFFD; an output address beyond IPS is an address size fault of stage 1."""
    r, tables = rig()
    tables.map(IOVA, DATA, NG | USER)
    tables.map(IOVA + 0x1000, 1 << 47, PAGE)
    refused(r)
    assert kind(r) == 0x12
    r.memory.poke(CONTEXTS, cd(flip=1 << 35 | 7 << 32))
    r.run(command(CFGI_CD, SIDS[0], 1), SYNC)
    r.load(IOVA)
    refused(r, IOVA + 0x1000)
    assert r.event(1) == [0x11 | SIDS[0] << 32, CLASS_IN | READ, IOVA + 0x1000, 0]


def test_aborted_walk_of_stage_1() -> None:
    """F_WALK_EABT names the descriptor, not as stage 2."""
    r, _ = rig(context=cd(HOLE))
    refused(r)
    assert r.event(0) == [0x0B | SIDS[0] << 32, CLASS_TT | READ, IOVA, HOLE]


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [1 << 31, 1 << 41, 1 << 15, 1 << 42, 1 << 43, 1 << 44, 1 << 46, 3 << 6, 1 << 4, 0x3F])
def test_bad_cd(flip: int) -> None:
    """C_BAD_CD for a descriptor that is not valid, not AArch64, big-endian, stalling, not aborting, or of bad sizes."""
    r, _ = rig(context=cd(flip=flip))
    refused(r)
    assert r.event(0) == [0x0A | SIDS[0] << 32, 0, 0, 0]


@pytest.mark.parametrize(
    "entry",
    [
        ste1(low=21 << 59),
        ste1(cdmax=4, form=3),
        ste1(cdmax=4, dss=3),
        ste1(high=1 << 27),
        ste1(high=2 << 30),
        ste1(low=1 << 51),
    ],
)
def test_bad_stage1_ste(entry: bytes) -> None:
    """C_BAD_STE for too many substreams, a reserved format or default, the stall model, EL2 contexts, a pointer beyond OAS."""
    r, _ = rig(entry)
    refused(r)
    assert r.event(0) == [0x04 | SIDS[0] << 32, 0, 0, 0]


def test_aborted_cd_fetch() -> None:
    """F_CD_FETCH with the descriptor's address."""
    r, _ = rig(ste1(low=CONTEXTS ^ HOLE))
    refused(r)
    assert r.event(0) == [0x09 | SIDS[0] << 32, 0, 0, HOLE]


def test_faults_without_record() -> None:
    """CD.R = 0 silences stage 1's translation faults, and nothing else."""
    r, _ = rig(context=cd(flip=1 << 45))
    refused(r)
    assert r.reg(0x1_00A8) == 0 and r.smmu.count["faults"] == 1
    r.memory.poke(CONTEXTS, cd(HOLE, flip=1 << 45))
    r.run(command(CFGI_CD, SIDS[0], 1), SYNC)
    refused(r)
    assert kind(r) == 0x0B


def test_overrides_of_privilege_and_instruction() -> None:
    """STE.PRIVCFG and INSTCFG replace what comes with the transaction, also in the record."""
    r, tables = rig(ste1(high=3 << 48 | 3 << 50))
    tables.map(IOVA, DATA, PAGE | READ_ONLY | PXN)
    refused(r)
    assert r.event(0)[1] == CLASS_IN | READ | PRIVILEGED | INSTRUCTION


# -- substreams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [0, 1, 2])
def test_substreams_have_contexts_of_their_own(form: int) -> None:
    """The PASID chooses the context, by a linear table or one of two levels; faults carry SSV and SubstreamID."""
    r, tables = rig(ste1(cdmax=12, form=form, dss=2))
    ssid, split = 0x405, {0: 0, 1: 6, 2: 10}[form]
    mine, leaf = 0x405, CONTEXTS
    if form:
        leaf = RAM + 0x78_0000
        mine = ssid & (1 << split) - 1
        r.memory.poke(CONTEXTS, bytes(64))
        r.memory.poke(CONTEXTS + 8 * (ssid >> split), (leaf | 1).to_bytes(8, "little"))
    r.memory.poke(leaf + 64 * mine, cd(SPARE, asid=ASID + 1))
    Tables(r, SPARE).map(IOVA, DATA + 0x1000)
    r.memory.poke(DATA + 0x1000, b"\x55")
    assert r.load(IOVA, 1, attr=with_pasid(2, ssid)) == 0x55
    refused(r, IOVA + 0x1000, attr=with_pasid(2, ssid))
    assert r.event(0) == [0x10 | 1 << 11 | ssid << 12 | SIDS[0] << 32, CLASS_IN | READ, IOVA + 0x1000, 0]
    if form:
        refused(r, attr=with_pasid(2, 0x805))
        assert r.event(1) == [0x08 | 0x805 << 12 | SIDS[0] << 32, 0, 0, 0]
    else:
        tables.map(IOVA, DATA + 0x2000)
        r.memory.poke(DATA + 0x2000, b"\x66")
        assert r.load(IOVA, 1) == 0x66  # S1DSS: without a PASID it is context 0


def test_bad_substreams() -> None:
    """C_BAD_SUBSTREAMID: beyond S1CDMax, 0 where it is the default, none configured, or a stream without stage 1."""
    r, _ = rig(ste1(cdmax=2, dss=2))
    for ssid in (4, 0):
        refused(r, attr=with_pasid(2, ssid))
    r.ste(SIDS[0], ste1())
    r.run(command(3, SIDS[0], 1), SYNC)
    refused(r, attr=with_pasid(2, 1))
    r.ste(SIDS[0], ste1(config=6))
    r.run(command(3, SIDS[0], 1), SYNC)
    refused(r, attr=with_pasid(2, 1))
    want = [0x08 | ssid << 12 | SIDS[0] << 32 for ssid in (4, 0, 1, 1)]
    assert [r.event(n) for n in range(4)] == [[word, 0, 0, 0] for word in want]


def test_what_a_transaction_without_a_substream_does() -> None:
    """S1DSS: 0 terminates with F_STREAM_DISABLED, 1 bypasses stage 1."""
    r, _ = rig(ste1(cdmax=2, dss=0))
    refused(r)
    assert r.event(0) == [0x06 | SIDS[0] << 32, 0, 0, 0]
    r.ste(SIDS[0], ste1(cdmax=2, dss=1))
    r.run(command(3, SIDS[0], 1), SYNC)
    r.store(DATA, 0x44)
    assert r.memory.peek(DATA, 1) == b"\x44"


# -- both stages -------------------------------------------------------------------------------------------------------


def nested() -> tuple[Rig, Tables]:
    """Stage 1's tables and CD at IPAs that stage 2 maps elsewhere than where they are."""
    r, tables = rig(ste1(config=7))
    for at in range(CONTEXTS, CONTEXTS + 0x6_0000, 0x1000):
        r.map(at, at)
    r.map(0x5000_0000, DATA)
    tables.map(IOVA, 0x5000_0000)
    return r, tables


def test_both_stages() -> None:
    """An access goes through stage 1 to an IPA and through stage 2 to memory; a second one needs neither walk."""
    r, _ = nested()
    r.memory.poke(DATA + 8, b"abcdefgh")
    assert r.load(IOVA + 8) == int.from_bytes(b"abcdefgh", "little")
    misses = r.smmu.count["tlb_misses"]
    r.load(IOVA + 16)
    assert r.smmu.count["tlb_misses"] == misses
    assert r.smmu.count["translations"] == 2


def test_faults_of_both_stages_say_where() -> None:
    """Stage 1, stage 2 of the output, of a table's fetch and of a CD's fetch differ in S2, class and IPA."""
    r, tables = nested()
    refused(r, IOVA + 0x1000)
    tables.map(IOVA + 0x2000, 0x6000_0000)
    refused(r, IOVA + 0x2010)
    far = 0x7000_0000
    r.memory.poke(TTB + 8, (far | 3).to_bytes(8, "little"))
    refused(r, 1 << 39)
    r.ste(SIDS[1], ste1(config=7, low=CONTEXTS ^ 0x7100_0040))
    with pytest.raises(BusFault):
        r.load(IOVA, function=1)
    sid = SIDS[0] << 32
    assert [r.event(n) for n in range(4)] == [
        [0x10 | sid, CLASS_IN | READ, IOVA + 0x1000, 0],
        [0x10 | sid, S2 | CLASS_IN | READ, IOVA + 0x2010, 0x6000_0000],
        [0x10 | sid, S2 | CLASS_TT | READ, 1 << 39, far],
        [0x10 | SIDS[1] << 32, S2 | READ, IOVA, 0x7100_0000],
    ]


def test_stage_2_limits_what_stage_1_allows() -> None:
    """A write that stage 1 allows and stage 2 does not is a stage-2 permission fault with the IPA."""
    r, tables = nested()
    r.map(0x5000_1000, DATA + 0x1000, attributes=RW & ~(1 << 7))
    tables.map(IOVA + 0x1000, 0x5000_1000)
    r.load(IOVA + 0x1000)
    refused(r, IOVA + 0x1000, write=True)
    assert r.event(0) == [0x13 | SIDS[0] << 32, S2 | CLASS_IN, IOVA + 0x1000, 0x5000_1000]


def test_protected_table_walk() -> None:
    """With S2PTW a stage-1 table in what stage 2 maps as Device memory is a permission fault; in Normal memory it is not."""
    r, _ = nested()
    normal = 0b1111 << 2
    for at in range(CONTEXTS, CONTEXTS + 0x6_0000, 0x1000):
        r.map(at, at, attributes=RW | normal)
    r.map(0x5000_0000, DATA, attributes=RW | normal)
    entry = bytearray(ste1(config=7))
    entry[16 + 6] ^= 1 << 6  # DW2 bit 54
    r.ste(SIDS[0], bytes(entry))
    r.load(IOVA)
    r.map(TTB, TTB)
    r.run(command(NSNH), SYNC)
    refused(r)
    assert r.event(0)[:2] == [0x13 | SIDS[0] << 32, S2 | CLASS_TT | READ]


@pytest.mark.parametrize("granule", [14, 16])
def test_other_granules_of_stage_2(granule: int) -> None:
    """S2TG chooses 16 or 64 KiB pages, and S2SL0 counts levels from 3 down for them."""
    r = Rig(endpoint=False).start()
    low = VMID | 24 << 32 | 1 << 38 | GRANULE[granule][0] << 46 | 5 << 48 | 1 << 51 | 1 << 58
    r.ste(SIDS[0], words(VALID | 6 << 1, 0, low, TABLES))
    tables = Tables(r, TABLES, granule)
    tables.next = TABLES + 0x10_0000
    index_bits = 40 - (granule + granule - 3)
    assert index_bits <= granule + 1
    top = (1 << index_bits) - 1
    level3 = TABLES + 0x10_0000
    r.memory.poke(TABLES + 8 * top, (level3 | 3).to_bytes(8, "little"))
    last = (1 << granule - 3) - 1
    r.memory.poke(level3 + 8 * last, (RAM | RW | 3).to_bytes(8, "little"))
    r.memory.poke(RAM + 0x40, b"\x33")
    assert r.load((1 << 40) - (1 << granule) + 0x40, 1) == 0x33
    refused(r, 1 << 40)
    assert kind(r) == 0x10


# -- invalidations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (SYNC, "gap"), (command(NH_ALL, VMID), ""), (command(NH_ALL, VMID + 1), "gap"),
        (command(NH_ASID, VMID | ASID << 16), "g"), (command(NH_ASID, VMID | (ASID + 1) << 16), "gap"),
        (command(NH_VA, VMID | ASID << 16, IOVA + 0x1000), "gp"), (command(NH_VA, VMID | ASID << 16, IOVA), "ap"),
        (command(NH_VA, VMID | (ASID + 1) << 16, IOVA + 0x1000), "gap"), (command(NH_VAA, VMID, IOVA + 0x2000), "ga"),
        (command(S12, VMID), ""), (command(NSNH), ""), (command(S2_IPA, VMID, IOVA), "gap"),
    ],
)  # fmt: skip
def test_stage1_invalidations(item: bytes, kept: str) -> None:
    """Each TLBI drops exactly what it names of a global page (g) and of two pages of the ASID (a, p)."""
    r, tables = rig()
    pages = {"g": AF | USER, "a": PAGE, "p": PAGE}
    for n, (_, attributes) in enumerate(pages.items()):
        tables.map(IOVA + n * 0x1000, DATA + n * 0x1000, attributes)
        r.memory.poke(DATA + n * 0x1000, b"old")
        r.memory.poke(DATA + 0x4000 + n * 0x1000, b"new")
        r.load(IOVA + n * 0x1000)
    for n, (_, attributes) in enumerate(pages.items()):
        tables.map(IOVA + n * 0x1000, DATA + 0x4000 + n * 0x1000, attributes)
    r.run(item, SYNC)
    old = int.from_bytes(b"old", "little")
    assert "".join(name for n, name in enumerate(pages) if r.load(IOVA + n * 0x1000, 4) == old) == kept


@pytest.mark.parametrize(
    ("item", "dropped"),
    [
        (SYNC, False), (command(CFGI_CD, SIDS[0], 1), True), (command(CFGI_CD | 1 << 12, SIDS[0], 1), False),
        (command(CFGI_CD, SIDS[1], 1), False), (command(CFGI_CD_ALL, SIDS[0]), True), (command(CFGI_CD_ALL, SIDS[1]), False),
        (command(3, SIDS[0], 1), True), (command(4, 0, 31), True), (command(NSNH), False),
    ],
)  # fmt: skip
def test_context_invalidations(item: bytes, dropped: bool) -> None:
    """CFGI_CD drops one substream's context, CFGI_CD_ALL a stream's, and so do the invalidations of its STE; TLBI none."""
    r, tables = rig()
    tables.map(IOVA, DATA)
    r.load(IOVA)
    r.memory.poke(CONTEXTS, bytes(64))
    r.run(item, SYNC)
    if dropped:
        refused(r)
        assert kind(r) == 0x0A
    else:
        r.load(IOVA)


def test_asids_keep_contexts_apart() -> None:
    """Two streams of one VMID with different ASIDs never share a page that is not global, and do share a global one."""
    r, tables = rig()
    r.ste(SIDS[1], ste1(low=0x40))
    r.memory.poke(CONTEXTS + 0x40, cd(SPARE, asid=ASID + 1))
    other = Tables(r, SPARE)
    for n, attributes in enumerate((PAGE, AF | USER)):
        tables.map(IOVA + n * 0x1000, DATA + n * 0x1000, attributes)
        other.map(IOVA + n * 0x1000, DATA + 0x4000 + n * 0x1000, attributes)
        r.memory.poke(DATA + n * 0x1000, b"\1")
        r.memory.poke(DATA + 0x4000 + n * 0x1000, b"\2")
        r.load(IOVA + n * 0x1000)
    assert [r.load(IOVA + n * 0x1000, 1, function=1) for n in range(2)] == [2, 1]


def test_stall_is_refused() -> None:
    """There is no stall model: RESUME and STALL_TERM are illegal commands, and IDR0 says so."""
    for opcode in (0x44, 0x45):
        r, _ = rig()
        assert r.run(command(opcode), SYNC) == 1 << 24
    assert r.reg(0) >> 24 & 3 == 1
    assert r.reg(CR0ACK) == SMMUEN | CMDQEN | EVENTQEN == r.reg(CR0)
