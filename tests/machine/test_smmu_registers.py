"""Registers, command queue, event queue, errors and interrupts of the SMMU (sheet 12)."""

from __future__ import annotations

import pytest

from cosim.api import BusFault, ns, us
from tests.machine.smmute_bench import (
    CMDQ,
    CMDQ_BASE,
    CMDQ_CONS,
    CMDQ_PROD,
    CMDQEN,
    CR0,
    CR0ACK,
    DATA,
    EVENTQ_BASE,
    EVENTQ_CONS,
    EVENTQ_PROD,
    EVENTQEN,
    GBPA,
    GERROR,
    GERRORN,
    HOLE,
    IOVA,
    IRQ_CTRL,
    LOG2_QUEUE,
    SIDS,
    SMMUEN,
    STRTAB,
    STRTAB_BASE,
    SYNC,
    TABLES,
    TRANSLATER,
    VMID,
    Rig,
    command,
    smmu_alone,
    ste,
)

CFGI_STE, CFGI_ALL, TLBI_VMALL, TLBI_IPA, TLBI_ALL = 0x03, 0x04, 0x28, 0x2A, 0x30


def fault(r: Rig, iova: int = IOVA) -> None:
    with pytest.raises(BusFault):
        r.load(iova)


# -- registers ---------------------------------------------------------------------------------------------------------


def test_identification() -> None:
    """Both stages or stage 2 only, AArch64 tables of three granules, no stall, two-level stream table, 48-bit output."""
    r = Rig(endpoint=False, stage1=False)
    assert (r.reg(0) & 0b11, r.reg(0) >> 19 & 1, r.reg(4) >> 6 & 0x1F) == (0b01, 0, 0)
    r = Rig(endpoint=False)
    idr0, idr1, idr5 = r.reg(0), r.reg(4), r.reg(0x14)
    assert (idr0 & 0b11, idr0 >> 12 & 1, idr0 >> 19 & 1, idr1 >> 6 & 0x1F) == (0b11, 1, 1, 20)
    assert (idr0 >> 2 & 3, idr0 >> 24 & 3, idr0 >> 27 & 3, idr0 >> 10 & 1, idr0 >> 16 & 1) == (2, 1, 1, 0, 0)
    assert (idr1 & 0x3F, idr1 >> 21 & 0x1F, idr1 >> 16 & 0x1F) == (20, 19, 19)
    assert idr5 == 5 | 0b111 << 4
    assert r.reg(0x18) & 0xFFF == 0x43B


def test_cr0_is_acknowledged_and_has_no_pri_or_ats() -> None:
    """CR0ACK follows CR0, at once or after update_latency; PRIQEN and ATSCHK read zero."""
    r = Rig(endpoint=False)
    r.set(CR0, 0x1F)
    assert (r.reg(CR0), r.reg(CR0ACK)) == (0x0D, 0x0D)
    r = Rig(endpoint=False, update_latency=us(1))

    async def body() -> list[int]:
        bus = r.host.bus
        await bus.write32(0x4000_0000 + CR0, CMDQEN)
        early = await bus.read32(0x4000_0000 + CR0ACK)
        await r.host.sleep(us(1))
        return [early, await bus.read32(0x4000_0000 + CR0ACK)]

    assert r.bench.call("host", body()) == [0, CMDQEN]


def test_gbpa_update_bit_stays_until_done() -> None:
    """GBPA.Update reads one while the update is under way, and the value changes with its end."""
    r = Rig(endpoint=False, update_latency=us(1))

    async def body() -> list[int]:
        bus = r.host.bus
        await bus.write32(0x4000_0000 + GBPA, 1 << 31 | 1 << 20)
        early = await bus.read32(0x4000_0000 + GBPA)
        await r.host.sleep(us(1))
        return [early, await bus.read32(0x4000_0000 + GBPA)]

    assert r.bench.call("host", body()) == [1 << 31, 1 << 20]


@pytest.mark.parametrize(
    ("offset", "size"),
    [(STRTAB_BASE, 8), (0x88, 4), (CMDQ_BASE, 8), (CMDQ_CONS, 4), (EVENTQ_BASE, 8), (EVENTQ_PROD, 4)],
)
def test_registers_in_use_keep_their_value(offset: int, size: int) -> None:
    """Table and queue registers ignore writes while they are used, which is counted, and take them when not."""
    r = smmu_alone()
    before = r.reg(offset, size)
    r.set(offset, 0x40 | before ^ 0x80, size)
    assert r.reg(offset, size) == before
    assert r.smmu.count["ignored_writes"] == 1
    r.set(CR0, 0)
    r.set(offset, before ^ 0x80, size)
    assert r.reg(offset, size) == before ^ 0x80


