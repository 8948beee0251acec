"""The test engine through BARs, SMMU and memory, as a driver uses it."""

from __future__ import annotations

import pytest

from cosim.api import BusFault, ns, us
from nodes.smmute.regs import ERROR, FRAME_MISCONFIGURED, HALTED, MEMCPY, RAND48, SUM64
from tests.machine.smmu_stage1_bench import SPARE, Tables, cd, ste1
from tests.machine.smmute_bench import DATA, IOVA, MSI_IOVA, PCI, RAM, SIDS, TRANSLATER, ready


def test_copy_reaches_memory_and_its_interrupt_the_its() -> None:
    """A MEMCPY by function 1 copies bytes at translated addresses and raises one MSI of its own DeviceID."""
    r = ready()
    data = bytes(n * 7 & 0xFF for n in range(0x100))
    r.memory.poke(DATA + 0x10, data)
    r.program(MEMCPY, IOVA + 0x10, IOVA + 0x10F, function=1, to=IOVA + 0x2003, msidata=3)
    assert r.memory.peek(DATA + 0x2002, 0x102) == b"\0" + data + b"\0"
    assert [msi[1:] for msi in r.msis] == [(SIDS[1], 3)]
    assert r.user("cmd", function=1) == HALTED
    assert (r.user("launched", function=1), r.user("returned", function=1)) == (2, 2)
    assert r.counts(r.smmute, "transactions", "msis") == [1, 1]
    assert r.counts(r.smmu, "msis", "translations", "faults") == [1, 3, 0]


def test_msi_mark_is_the_time_of_the_endpoints_write() -> None:
    """The SMMU's mark has the time at which the endpoint sent the MSI write, a link's latency before it arrived."""
    r = ready()
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    (mark,) = r.marks()
    name, (device, event, sent) = mark
    assert (name, device, event) == ("msi", SIDS[1], 0)
    # arrival at the SMMU is sent + 250 ns; then the walk of 4 descriptors is 120 ns each way, then 40 ns to the ITS
    assert r.msis[0][0] == sent + ns(250) + 4 * ns(120) + ns(40)


def test_status_is_visible_while_running_and_before_the_interrupt() -> None:
    """Right after the start cmd reads the command; the frame is idle before its MSI has left the SMMU."""
    r = ready()
    r.post(MEMCPY, IOVA, IOVA + 0xFF, function=1, to=IOVA + 0x1000)
    r.bench.run(r.now + ns(600))
    assert r.smmute.functions[0x801].bank(0).at("cmd", 0) == MEMCPY
    seen: list[int] = []
    respond = r.its.respond

    def watch(peer: object, message: object) -> None:
        seen.append(r.smmute.functions[0x801].bank(0).at("cmd", 0))
        respond(peer, message)

    r.its.respond = watch
    r.bench.run()
    assert seen == [HALTED]


def test_engine_takes_its_time() -> None:
    """A command lasts engine_latency + bytes / engine_bytes_per_ns longer than its bus accesses."""
    times = []
    for size in (8, 4096):
        r = ready(engine_latency=us(2), engine_bytes_per_ns=4)
        r.program(SUM64, IOVA, IOVA + size - 1, function=1)
        times.append(r.msis[0][0])
    assert times[1] - times[0] == (4096 - 8) * 1000 // 4
    r = ready(engine_latency=us(3), engine_bytes_per_ns=4)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    assert r.msis[0][0] - times[0] == us(1)


def test_sum_and_random_fill() -> None:
    """RAND48 over two pages reseeds at the boundary, and SUM64 adds the words that it left."""
    r = ready()
    first, last = IOVA + 0xF80, IOVA + 0x107F
    r.program(RAND48, first, last, function=1, seed=0x1234)
    data = r.memory.peek(DATA + 0xF80, 0x100)
    assert data[:0x80] == random_bytes(0x1234 ^ first, 0x80)
    assert data[0x80:] == random_bytes(0x1234 ^ IOVA + 0x1000, 0x80)
    r.program(SUM64, first, last, function=1)
    total = sum(int.from_bytes(data[n : n + 8], "little") for n in range(0, 0x100, 8))
    assert r.user("udata1", function=1) == total & (1 << 64) - 1


def random_bytes(seed: int, size: int) -> bytes:
    """What the header's text says, written out a second time."""
    state, out = (seed << 16 | 0x330E) & (1 << 48) - 1, bytearray()
    for _ in range(size):
        one = (state * 25214903917 + 11) % (1 << 48)
        state = (one * 25214903917 + 11) % (1 << 48)
        out.append(((one >> 17) % (1 << 31) | state & 0x80000000) & 0xFF)
    return bytes(out)


