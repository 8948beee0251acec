"""Stage 1: walks, permissions, context descriptors and what is wrong in them (IHI 0070 chapters 3.3, 5.4, 7.3)."""

from __future__ import annotations

import pytest

from nodes.smmu.translate import Access
from tests.machine.smmu_stage1_bench import (
    CFGI_CD,
    CFGI_CD_ALL,
    CLASS_IN,
    CLASS_TT,
    CONTEXTS,
    INSTRUCTION,
    NG,
    PAGE,
    PRIVILEGED,
    PXN,
    READ,
    READ_ONLY,
    SPARE,
    TTB,
    USER,
    UXN,
    Tables,
    cd,
    kind,
    refused,
    rig,
    ste1,
)
from tests.machine.smmute_bench import (
    AF,
    DATA,
    HOLE,
    IOVA,
    RAM,
    SIDS,
    SYNC,
    command,
)

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
