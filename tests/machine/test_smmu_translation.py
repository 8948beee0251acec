"""Stream table entries, stage-2 walks, faults and their records, ordering (sheet 12)."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault, ns, us
from tests.machine.smmute_bench import (
    AF,
    BYPASS,
    CMDQEN,
    CR0,
    CR2,
    DATA,
    EVENTQ_PROD,
    EVENTQEN,
    GBPA,
    HOLE,
    IOVA,
    LOG2_SIDS,
    MSI_IOVA,
    RAM,
    RW,
    S2AP_R,
    S2AP_W,
    SIDS,
    SMMUEN,
    STRTAB,
    STRTAB_BASE,
    STRTAB_CFG,
    SYNC,
    TABLES,
    TRANSLATER,
    VALID,
    Rig,
    command,
    smmu_alone,
    ste,
)

READ = 1 << 35
STAGE2_IN = 1 << 39 | 2 << 40


def refused(r: Rig, iova: int = IOVA, *, write: bool = False) -> None:
    with pytest.raises(BusFault, match="SLVERR"):
        if write:
            r.store(iova, 1)
        else:
            r.load(iova)


# -- walks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "span"), [(1, 1 << 30), (2, 1 << 21), (3, 1 << 12)])
def test_blocks_and_pages(level: int, span: int) -> None:
    """A 1 GiB or 2 MiB block or a 4 KiB page maps its first and last word, and nothing behind it."""
    r = smmu_alone()
    iova = 5 << 39 | 3 << 30
    r.map(iova, RAM & -span, level=level)
    offset = RAM & span - 1
    r.memory.poke(RAM, b"first---")
    r.memory.poke((RAM & -span) + span - 8, b"last----")
    assert r.load(iova + offset) == int.from_bytes(b"first---", "little")
    if level > 1:
        assert r.load(iova + span - 8) == int.from_bytes(b"last----", "little")
    refused(r, iova + span)
    assert r.counts(r.smmu, "translations", "faults") == [2 if level > 1 else 1, 1]


@pytest.mark.parametrize(
    ("t0sz", "sl0", "start"), [(16, 2, 0), (25, 1, 1), (24, 1, 1), (21, 1, 1), (34, 0, 2), (30, 0, 2)]
)
def test_start_levels_and_concatenated_tables(t0sz: int, sl0: int, start: int) -> None:
    """S2SL0 names the first level, and a larger input size concatenates up to 16 tables there."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(t0sz=t0sz, sl0=sl0))
    top = (1 << 64 - t0sz) - 0x1000
    r._next = TABLES + 0x2_0000
    r.map(top, DATA, start=start)
    r.memory.poke(DATA + 8, b"abcdefgh")
    assert r.load(top + 8) == int.from_bytes(b"abcdefgh", "little")
    if t0sz > 16:
        refused(r, 1 << 64 - t0sz)
        assert r.event(0)[0] & 0xFF == 0x10


def test_second_access_needs_no_walk() -> None:
    """The STE and the translation are cached: one walk of four descriptors and one STE fetch serve two accesses."""
    r = smmu_alone()
    r.map(IOVA, DATA)
    before = r.now
    r.load(IOVA)
    first = r.now - before
    before = r.now
    r.load(IOVA + 8)
    second = r.now - before
    assert first - second == 5 * ns(120)
    assert r.smmu.count["tlb_misses"] == 1


def test_long_transfers_in_one_access() -> None:
    """Any size up to 4096 bytes within a page goes through as one access; one across a page is refused."""
    r = smmu_alone()
    r.map(IOVA, DATA)
    r.map(IOVA + 0x1000, DATA + 0x1000)
    data = bytes(range(251)) * 17
    r.bench.call("ep0", r.dma[0].bus.write_block(IOVA, data[:4096]))
    assert r.memory.peek(DATA, 4096) == data[:4096]
    assert r.bench.call("ep0", r.dma[0].bus.read_block(IOVA + 3, 77)) == data[3:80]
    assert r.smmu.count["translations"] == 2
    refused(r, IOVA + 0xFFC)
    assert r.event(0) == [0x01 | SIDS[0] << 32, 0, IOVA + 0xFFC, 0]


# -- faults ------------------------------------------------------------------------------------------------------------


def test_unmapped_address() -> None:
    """F_TRANSLATION: StreamID, direction, class IN, stage 2, input address and IPA page."""
    r = smmu_alone()
    refused(r, IOVA + 0x123 & ~7)
    refused(r, IOVA, write=True)
    assert r.event(0) == [0x10 | SIDS[0] << 32, STAGE2_IN | READ, IOVA + 0x120, IOVA]
    assert r.event(1) == [0x10 | SIDS[0] << 32, STAGE2_IN, IOVA, IOVA]
    assert r.reg(EVENTQ_PROD) == 2
    assert r.counts(r.smmu, "faults", "translations", "events") == [2, 0, 2]


