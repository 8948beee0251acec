"""The distributor: GICD_CTLR's views and RWP, identification, SPIs from wire to PE and back, SGI targets."""

from __future__ import annotations

import pytest

from cosim.api import NONSECURE, SECURE, ns
from nodes.distributor.spi import Spis
from tests.machine.redistributor_bench import GICD, SGI_BASE, Gic

CTLR, TYPER, TYPER2, PIDR2 = 0x0, 0x4, 0xC, 0xFFE8
IGROUPR1, ISENABLER1, ICENABLER1, ISPENDR1, ICPENDR1 = 0x84, 0x104, 0x184, 0x204, 0x284
ISACTIVER1, ICACTIVER1, IPRIORITYR40, ICFGR2 = 0x304, 0x384, 0x428, 0xC08
SETSPI, CLRSPI = 0x40, 0x48
RWP = 1 << 31
SPI = 40
BIT = 1 << SPI - 32


def irouter(intid: int) -> int:
    return 0x6000 + 8 * intid


def ready(n: int = 1, **params: object) -> Gic:
    """SPI 40 in Non-secure Group 1, enabled, level-sensitive, routed to PE 0."""
    gic = Gic(n, **params)  # type: ignore[arg-type]
    gic.gicd_write(IGROUPR1, 0xFFFF_FFFF, attr=SECURE)
    gic.gicd_write(IPRIORITYR40, 0xA0, 1)
    gic.gicd_write(ISENABLER1, BIT)
    return gic


def drive(gic: Gic, level: int, intid: int = SPI) -> None:
    async def change() -> None:
        gic.its.spi.drive(intid, level)

    gic.run(change())


def deactivate(gic: Gic, intid: int = SPI, pe: int = 0) -> None:
    async def up() -> None:
        gic.pes[pe].up("Deactivate", intid, 1)

    gic.bench.call(f"pe{pe}", up())


def test_ctlr_has_two_views() -> None:
    """Non-secure software sees and changes EnableGrp1A (bit 1) only; ARE_NS is its bit 4; Secure software sees all."""
    gic = Gic(boot=False)
    assert gic.gicd_read(CTLR) == 0x10 and gic.gicd_read(CTLR, attr=SECURE) == 0x30
    gic.gicd_write(CTLR, 0x13)
    assert gic.gicd_read(CTLR) == 0x12 and gic.gicd_read(CTLR, attr=SECURE) == 0x32
    gic.gicd_write(CTLR, 0x37, attr=SECURE)
    assert gic.gicd_read(CTLR, attr=SECURE) & 0x7 == 7
    gic.gicd_write(CTLR, 0)
    assert gic.gicd_read(CTLR, attr=SECURE) & 0x7 == 5


def test_ctlr_with_one_security_state() -> None:
    """With one Security state DS reads 1 and both group enables belong to everybody."""
    gic = Gic(boot=False, two_security_states=False)
    gic.gicd_write(CTLR, 0x113)
    assert gic.gicd_read(CTLR) & ~RWP == 0x53


def test_rwp_lasts_until_every_redistributor_follows() -> None:
    """A write that disables a group: RWP is 1 until all redistributors have taken their interrupts back; enabling sets none."""
    gic = Gic(2)
    gic.write(SGI_BASE + 0x100, 1)
    gic.write(SGI_BASE + 0x200, 1)
    assert gic.holds()

    async def toggle() -> list[int]:
        bus, seen = gic.its.bus, []
        for value in (0, 0x13):
            bus.post32(GICD + CTLR, value)
            seen.append(await bus.read32(GICD + CTLR))
            await gic.its.sleep(ns(100))
            seen.append(await bus.read32(GICD + CTLR))
        return seen

    seen = gic.run(toggle())
    assert [bool(value & RWP) for value in seen] == [True, False, False, False]
    assert gic.take() == 0