def test_pri_queue_is_not_there() -> None:
    """The PRI queue's registers are reserved: read zero, counted."""
    r = Rig(endpoint=False)
    r.set(0xC0, 0xFFFF_FFFF, 8)
    assert r.reg(0xC0, 8) == 0
    assert r.smmu.count["reserved_accesses"] == 2


# -- command queue -----------------------------------------------------------------------------------------------------


def test_commands_wrap() -> None:
    """Runs of commands that cross the end of the queue are all consumed; CONS follows PROD with its wrap bit."""
    r = smmu_alone()
    for number in range(1, 8):
        cons = r.run(*[command(TLBI_ALL)] * 4, SYNC)
        assert cons == 5 * number % 16
    assert r.smmu.count["commands"] == 35


def test_full_queue() -> None:
    """Eight commands in a queue of eight are consumed."""
    r = smmu_alone()
    assert r.run(*[command(CFGI_ALL, 0, 31)] * 8) == 8


def test_nothing_runs_while_disabled() -> None:
    """Commands wait while CMDQEN is 0 and run when it is set."""
    r = smmu_alone()
    r.set(CR0, 0)
    assert r.run(SYNC) == 0
    r.set(CR0, CMDQEN)
    assert r.reg(CMDQ_CONS) == 1


def ready() -> Rig:
    r = smmu_alone()
    r.map(IOVA, DATA)
    r.map(IOVA + 0x1000, DATA + 0x1000)
    r.load(IOVA)
    r.load(IOVA + 0x1000)
    r.map(IOVA, DATA + 0x2000)
    r.map(IOVA + 0x1000, DATA + 0x3000)
    for n in range(4):
        r.memory.poke(DATA + n * 0x1000, bytes([n]))
    return r


@pytest.mark.parametrize(
    ("item", "pages"),
    [
        (SYNC, [0, 1]),
        (command(TLBI_ALL), [2, 3]),
        (command(TLBI_VMALL, VMID), [2, 3]),
        (command(TLBI_VMALL, VMID + 1), [0, 1]),
        (command(TLBI_IPA, VMID, IOVA), [2, 1]),
        (command(TLBI_IPA, VMID, IOVA + 0x1000 | 1), [0, 3]),
        (command(TLBI_IPA, VMID + 1, IOVA), [0, 1]),
        (command(CFGI_STE, SIDS[0], 1), [0, 1]),
    ],
)
def test_tlb_invalidations(item: bytes, pages: list[int]) -> None:
    """Each TLBI drops exactly what it names; without one the old translation stays."""
    r = ready()
    r.run(item, SYNC)
    assert [r.load(IOVA + n * 0x1000, 1) for n in range(2)] == pages


def test_ipa_invalidation_reaches_a_block() -> None:
    """TLBI_S2_IPA of an address inside a 2 MiB block drops the block."""
    r = smmu_alone()
    r.map(IOVA, DATA, level=2)
    r.load(IOVA)
    r.map(IOVA, 0, level=2, attributes=0)
    r.run(command(TLBI_IPA, VMID, IOVA + 0x5000), SYNC)
    fault(r)


@pytest.mark.parametrize(
    ("item", "dropped"),
    [
        (command(CFGI_STE, SIDS[0], 1), True),
        (command(CFGI_STE, SIDS[1], 1), False),
        (command(CFGI_ALL, 0, 31), True),
        (command(0x04, SIDS[1], 0), True),
        (command(0x04, 0, 9), False),
        (command(0x04, 0, 11), True),
        (command(TLBI_ALL), False),
    ],
)
def test_configuration_invalidations(item: bytes, dropped: bool) -> None:
    """CFGI commands drop the cached STEs of the streams that they name: one, an aligned power of two, or all."""
    r = smmu_alone()
    r.map(IOVA, DATA)
    r.load(IOVA)
    r.ste(SIDS[0], bytes(64))
    r.run(item, SYNC)
    if dropped:
        fault(r)
    else:
        assert r.load(IOVA) == 0