def test_privilege_and_instruction_show_in_the_record() -> None:
    """PnU and InD of the record are those of the access; a write is never an instruction."""
    r = smmu_alone()
    for attr, write in ((2 | 1, False), (2 | 4, False), (2 | 4, True)):
        with pytest.raises(BusFault):
            if write:
                r.store(IOVA, 0, attr=attr)
            else:
                r.load(IOVA, attr=attr)
    assert [r.event(n)[1] >> 33 & 7 for n in range(3)] == [0b101, 0b110, 0b000]


@pytest.mark.parametrize(
    ("attributes", "write", "event"),
    [(AF | S2AP_R, True, 0x13), (AF | S2AP_W, False, 0x13), (S2AP_R | S2AP_W, False, 0x12)],
)
def test_permission_and_access_flag(attributes: int, write: bool, event: int) -> None:
    """S2AP refuses the other direction, also on a TLB hit, and a clear access flag refuses both."""
    r = smmu_alone()
    r.map(IOVA, DATA, attributes=attributes)
    if event == 0x13:
        (r.load if write else lambda at: r.store(at, 5))(IOVA)
    refused(r, IOVA, write=write)
    assert r.event(0)[0] & 0xFF == event
    assert r.event(0)[1] & READ == (0 if write else READ)


def test_abort_behind_the_smmu_is_passed_on() -> None:
    """A translated access that nothing answers ends as it ended there, and is no fault of the SMMU."""
    r = smmu_alone()
    r.map(IOVA, HOLE)
    with pytest.raises(BusFault, match="DECERR"):
        r.load(IOVA)
    assert r.counts(r.smmu, "translations", "faults") == [1, 0]


def test_access_flag_fault_can_be_disabled() -> None:
    """With S2AFFD a clear access flag does not fault."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(extra=1 << 53))
    r.map(IOVA, DATA, attributes=S2AP_R)
    assert r.load(IOVA) == 0


def test_output_address_beyond_s2ps() -> None:
    """F_ADDR_SIZE when a descriptor's address has more bits than S2PS allows."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(extra=5 << 48))
    r.map(IOVA, 1 << 33)
    refused(r)
    assert r.event(0)[:2] == [0x11 | SIDS[0] << 32, STAGE2_IN | READ]


def test_input_address_beyond_the_machine() -> None:
    """F_ADDR_SIZE of stage 1 when the input address has more bits than the SMMU."""
    r = smmu_alone(oas=44)
    refused(r, 1 << 44)
    assert r.event(0)[:3] == [0x11 | SIDS[0] << 32, 2 << 40 | READ, 1 << 44]


def test_aborted_walk() -> None:
    """F_WALK_EABT with class TT and the address of the descriptor that could not be fetched."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(HOLE))
    refused(r)
    assert r.event(0) == [0x0B | SIDS[0] << 32, 1 << 39 | 1 << 40 | READ, IOVA, HOLE]


def test_reserved_descriptors() -> None:
    """A block at level 0, and at level 3 an entry that is not a page, are not mapped."""
    r = smmu_alone()
    r.memory.poke(TABLES, (RW | 1).to_bytes(8, "little"))
    refused(r, IOVA)
    r.map(1 << 39, DATA)
    table = TABLES + 8
    for _ in range(3):
        entry = int.from_bytes(r.memory.peek(table, 8), "little") & ~0xFFF
        table = entry
    r.memory.poke(table, (DATA | RW | 1).to_bytes(8, "little"))
    refused(r, 1 << 39)
    assert [r.event(n)[0] & 0xFF for n in range(2)] == [0x10, 0x10]


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        ste(low=0), ste(low=VALID | 5 << 1), ste(low=VALID | 7 << 1), ste(extra=1 << 51), ste(extra=3 << 46), ste(extra=1 << 52),
        ste(extra=1 << 55), ste(extra=1 << 57), ste(t0sz=15), ste(t0sz=40), ste(t0sz=16, sl0=1), ste(sl0=3), ste(1 << 50),
    ],
)  # fmt: skip
def test_bad_ste(entry: bytes) -> None:
    """C_BAD_STE, with the StreamID and no address, for an entry that is invalid or asks for what is not there."""
    r = smmu_alone(stage1=False)
    r.ste(SIDS[0], entry)
    refused(r)
    assert r.event(0) == [0x04 | SIDS[0] << 32, 0, 0, 0]


def test_bad_ste_is_not_cached() -> None:
    """An entry made valid after a fault is used without an invalidation."""
    r = smmu_alone()
    r.ste(SIDS[0], bytes(64))
    r.map(IOVA, DATA)
    refused(r)
    r.ste(SIDS[0], ste())
    assert r.load(IOVA) == 0


def test_config_abort_is_silent() -> None:
    """STE.Config = 0 aborts without an event, and counts a fault."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(low=VALID))
    refused(r)
    assert r.reg(EVENTQ_PROD) == 0
    assert r.smmu.count["faults"] == 1