def test_fault_gives_error_with_the_address_and_an_event() -> None:
    """DMA to an unmapped IOVA ends with ERROR, the address in udata[2], an MSI, and event 0x10 of the SMMU."""
    r = ready()
    r.program(MEMCPY, IOVA, IOVA + 0xFF, function=1, to=0xDEAD_0000)
    assert r.user("cmd", function=1) == ERROR
    assert r.user("udata2", function=1) == 0xDEAD_0000
    assert len(r.msis) == 1
    assert r.event(0) == [0x10 | SIDS[1] << 32, 2 << 40 | 1 << 39, 0xDEAD_0000, 0xDEAD_0000]
    assert r.counts(r.smmute, "errors", "transactions") == [1, 1]


def test_descending_order_faults_at_the_top() -> None:
    """With seed 0xFFFFFFFF the last page comes first, so that its fault is the one that is reported."""
    for seed, address in ((0, IOVA + 0x1_0000), (0xFFFF_FFFF, IOVA + 0x1_2000)):
        r = ready()
        r.program(RAND48, IOVA, IOVA + 0x1_2FFF, function=1, seed=seed)
        assert r.user("udata2", function=1) == address


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0}, {"stride": 12}, {"msiaddress": 2}, {"msidata": 2048}, {"begin": IOVA + 1}, {"end": IOVA + 6},
        {"begin": 0, "end": (1 << 64) - 1}, {"substreamid": 0x10_0000}, {"command": 5}, {"command": 0xFFFF_FFFD},
        {"attributes": 0x42FF_4248}, {"attributes": 0x42F5_42FF}, {"port": 1}, {"begin": IOVA + 16},
    ],
)  # fmt: skip
def test_misconfigured(change: dict[str, int]) -> None:
    """A frame that breaks a rule reads FRAME_MISCONFIGURED, moves nothing and raises no MSI."""
    r = ready()
    values = {"command": SUM64, "begin": IOVA, "end": IOVA + 7} | change
    command, begin, end = (values.pop(name) for name in ("command", "begin", "end"))
    r.program(command, begin, end, function=1, **values)
    assert r.user("cmd", function=1) == FRAME_MISCONFIGURED
    assert r.msis == []
    assert r.counts(r.smmute, "transactions", "misconfigured") == [0, 1]


def test_frame_that_runs_ignores_writes() -> None:
    """Writes to both halves of a running frame have no effect and are counted; a later write has."""
    r = ready()
    r.post(SUM64, IOVA, IOVA + 7, function=1)
    at = r.frame(1)

    async def late() -> None:
        r.host.bus.post(at + 0x28, 0x55, 8)
        r.host.bus.post(at, HALTED, 4)
        r.host.bus.post(at + 0x1_0000 + 0x10, 0x66, 8)
        await r.host.bus.dsb()

    r.bench._pending.append(("host", late()))
    r.bench.run()
    assert r.user("begin", function=1) == IOVA
    assert r.smmute.count["ignored_writes"] == 3
    assert len(r.msis) == 1
    r.write(at + 0x28, 0x55, 8)
    assert r.user("begin", function=1) == 0x55


def test_many_frames_at_once() -> None:
    """Eight frames of both page pairs run together and each raises its own vector, in less than twice the time of one."""
    r = ready()
    one = ready()
    one.program(MEMCPY, IOVA, IOVA + 0xFFF, function=1, to=IOVA + 0x8000)
    start = r.now
    for n in range(8):
        frame = n if n < 4 else 1024 + n
        r.memory.poke(DATA + n * 0x100, bytes([n + 1]) * 0x100)
        r.post(
            MEMCPY,
            IOVA + n * 0x100,
            IOVA + n * 0x100 + 0xFF,
            function=1,
            frame=frame,
            to=IOVA + 0x4000 + n * 0x100,
            msidata=n,
        )
    r.bench.run()
    assert sorted(msi[2] for msi in r.msis) == list(range(8))
    assert r.msis[-1][0] - start < 2 * (one.msis[0][0] - start)
    for n in range(8):
        assert r.memory.peek(DATA + 0x4000 + n * 0x100, 0x100) == bytes([n + 1]) * 0x100