@pytest.mark.parametrize(
    "opcode", [0x00, 0x05, 0x10, 0x12, 0x20, 0x40, 0x41, 0x44, 0x45, 0x46 | 2 << 12, 0x47, 0x30 | 1 << 10]
)
def test_illegal_command(opcode: int) -> None:
    """CERROR_ILL stops the queue at the command, makes CMDQ_ERR active and signals it; acknowledged, the queue goes on."""
    r = smmu_alone(stage1=False)
    cons = r.run(command(TLBI_ALL), command(opcode), SYNC)
    assert cons == 1 << 24 | 1
    assert r.reg(GERROR) ^ r.reg(GERRORN) == 1
    assert r.lines == [(262, 1), (262, 0)]
    r.memory.poke(CMDQ + 16, SYNC)
    r.set(CMDQ_PROD, 3)
    assert r.reg(CMDQ_CONS) & 0xFFFFF == 1
    r.set(GERRORN, 1)
    assert r.reg(CMDQ_CONS) & 0xFFFFF == 3
    assert r.counts(r.smmu, "command_errors", "commands", "global_errors") == [1, 3, 1]


def test_aborted_command_fetch() -> None:
    """CERROR_ABT when the queue is not in memory."""
    r = smmu_alone()
    r.set(CR0, 0)
    r.set(CMDQ_BASE, HOLE | LOG2_QUEUE, 8)
    r.set(CR0, CMDQEN)
    assert r.run(SYNC) == 2 << 24


def test_long_run_of_commands() -> None:
    """More commands than one 4 KiB fetch holds are consumed in order, up to the illegal one."""
    r = smmu_alone()
    r.set(CR0, 0)
    r.set(CMDQ_BASE, CMDQ | 9, 8)
    r.set(CR0, CMDQEN)
    r.memory.poke(CMDQ, command(TLBI_ALL) * 400 + command(0xFF))
    r.set(CMDQ_PROD, 450)
    assert r.reg(CMDQ_CONS) == 1 << 24 | 400


def test_sync_waits_for_transactions_under_way() -> None:
    """CMD_SYNC completes only after a transaction that began before it, here with a walk of five fetches, is complete."""
    r = smmu_alone(slow=us(5))
    r.map(IOVA, DATA)
    done: dict[str, int] = {}

    async def dma() -> None:
        await r.dma[0].bus.write64(IOVA, 1)
        done["dma"] = r.dma[0].now

    async def host() -> None:
        bus = r.host.bus
        r.memory.poke(CMDQ, command(TLBI_ALL) + SYNC)
        await r.host.sleep(ns(300))
        bus.post32(0x4000_0000 + CMDQ_PROD, 2)
        while await bus.read32(0x4000_0000 + CMDQ_CONS) != 2:
            await r.host.sleep(ns(20))
        done["sync"] = r.host.now

    r.bench._pending.append(("ep0", dma()))
    r.bench.call("host", host())
    assert done["dma"] > us(60)
    assert done["sync"] >= done["dma"] - ns(250)


@pytest.mark.parametrize(("item", "sleep"), [(command(TLBI_ALL), us(25)), (command(CFGI_ALL, 0, 31), 0)])
def test_invalidation_reaches_a_fetch_under_way(item: bytes, sleep: int) -> None:
    """What a walk or an STE fetch that began before an invalidation brings is not cached after it."""
    r = smmu_alone(slow=us(5))
    other = TABLES + 0x10_0000
    r.map(IOVA, DATA)
    r.map(IOVA, DATA + 0x1000, root=other)
    r.memory.poke(DATA, b"\1")
    r.memory.poke(DATA + 0x1000, b"\2")
    r.memory.poke(CMDQ, item)

    async def host() -> None:
        await r.host.sleep(sleep)
        r.host.bus.post32(0x4000_0000 + CMDQ_PROD, 1)
        if item[0] == CFGI_ALL:
            await r.host.sleep(us(15))
            r.ste(SIDS[0], ste(other, extra=1))

    r.bench._pending.append(("host", host()))
    assert r.load(IOVA, 1) == 1
    assert r.smmu.count["commands"] == 1
    if item[0] == TLBI_ALL:
        r.map(IOVA, DATA + 0x1000)
    assert r.load(IOVA, 1) == 2