def test_config_bypass() -> None:
    """STE.Config = 4 passes physical addresses, MSIs included, and counts no translation."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(low=VALID | BYPASS))
    r.store(DATA, 0x77)
    r.store(TRANSLATER, 5, 4)
    assert r.memory.peek(DATA, 1) == b"\x77"
    assert [msi[1:] for msi in r.msis] == [(SIDS[0], 5)]
    assert r.counts(r.smmu, "bypassed", "translations") == [2, 0]


def test_s2r_clear_records_nothing() -> None:
    """With S2R = 0 a stage-2 fault aborts without a record."""
    r = smmu_alone()
    r.ste(SIDS[0], ste(extra=1 << 58))
    refused(r)
    assert r.reg(EVENTQ_PROD) == 0


def test_streams_have_their_own_tables() -> None:
    """The same IOVA of two streams leads to different memory."""
    r = smmu_alone()
    r.map(IOVA, DATA)
    other = TABLES + 0x10_0000
    r.ste(SIDS[1], ste(other, extra=1))
    r.map(IOVA, DATA + 0x1000, root=other)
    r.store(IOVA, 1, function=0)
    r.store(IOVA, 2, function=1)
    assert (r.memory.peek(DATA, 1), r.memory.peek(DATA + 0x1000, 1)) == (b"\1", b"\2")


def test_stream_beyond_the_table() -> None:
    """C_BAD_STREAMID when the table is too small, recorded only with CR2.RECINVSID."""
    for recorded in (False, True):
        r = smmu_alone()
        r.set(CR0, CMDQEN | EVENTQEN)
        r.set(CR2, 2 if recorded else 0)
        r.set(STRTAB_CFG, 8)
        r.set(CR0, SMMUEN | CMDQEN | EVENTQEN)
        refused(r)
        assert r.reg(EVENTQ_PROD) == int(recorded)
        if recorded:
            assert r.event(0) == [0x02 | SIDS[0] << 32, 0, 0, 0]


def test_aborted_ste_fetch() -> None:
    """F_STE_FETCH with the address of the entry."""
    r = smmu_alone()
    r.set(CR0, CMDQEN | EVENTQEN)
    r.set(STRTAB_BASE, HOLE, 8)
    r.set(CR0, SMMUEN | CMDQEN | EVENTQEN)
    refused(r)
    assert r.event(0) == [0x03 | SIDS[0] << 32, 0, 0, HOLE + SIDS[0] * 64]


@pytest.mark.parametrize("split", [6, 8, 10])
def test_two_level_stream_table(split: int) -> None:
    """A two-level table finds the entry by the split; a span that ends before the stream, or no span, is no stream."""
    r = smmu_alone()
    r.set(CR0, CMDQEN | EVENTQEN)
    level2 = STRTAB + 0x10_0000
    slot = STRTAB + 8 * (SIDS[1] >> split)
    r.memory.poke(slot, (level2 | split + 1).to_bytes(8, "little"))
    r.memory.poke(level2 + (SIDS[1] & (1 << split) - 1) * 64, ste())
    r.set(STRTAB_CFG, LOG2_SIDS | split << 6 | 1 << 16)
    r.set(CR0, SMMUEN | CMDQEN | EVENTQEN)
    r.map(IOVA, DATA)
    r.store(IOVA, 9, function=1)
    assert r.memory.peek(DATA, 1) == b"\x09"
    r.run(command(0x04, 0, 31), SYNC)
    for span in (1, 0):
        r.memory.poke(slot, (level2 | span).to_bytes(8, "little"))
        with pytest.raises(BusFault):
            r.load(IOVA, function=1)
    assert [r.event(n)[0] & 0xFF for n in range(2)] == [0x02, 0x02]


@pytest.mark.parametrize("abort", [False, True])
def test_disabled_smmu_follows_gbpa(abort: bool) -> None:
    """With SMMUEN = 0 transactions bypass, or abort without an event when GBPA.ABORT is set by an update."""
    r = smmu_alone()
    r.set(CR0, CMDQEN | EVENTQEN)
    r.set(GBPA, 1 << 20)
    assert r.reg(GBPA) == 0
    r.set(GBPA, 1 << 31 | abort << 20)
    assert r.reg(GBPA) == abort << 20
    if abort:
        refused(r, DATA, write=True)
    else:
        r.store(DATA, 3)
    assert r.memory.peek(DATA, 1) == (b"\0" if abort else b"\3")
    assert r.reg(EVENTQ_PROD) == 0


def test_gbpa_abort_at_reset() -> None:
    """The parameter gbpa_abort makes an SMMU that software has not touched refuse everything."""
    r = Rig(endpoint=False, gbpa_abort=True)
    refused(r, DATA)


# -- ordering ----------------------------------------------------------------------------------------------------------


def test_msi_never_overtakes_its_data() -> None:
    """With a slow memory link an MSI leaves only when the stream's earlier writes are in memory; the mark is the cause."""
    r = smmu_alone(slow=us(5))
    r.map(IOVA, DATA)
    r.map(MSI_IOVA, TRANSLATER & ~0xFFF)
    bus = r.dma[0].bus
    sent: list[int] = []

    async def body() -> None:
        bus.post_block(IOVA, b"\x5a" * 256)
        bus.post(IOVA + 0x100, 1, 8)
        sent.append(r.dma[0].now)
        bus.post32(MSI_IOVA + 0x40, 3)
        await bus.dsb()

    data_at_msi: list[bytes] = []
    respond = r.its.respond

    def watch(peer: Any, message: Any) -> None:
        data_at_msi.append(r.memory.peek(DATA, 0x101))
        respond(peer, message)

    r.its.respond = watch
    r.bench.call("ep0", body())
    assert data_at_msi == [b"\x5a" * 256 + b"\1"]
    assert r.marks() == [["msi", [SIDS[0], 3, sent[0]]]]


