"""Substreams, both stages together, and invalidations of contexts and TLBs (IHI 0070 chapters 3.3, 4.3, 4.4)."""

from __future__ import annotations

import pytest

from cosim.api import BusFault
from nodes.arch.pcie import with_pasid
from tests.machine.smmu_stage1_bench import (
    ASID,
    CFGI_CD,
    CFGI_CD_ALL,
    CLASS_IN,
    CLASS_TT,
    CONTEXTS,
    GRANULE,
    NH_ALL,
    NH_ASID,
    NH_VA,
    NH_VAA,
    NSNH,
    PAGE,
    READ,
    S2,
    S2_IPA,
    S12,
    SPARE,
    TTB,
    USER,
    Tables,
    cd,
    kind,
    refused,
    rig,
    ste1,
    words,
)
from tests.machine.smmute_bench import (
    AF,
    CMDQEN,
    CR0,
    CR0ACK,
    DATA,
    EVENTQEN,
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