@pytest.mark.parametrize(("version", "dvis", "rev"), [("4.1", 1, 4), ("4.0", 1, 4), ("3", 0, 3)])
def test_identification(version: str, dvis: int, rev: int) -> None:
    """TYPER: lines, LPIS, DVIS by version, IDbits, SecurityExtn; TYPER2 has no nASSGIcap; PIDR2 by version."""
    gic = Gic(boot=False, gic_version=version)
    typer = gic.gicd_read(TYPER)
    assert typer & 0x1F == 2 and typer >> 17 & 1 == 1 and typer >> 18 & 1 == dvis
    assert typer >> 19 & 0x1F == 15 and typer >> 10 & 1 == 1
    assert gic.gicd_read(TYPER2) == 0 and gic.gicd_read(PIDR2) >> 4 == rev


def test_typer2_tells_a_smaller_vpeid() -> None:
    """With fewer than 16 vPEID bits TYPER2 has VIL and VID."""
    assert Gic(boot=False, vpe_bits=12).gicd_read(TYPER2) == 1 << 7 | 11


def test_level_spi_goes_to_the_pe_and_comes_again_while_high() -> None:
    """A level-sensitive SPI is acknowledged, stays active, and is pending again after deactivation while its wire is high."""
    gic = ready()
    drive(gic, 1)
    assert gic.pes[0].held == (SPI, 0xD0, 1)
    assert gic.take() == SPI and gic.gicd_read(ISACTIVER1) == BIT
    assert not gic.holds()
    deactivate(gic)
    assert gic.take() == SPI
    drive(gic, 0)
    deactivate(gic)
    assert gic.take() == 1023 and gic.gicd_read(ISPENDR1) == 0


def test_level_that_falls_before_the_acknowledge_is_withdrawn() -> None:
    """A wire that goes low takes the SPI back from the PE."""
    gic = ready()
    drive(gic, 1)
    drive(gic, 0)
    assert gic.take() == 1023


def test_edge_spi_is_taken_once_per_edge() -> None:
    """An edge-triggered SPI stays pending when its wire falls, and one edge while active comes after deactivation."""
    gic = ready()
    gic.gicd_write(ICFGR2, 2 << 2 * (SPI - 32))
    for _ in range(2):
        drive(gic, 1)
        drive(gic, 0)
    assert gic.take() == SPI
    drive(gic, 1)
    assert gic.take() == 1023
    deactivate(gic)
    assert gic.take() == SPI
    deactivate(gic)
    assert gic.take() == 1023


def test_two_wires_on_one_spi_are_ored() -> None:
    """An SPI driven by two nodes is pending until both are low."""
    gic = ready()

    async def second(level: int) -> None:
        gic.pes[0].spi.drive(SPI, level)

    gic.bench.call("pe0", second(1))
    drive(gic, 1)
    drive(gic, 0)
    assert gic.gicd_read(ISPENDR1) == BIT
    gic.bench.call("pe0", second(0))
    assert gic.gicd_read(ISPENDR1) == 0 and gic.take() == 1023


def test_icenabler_withdraws_before_rwp_ends() -> None:
    """ICENABLER: RWP is 1 until the redistributor gave the SPI back; the PE then has nothing to acknowledge."""
    gic = ready()
    drive(gic, 1)

    async def disable() -> tuple[int, int]:
        bus = gic.its.bus
        bus.post32(GICD + ICENABLER1, BIT)
        first = await bus.read32(GICD + CTLR)
        await gic.its.sleep(ns(100))
        return first, await bus.read32(GICD + CTLR)

    first, later = gic.run(disable())
    assert first & RWP and not later & RWP
    assert gic.take() == 1023
    gic.gicd_write(ISENABLER1, BIT)
    assert gic.take() == SPI


def test_spi_taken_while_its_withdrawal_is_on_the_way_is_active() -> None:
    """The PE acknowledges an SPI that is being disabled: it becomes active, once."""
    gic = ready()
    drive(gic, 1)

    async def take() -> None:
        await gic.pes[0].sleep(ns(62))  # the write is at the distributor at 40, Clear at the PE at 65
        gic.pes[0].take()

    async def disable() -> None:
        await gic.its.bus.write32(GICD + ICENABLER1, BIT)

    gic.also("pe0", take())
    gic.run(disable())
    assert gic.pes[0].taken == [SPI]
    assert gic.gicd_read(ISACTIVER1) == BIT and gic.take() == 1023


