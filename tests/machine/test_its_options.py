"""What an ITS has by parameter: records of unmapped MSIs, a vPE table of its own, and states that take time."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import ModelError, ns, us
from tests.machine.gic_machine import GITS, STRIDE, GicMachine, mapti, vmapti, vsync
from tests.machine.its_bench import (
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEV,
    DEV2,
    PAGES_64K,
    REGS,
    TYPER,
    VPES,
    ItsBench,
    mapc,
    mapd,
    standard,
    sync,
    vmapp,
)

STATUSR, UMSIR, MPIDR = 0x40, 0x48, 0x18
UMSI, OVERFLOW = 1 << 4, 1 << 5
SPI = 40

# -- unmapped MSIs -----------------------------------------------------------------------------------------------------


def test_without_umsi_nothing_is_recorded() -> None:
    """GITS_TYPER.UMSI = 0: a dropped MSI leaves STATUSR and UMSIR alone."""
    bench = standard()
    assert bench.read(TYPER) >> 44 & 3 == 0
    bench.msi(DEV2, 1)
    assert bench.read(STATUSR, 4) == bench.read(UMSIR) == 0


@pytest.mark.parametrize(
    ("device_id", "event_id", "cause"),
    [(0x10_0000, 1, 1), (DEV2, 1, 4), (DEV, 32, 5), (DEV, 0, 7), (DEV, 3, 9), (DEV, 4, 2)],
    ids=["device out of range", "unmapped device", "event out of range", "unmapped event", "collection", "vPE"],
)
def test_an_unmapped_msi_is_recorded_with_its_cause(device_id: int, event_id: int, cause: int) -> None:
    """UMSIR has DeviceID and EventID of the first dropped MSI, STATUSR.Syndrome why; it is counted like any other."""
    bench = standard(umsi=True)
    assert bench.read(TYPER) >> 44 & 3 == 1
    bench.msi(device_id, event_id)
    assert bench.read(STATUSR, 4) == UMSI | cause << 6
    assert bench.read(UMSIR) == device_id << 32 | event_id
    assert bench.count["msi_dropped"] == 1


def test_the_first_record_stays_until_it_is_cleared() -> None:
    """A second one sets Overflow only; writing 1 to UMSI makes room for the next record; mapped MSIs leave no record."""
    bench = standard(umsi=True)
    bench.msis((DEV2, 1), (DEV, 0), (DEV, 1))
    assert bench.read(STATUSR, 4) & (UMSI | OVERFLOW) == UMSI | OVERFLOW
    assert bench.read(UMSIR) == DEV2 << 32 | 1
    bench.write(STATUSR, UMSI | OVERFLOW, 4)
    assert bench.read(STATUSR, 4) & (UMSI | OVERFLOW) == 0
    bench.msi(DEV, 0)
    assert bench.read(UMSIR) == DEV << 32 and bench.read(STATUSR, 4) == UMSI | 7 << 6


def test_a_disabled_its_records_nothing() -> None:
    """An MSI that comes while Enabled is 0 is dropped without a record: nobody looked for its mapping."""
    bench = standard(umsi=True)
    bench.write(CTLR, 0, 4)
    bench.msi(DEV2, 1)
    assert bench.read(STATUSR, 4) == 0 and bench.count["msi_dropped"] == 1


def test_umsi_interrupt_follows_record_and_enable() -> None:
    """The SPI is high while CTLR.UMSIirq and STATUSR.UMSI are 1, and reaches the PE it is routed to."""
    gic = GicMachine("4.1", 1, umsi=True, umsi_intid=SPI)
    assert gic.read(GITS + TYPER, 8) >> 44 & 3 == 3

    def level() -> int:
        return gic.dist.spis.level.get(SPI, 0)

    gic.msi(1)
    assert level() == 0, "not enabled"
    gic.write(GITS + CTLR, 1 | 1 << 8)
    assert level() == 1
    gic.write(GITS + STATUSR, UMSI)
    assert level() == 0
    gic.msi(2)
    assert level() == 1
    gic.write(GITS + CTLR, 1)
    assert level() == 0


def test_umsiirq_is_res0_where_it_is_not_supported() -> None:
    """Without `umsi_intid` CTLR.UMSIirq cannot be set."""
    bench = ItsBench(umsi=True).enable()
    bench.write(CTLR, 1 | 1 << 8, 4)
    assert bench.read(CTLR, 4) == 1


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"umsi_intid": 40}, "umsi_intid of its0 must be 0 without umsi, not 40"),
        ({"svpet": 4}, r"svpet of its0 must be in 0\.\.3, not 4"),
        ({"command_ps": -1}, "command_ps of its0 must be in 0"),
    ],
)
def test_options_are_checked(params: dict[str, Any], text: str) -> None:
    """An option that makes no sense is refused by name, with what is allowed."""
    with pytest.raises(ModelError, match=text):
        ItsBench(**params)


# -- time --------------------------------------------------------------------------------------------------------------


def test_creadr_advances_command_by_command() -> None:
    """With `command_ps` software that polls sees CREADR on its way, never past what has taken effect."""
    bench = ItsBench(command_ps=ns(400)).enable()
    target = bench.queue([mapc(icid, 1) for icid in range(8)])

    async def body() -> list[int]:
        await bench.host.bus.write(REGS + CWRITER, target)
        seen: list[int] = []
        while not seen or seen[-1] != target:
            seen.append(await bench.host.bus.read64(REGS + CREADR))
            assert seen[-1] // 32 <= bench.count["commands"]
        return seen

    seen = bench.bench.call("host", body())
    assert seen == sorted(seen) and set(seen) == {32 * n for n in range(9)}
    assert bench.its.now >= 8 * ns(400)


def test_quiescent_takes_time_after_the_disable() -> None:
    """Quiescent is 0 for `quiescent_ps` after Enabled = 0, and GITS_BASER may be written only then."""
    bench = ItsBench(quiescent_ps=us(1)).enable()

    async def body() -> list[int]:
        bus = bench.host.bus
        await bus.write(REGS + CTLR, 0, 4)
        seen = [await bus.read32(REGS + CTLR) >> 31]
        await bus.write(REGS + 0x108, 1 << 63 | COLLECTIONS)
        await bench.host.sleep(us(1))
        return [*seen, await bus.read32(REGS + CTLR) >> 31]

    assert bench.bench.call("host", body()) == [0, 1]
    assert bench.count["ignored_writes"] == 1 and bench.read(0x108) & PAGES_64K


def test_enabled_again_at_once_is_not_quiescent() -> None:
    """Disable and enable within the time: Quiescent stays 0, and what was cached is read again."""
    bench = standard(quiescent_ps=us(1))

    async def body() -> int:
        bus = bench.host.bus
        await bus.write(REGS + CTLR, 0, 4)
        await bus.write(REGS + CTLR, 1, 4)
        await bench.host.sleep(us(2))
        return await bus.read32(REGS + CTLR)

    assert bench.bench.call("host", body()) == 1
    assert bench.msi(DEV, 1) == [(1, "SetLpi", (8200,))]


def test_a_command_is_not_executed_after_the_disable() -> None:
    """Enabled = 0 while a command's time passes: the command waits for Enabled = 1."""
    bench = ItsBench(command_ps=us(1)).enable()
    target = bench.queue([mapc(0, 1), mapd()])

    async def body() -> tuple[int, int]:
        bus = bench.host.bus
        await bus.write(REGS + CWRITER, target)
        await bus.write(REGS + CTLR, 0, 4)
        await bench.host.sleep(us(10))
        before = await bus.read64(REGS + CREADR)
        await bus.write(REGS + CTLR, 1, 4)
        await bench.host.sleep(us(10))
        return before, await bus.read64(REGS + CREADR)

    assert bench.bench.call("host", body()) == (0, 0x40)