@pytest.mark.parametrize("target", ["wire", "its", "memory"])
def test_sync_with_a_signal(target: str) -> None:
    """CMD_SYNC with CS = IRQ pulses its wire, or writes its MSI to an ITS or to memory, whichever its address says."""
    r = smmu_alone()
    address = {"wire": 0, "its": TRANSLATER, "memory": DATA}[target]
    r.run(command(0x46 | 1 << 12, 0x1234, address))
    assert r.lines == ([(261, 1), (261, 0)] if target == "wire" else [])
    assert [msi[1:] for msi in r.msis] == ([(0x8_0000, 0x1234)] if target == "its" else [])
    assert r.memory.peek(DATA, 4) == (b"\x34\x12\0\0" if target == "memory" else bytes(4))


# -- event queue -------------------------------------------------------------------------------------------------------


def test_event_interrupt_when_it_becomes_non_empty() -> None:
    """The event interrupt pulses for the first record and again only after software has emptied the queue."""
    r = smmu_alone()
    fault(r)
    fault(r)
    assert r.lines == [(260, 1), (260, 0)]
    r.set(EVENTQ_CONS, 2)
    fault(r)
    assert r.lines == [(260, 1), (260, 0)] * 2


def test_no_interrupt_when_disabled() -> None:
    """Without EVENTQ_IRQEN the record is written in silence."""
    r = smmu_alone()
    r.set(IRQ_CTRL, 0)
    fault(r)
    assert (r.reg(EVENTQ_PROD), r.lines) == (1, [])


def test_event_interrupt_by_msi() -> None:
    """An address in EVENTQ_IRQ_CFG0 makes the interrupt an MSI of the SMMU's own DeviceID."""
    r = smmu_alone()
    r.set(IRQ_CTRL, 0)
    r.set(0xB0, TRANSLATER, 8)
    r.set(0xB8, 0x55)
    r.set(IRQ_CTRL, 4)
    fault(r)
    assert [msi[1:] for msi in r.msis] == [(0x8_0000, 0x55)]
    assert r.lines == []
    assert r.counts(r.smmu, "own_msis", "msis") == [1, 0]


def test_own_msi_that_is_aborted() -> None:
    """An own MSI to nowhere makes MSI_EVENTQ_ABT_ERR active."""
    r = smmu_alone()
    r.set(IRQ_CTRL, 0)
    r.set(0xB0, HOLE, 8)
    r.set(IRQ_CTRL, 4)
    fault(r)
    assert r.reg(GERROR) == 1 << 5


def test_event_queue_wraps_and_overflows() -> None:
    """A queue of eight takes eight records, then sets OVFLG once and loses the rest; acknowledged and emptied it goes on."""
    r = smmu_alone()
    for n in range(10):
        fault(r, IOVA + 0x1000 * n)
    assert r.reg(EVENTQ_PROD) == 1 << 31 | 8
    assert r.event(7)[2] == IOVA + 0x7000
    assert r.counts(r.smmu, "events", "events_lost", "faults") == [8, 2, 10]
    r.set(EVENTQ_CONS, 1 << 31 | 8)
    for n in range(9):
        fault(r, IOVA + 0x10_0000 + 0x1000 * n)
    assert r.reg(EVENTQ_PROD) == 0
    assert r.event(0)[2] == IOVA + 0x10_0000


def test_event_queue_disabled() -> None:
    """With EVENTQEN = 0 records are dropped and counted."""
    r = smmu_alone()
    r.set(CR0, SMMUEN | CMDQEN)
    fault(r)
    assert r.reg(EVENTQ_PROD) == 0
    assert r.smmu.count["events_dropped"] == 1


def test_event_write_aborted() -> None:
    """EVENTQ_ABT_ERR when a record cannot be written; PROD stays."""
    r = smmu_alone()
    r.set(CR0, 0)
    r.set(EVENTQ_BASE, HOLE | LOG2_QUEUE, 8)
    r.set(CR0, SMMUEN | CMDQEN | EVENTQEN)
    fault(r)
    assert r.reg(GERROR) == 1 << 2
    assert r.reg(EVENTQ_PROD) == 0
    assert r.lines == [(262, 1), (262, 0)]


def test_digest_is_the_same_each_time() -> None:
    """Two runs of the same accesses consume the same messages."""
    digests = set()
    for _ in range(2):
        r = smmu_alone()
        r.map(IOVA, DATA)
        r.ste(SIDS[1], ste(STRTAB))
        r.load(IOVA)
        fault(r, IOVA + 0x1000)
        digests.add(r.bench.digest())
    assert len(digests) == 1