def test_a_wire_that_toggles_quickly_sends_one_spi_at_a_time() -> None:
    """Changes while a withdrawal is on its way wait for its acknowledge; the SPI is then offered once, as the wire is."""
    gic = ready()

    async def toggle() -> None:
        for level in (1, 0, 1, 0, 1):
            gic.its.spi.drive(SPI, level)
            await gic.its.sleep(ns(3))

    gic.run(toggle())
    assert len(gic.pes[0].log_sets) <= 2 and gic.dist.count["spi_errors"] == 0
    assert gic.take() == SPI
    drive(gic, 0)
    deactivate(gic)
    assert gic.take() == 1023


def test_nothing_is_sent_between_a_withdrawal_and_its_acknowledge() -> None:
    """Whatever changes meanwhile, there is one withdrawal for each SPI sent, and the next follows its acknowledge."""
    log: list[tuple[str, int]] = []
    spis = Spis(
        64,
        [0],
        True,
        5,
        lambda target, intid, priority, group: log.append(("send", priority)),
        lambda target, intid: log.append(("withdraw", intid)),
        lambda intid: None,
    )
    spis.enabled = spis.group = BIT << 32
    for level in (1, 0, 1, 0):
        spis.drive(SPI, level)
    spis.priority[SPI] = 0x80
    spis.drive(SPI, 1)
    assert log == [("send", 0), ("withdraw", SPI)]
    spis.cleared(SPI)
    assert log == [("send", 0), ("withdraw", SPI), ("send", 0x80)]


def test_irouter_chooses_the_pe_and_moves_what_is_pending() -> None:
    """IROUTER sends the SPI to the PE of that affinity; a change takes a pending SPI along; a wrong one is counted."""
    gic = ready(3)
    gic.gicd_write(irouter(SPI), 1 << 16, 8)
    drive(gic, 1)
    assert gic.holds(1)
    gic.gicd_write(irouter(SPI), 2 << 16, 8)
    assert gic.take(1) == 1023 and gic.take(2) == SPI
    deactivate(gic, pe=2)
    gic.gicd_write(irouter(SPI), 9 << 16, 8)
    assert gic.take(2) == 1023 and gic.dist.count["spi_unroutable"] >= 1


def test_one_of_n_spi_avoids_a_pe_that_does_not_take_part() -> None:
    """With IRM=1 a participating PE gets the SPI; when that one sleeps, another does."""
    gic = ready(2)
    gic.gicd_write(irouter(SPI), 1 << 31, 8)
    drive(gic, 1)
    assert gic.holds()
    gic.write(0x14, 2, attr=SECURE)
    assert not gic.holds() and gic.take(1) == SPI


def test_message_based_spi() -> None:
    """SETSPI_NSR makes a level-sensitive SPI pending until CLRSPI_NSR."""
    gic = ready()
    gic.gicd_write(SETSPI, SPI)
    assert gic.holds()
    gic.gicd_write(CLRSPI, SPI)
    assert gic.take() == 1023
    gic.gicd_write(SETSPI, 1000)
    assert gic.dist.count["spi_errors"] == 1


def test_nonsecure_access_does_not_reach_secure_spis() -> None:
    """An SPI that is not in Non-secure Group 1 is RAZ/WI for Non-secure software: enable, priority, router, message."""
    gic = Gic()
    gic.gicd_write(ISENABLER1, BIT)
    gic.gicd_write(IPRIORITYR40, 0xA0, 1)
    gic.gicd_write(irouter(SPI), 1 << 16, 8)
    gic.gicd_write(SETSPI, SPI)
    assert gic.gicd_read(ISENABLER1, attr=SECURE) == 0 and gic.gicd_read(ISPENDR1, attr=SECURE) == 0
    assert gic.gicd_read(IPRIORITYR40, 1, attr=SECURE) == 0 and gic.gicd_read(irouter(SPI), 8, attr=SECURE) == 0
    assert gic.dist.count["spi_errors"] == 1


def test_priority_views() -> None:
    """A Non-secure priority is stored in the lower half of the range and read back as written."""
    gic = ready()
    assert gic.gicd_read(IPRIORITYR40, 1, attr=NONSECURE) == 0xA0
    assert gic.gicd_read(IPRIORITYR40, 1, attr=SECURE) == 0xD0