# -- the vPE table -----------------------------------------------------------------------------------------------------


def test_svpet_and_affinity_are_shown() -> None:
    """GITS_TYPER.SVPET and GITS_MPIDR are the parameters; before GICv4.1 SVPET is 0."""
    bench = ItsBench(svpet=2, affinity=0x0102_0300)
    assert bench.read(TYPER) >> 41 & 3 == 2 and bench.read(MPIDR, 4) == 0x0102_0300
    assert ItsBench("4.0", svpet=2).read(TYPER) >> 41 & 3 == 0


def test_a_vpe_table_of_its_own_is_written_by_every_vmapp() -> None:
    """With SVPET = 0 the ITS shares its table with nobody: VMAPP with Alloc = 0 writes an entry too."""
    bench = ItsBench(svpet=0).enable()
    assert bench.run(vmapp(7, 3, alloc=0), sync(3)) == [(3, "MapVpe", (7, 0, 0, 0, 0, 15, 1023))]
    assert any(bench.memory.peek(VPES + 8 * 7, 8))
    assert bench.sgir(7, 1) == [(3, "SetVsgi", (7, 1))]


def test_several_itss_with_tables_of_their_own() -> None:
    """Alloc is counted at the home when the ITSs do not share a table; each ITS translates by its own entry."""
    gic = GicMachine("4.1", 2, 2, svpet=0)
    gic.config(8200, base=0x8040_0000)
    for k in range(2):
        gic.write(GITS + k * STRIDE, k << 4)
        gic.write(GITS + k * STRIDE + 0x110, 1 << 63 | PAGES_64K | 0x8600_0000 + k * 0x1_0000, 8)
        gic.write(GITS + k * STRIDE, 1 | k << 4)
        gic.do(gic.vmapp(1, 1, alloc=int(k == 0)), vsync(1), vmapti(1, 8200, 1), mapti(2, 8300, 0), its=k)
    gic.msi(1, its=1)
    assert gic.rds[1].vpes.table[1].maps == 2 and gic.rds[1].vpes.table[1].pending == {8200}
    assert gic.faults() == {}