def test_msi_does_not_wait_for_another_stream() -> None:
    """An MSI of one function is not held by the other's writes under way."""
    r = smmu_alone(slow=us(5))
    r.map(IOVA, DATA)
    r.map(MSI_IOVA, TRANSLATER & ~0xFFF)
    for function in (0, 1):
        r.load(IOVA, function=function)
        r.store(MSI_IOVA + 0x40, 0, 4, function=function)
    r.msis.clear()
    start = r.now
    done: list[int] = []

    async def data() -> None:
        await r.dma[0].bus.write64(IOVA, 1)
        done.append(r.dma[0].now)

    r.bench._pending.append(("ep0", data()))
    r.bench.call("ep1", r.dma[1].bus.write32(MSI_IOVA + 0x40, 1))
    assert r.msis == [(start + ns(250 + 40), SIDS[1], 1)]
    assert done[0] > r.msis[0][0]


def test_writes_of_a_stream_stay_in_order_and_reads_push_them() -> None:
    """A write whose page is cached does not pass an earlier one that needs a walk, and a read sees both."""
    r = smmu_alone()
    r.map(IOVA, DATA)
    r.map(IOVA + 0x1000, DATA)
    r.load(IOVA)
    bus = r.dma[0].bus
    seen: list[int] = []

    async def body() -> None:
        bus.post(IOVA + 0x1000, 1)
        bus.post(0xDEAD_0000, 9)
        bus.post(IOVA, 2)
        seen.append(await bus.read64(IOVA))

    r.bench.call("ep0", body())
    assert seen == [2]
    assert r.memory.peek(DATA, 1) == b"\2"


def test_translater_takes_four_bytes() -> None:
    """A write of another size to GITS_TRANSLATER is refused, and so is a read."""
    r = smmu_alone()
    r.map(MSI_IOVA, TRANSLATER & ~0xFFF)
    refused(r, MSI_IOVA + 0x40, write=True)
    with pytest.raises(BusFault):
        r.load(MSI_IOVA + 0x40, 4)
    assert r.msis == []


def test_device_id_is_that_of_the_plan() -> None:
    """DeviceID is StreamID plus device_id_offset, whatever the endpoint writes."""
    r = smmu_alone(device_id_offset=0x100)
    r.map(MSI_IOVA, TRANSLATER & ~0xFFF)
    r.store(MSI_IOVA + 0x40, 0xFFFF_FFFF, 4, function=1)
    assert [msi[1:] for msi in r.msis] == [(SIDS[1] + 0x100, 0xFFFF_FFFF)]