def test_pending_and_active_registers() -> None:
    """ISPENDR and ICPENDR set and clear the latch; ISACTIVER holds an SPI back, ICACTIVER lets it go."""
    gic = ready()
    gic.gicd_write(ISACTIVER1, BIT)
    gic.gicd_write(ISPENDR1, BIT)
    assert gic.gicd_read(ISPENDR1) == BIT and not gic.holds()
    gic.gicd_write(ICACTIVER1, BIT)
    assert gic.holds()
    gic.gicd_write(ICPENDR1, BIT)
    assert gic.take() == 1023


def test_registers_beyond_the_implemented_spis_are_reserved() -> None:
    """With 64 SPIs the register of INTID 96 reads zero and is counted."""
    gic = ready()
    gic.gicd_write(ISENABLER1 + 8, 0xFFFF_FFFF)
    assert gic.gicd_read(ISENABLER1 + 8) == 0 and gic.dist.count["reserved_accesses"] == 2


AFFINITIES = [0x0, 0x1, 0x1_0000, 0x1_0010, 0x0200_0000]


@pytest.mark.parametrize(
    ("source", "value", "targets"),
    [
        (1, 0x0000_0000_0100_0002, [1]),
        (1, 0x0000_0000_0100_0055, [0]),
        (1, 0x0000_0100_0100_0000, [0, 2, 3, 4]),
        (0, 1 << 32 | 1, [2]),
        (0, 1 << 44 | 1 << 32 | 1, [3]),
        (0, 2 << 48 | 1, [4]),
    ],
)
def test_sgi_targets(source: int, value: int, targets: list[int]) -> None:
    """Target list, range selector and affinities name the PEs; IRM means all but the sender; an SGI to oneself works."""
    gic = Gic(5, boot=False, affinities=AFFINITIES)
    gic.bench.boot()
    assert gic.dist.sgi_targets(source, value) == targets


def test_broadcast_sgi_reaches_every_other_pe() -> None:
    """ICC_SGI1R with IRM from PE 1: every other PE gets SGI 1, once."""
    gic = Gic(4)
    for rd in range(4):
        gic.write(SGI_BASE + 0x100, 0xFFFF, rd=rd)

    async def broadcast() -> None:
        gic.pes[1].up("GenerateSgi", "SGI1R", 0x0000_0100_0100_0000, 1)

    gic.bench.call("pe1", broadcast())
    assert [gic.take(rd) for rd in range(4)] == [1, 1023, 1, 1]


@pytest.mark.parametrize(
    ("group", "modifier", "nsacr", "register", "nonsecure", "accepted"),
    [
        (1, 0, 0, "SGI1R", 1, True),
        (0, 1, 0, "SGI1R", 0, True),
        (0, 0, 0, "SGI0R", 0, True),
        (1, 0, 0, "ASGI1R", 0, True),
        (1, 0, 0, "SGI1R", 0, False),
        (0, 1, 0, "SGI1R", 1, False),
        (0, 0, 0, "SGI0R", 1, False),
        (0, 0, 1, "SGI0R", 1, True),
        (0, 1, 1, "ASGI1R", 1, False),
        (0, 1, 2, "ASGI1R", 1, True),
        (0, 0, 0, "SGI1R", 0, True),
        (1, 0, 0, "SGI0R", 1, False),
    ],
)
def test_sgi_needs_the_right_group(
    group: int, modifier: int, nsacr: int, register: str, nonsecure: int, accepted: bool
) -> None:
    """An SGI goes through when its group at the receiver is that asked for, and GICR_NSACR allows Non-secure requests."""
    gic = Gic()
    gic.write(SGI_BASE + 0x80, group, attr=SECURE)
    gic.write(SGI_BASE + 0xD00, modifier, attr=SECURE)
    gic.write(SGI_BASE + 0xE00, nsacr, attr=SECURE)
    gic.write(SGI_BASE + 0x100, 1, attr=SECURE)

    async def generate() -> None:
        gic.pes[0].up("GenerateSgi", register, 1, nonsecure)

    gic.bench.call("pe0", generate())
    assert gic.take() == (0 if accepted else 1023)
    assert gic.rds[0].count["sgi_dropped"] == int(not accepted)