def test_masked_vector_waits_in_the_pba() -> None:
    """A masked vector sets its pending bit; unmasking the entry, or the function, sends it once (sheet 13, #30)."""
    r = ready()
    table, pba = r.bars(1)[1], r.bars(1)[2]
    r.write(table + 16 * 40 + 12, 1)
    r.entry(1, 40, MSI_IOVA + 0x40, 40, 1)
    r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=40)
    assert r.msis == []
    assert (r.read(pba + 4), r.read(pba, 8)) == (1 << 8, 1 << 40)
    assert r.user("uctrl", function=1) == 0
    r.write(table + 16 * 40 + 12, 0)
    r.bench.run()
    assert [msi[2] for msi in r.msis] == [40]
    assert r.read(pba + 4) == 0
    r.set_config(1, 0x82, 3 << 14, 2)
    r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=2)
    r.program(SUM64, IOVA, IOVA + 7, function=1, msidata=2)
    assert r.read(pba) == 1 << 2
    r.set_config(1, 0x82, 1 << 15, 2)
    r.bench.run()
    assert [msi[2] for msi in r.msis] == [40, 2]


def test_msi_aborted() -> None:
    """Without MSI-X, or when the SMMU refuses the MSI's write, uctrl says MSI_ABORTED; the result stands."""
    r = ready()
    r.set_config(1, 0x82, 0, 2)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    assert (r.user("cmd", function=1), r.user("uctrl", function=1)) == (HALTED, 1)
    assert r.msis == []
    r.set_config(1, 0x82, 1 << 15, 2)
    r.entry(1, 0, 0xBAD_0000, 0, 0)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    assert (r.user("cmd", function=1), r.user("uctrl", function=1)) == (HALTED, 1)
    assert r.counts(r.smmute, "msis_aborted", "msis") == [2, 1]


def test_late_abort_does_not_reach_the_next_user_of_a_frame() -> None:
    """A refused MSI sets MSI_ABORTED only while the frame is still that transaction's: the next one's uctrl stays clear."""
    r = ready(slow=us(5))
    r.entry(1, 0, 0xBAD_0000, 0, 0)
    for claimed in (False, True):
        r.write(r.frame(1) + 4, 0)
        r.post(SUM64, IOVA, IOVA + 7, function=1)

        async def driver() -> None:
            bus = r.host.bus
            await r.host.sleep(us(1))
            while await bus.read32(r.frame(1)) != HALTED:
                await r.host.sleep(us(1))
            await bus.write32(r.frame(1), HALTED)

        if claimed:
            r.bench._pending.append(("host", driver()))
        r.bench.run()
        assert r.user("uctrl", function=1) == (0 if claimed else 1)
    assert r.smmute.count["msis_aborted"] == 2


def test_pending_vector_waits_for_bus_master() -> None:
    """A pending vector that is unmasked while BME is 0 stays pending, and goes when it is 1 again."""
    r = ready()
    control = r.bars(1)[1] + 12
    r.write(control, 1)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    r.set_config(1, 4, 2, 2)
    r.write(control, 0)
    assert (r.msis, r.read(r.bars(1)[2])) == ([], 1)
    r.set_config(1, 4, 6, 2)
    r.bench.run()
    assert (len(r.msis), r.read(r.bars(1)[2])) == (1, 0)


def test_disabling_msix_forgets_pending_vectors() -> None:
    """MSI-X Enable = 0 clears the pending bits: a later enable does not send what is old."""
    r = ready()
    r.write(r.bars(1)[1] + 12, 1)
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    for value in (0, 1 << 15):
        r.set_config(1, 0x82, value, 2)
    r.write(r.bars(1)[1] + 12, 0)
    r.bench.run()
    assert (r.msis, r.read(r.bars(1)[2])) == ([], 0)


def test_strided_copy_moves_beats() -> None:
    """A MEMCPY with stride 24 copies each third 64-bit word to the same place of the destination, whose low bits it drops."""
    r = ready()
    data = bytes(n + 1 for n in range(96))
    r.memory.poke(DATA, data)
    r.program(MEMCPY, IOVA + 3, IOVA + 90, function=1, to=IOVA + 0x2005, stride=24)
    beats = [data[n : n + 8] + bytes(16) for n in range(0, 96, 24)]
    assert r.memory.peek(DATA + 0x2000, 96) == b"".join(beats)
    assert r.user("launched", function=1) == 8


def test_without_bus_master_nothing_leaves() -> None:
    """With Command.BME = 0 an access fails at its address, no MSI is sent and the frame says so."""
    r = ready()
    r.set_config(1, 4, 2, 2)
    before = r.smmu.count["translations"]
    r.program(SUM64, IOVA, IOVA + 7, function=1)
    assert (r.user("cmd", function=1), r.user("uctrl", function=1)) == (ERROR, 1)
    assert r.user("udata2", function=1) == IOVA
    assert r.smmu.count["translations"] == before
    assert r.smmute.count["master_aborts"] == 1


def test_pasid_is_refused() -> None:
    """Without PASID Enable a frame with a 20-bit PASID ends with ERROR, and the engine says why."""
    r = ready()
    r.program(SUM64, IOVA, IOVA + 7, function=1, substreamid=5)
    assert r.user("cmd", function=1) == ERROR
    assert r.smmute.count["pasid_refused"] == 1


def test_pasid_chooses_the_context() -> None:
    """With PASID enabled a frame's accesses go by the substream's context; its MSI, which has none, by the stream's own."""
    r = ready(pasid=True)
    contexts = RAM + 0x70_0000
    r.ste(SIDS[1], ste1(cdmax=4, dss=2))
    r.memory.poke(contexts, cd(asid=1))
    r.memory.poke(contexts + 5 * 64, cd(SPARE, asid=2))
    Tables(r).map(MSI_IOVA, TRANSLATER & ~0xFFF)
    Tables(r, SPARE).map(IOVA, DATA)
    r.memory.poke(DATA, (0x1234).to_bytes(8, "little"))
    assert r.config(1, 0x100) == 0x1B | 1 << 16
    r.set_config(1, 0x106, 1, 2)
    r.program(SUM64, IOVA, IOVA + 7, function=1, substreamid=5)
    assert (r.user("cmd", function=1), r.user("udata1", function=1)) == (HALTED, 0x1234)
    assert [msi[1:] for msi in r.msis] == [(SIDS[1], 0)]
    r.program(SUM64, IOVA, IOVA + 7, function=1, substreamid=0xF_FFFF)
    assert r.event(0)[0] == 0x08 | 0xF_FFFF << 12 | SIDS[1] << 32


def test_idle_frame_reads_halted_and_no_frame_write_halts() -> None:
    """A frame that exists reads HALTED from reset, and writing NO_FRAME acts like HALTED."""
    r = ready()
    assert r.user("cmd", function=1, frame=511) == HALTED
    r.write(r.frame(1, 511), 0)
    assert r.user("cmd", function=1, frame=511) == HALTED


def test_secure_frame_is_hidden() -> None:
    """Only a Secure access clears SSD_NS; the frame then reads zero and ignores Non-secure writes."""
    r = ready()
    at = r.frame(1, 3)
    r.write(at + 0x1_0000, 0)
    assert r.read(at + 0x1_0000) == 1
    r.bench.call("host", r.host.bus.write(at + 0x1_0000, 0, 4, 1))
    r.write(at + 0x24, 9)
    assert (r.read(at), r.read(at + 0x24)) == (0, 0)
    assert r.bench.call("host", r.host.bus.read(at, 4, 1)) == HALTED
    assert r.smmute.count["ignored_writes"] == 1


def test_functions_have_their_own_frames_and_streams() -> None:
    """Function 0 and 1 run the same frame number at once, each with its StreamID and its registers."""
    r = ready()
    r.enable(0)
    r.post(SUM64, IOVA, IOVA + 7, function=0, msidata=1)
    r.post(SUM64, IOVA, IOVA + 15, function=1, msidata=2)
    r.bench.run()
    assert sorted(msi[1:] for msi in r.msis) == [(SIDS[0], 1), (SIDS[1], 2)]


@pytest.mark.parametrize(("offset", "size"), [(2, 2), (0, 1), (0xFFFC, 8)])
def test_bad_accesses_of_frames(offset: int, size: int) -> None:
    """Accesses that are not whole words, or cross from the user to the privileged page, end with SLVERR."""
    r = ready()
    with pytest.raises(BusFault, match="SLVERR"):
        r.read(r.frame(1) + offset, size)
    with pytest.raises(BusFault, match="SLVERR"):
        r.write(r.frame(1) + offset, 0, size)


def test_memory_space_decodes_by_bar_and_enable() -> None:
    """An access that no enabled BAR claims ends with DECERR and is counted; a moved BAR answers at its new place."""
    r = ready()
    with pytest.raises(BusFault, match="DECERR"):
        r.read(PCI + 0x80_0000)
    with pytest.raises(BusFault, match="DECERR"):
        r.read(r.frame(0))
    r.set_config(1, 0x10, (PCI + 0x80_0000) & 0xFFFF_FFFF)
    assert r.read(PCI + 0x80_0000) == HALTED
    r.set_config(1, 4, 4, 2)
    with pytest.raises(BusFault, match="DECERR"):
        r.read(PCI + 0x80_0000)
    assert r.smmute.count["unclaimed_accesses"] == 3


def test_block_of_a_frame_reads_back() -> None:
    """A whole frame reads as one block of its 128 bytes."""
    r = ready()
    r.write(r.frame(1) + 0x78, 0x1122_3344_5566_7788, 8)
    data = r.bench.call("host", r.host.bus.read_block(r.frame(1), 128))
    assert data[:4] == b"\1\0\0\0"
    assert data[0x78:] == bytes.fromhex("8877665544332211")
