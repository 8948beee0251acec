"""Registers of the redistributor: identification, waking, SGIs and PPIs, RWP, invalidation."""

from __future__ import annotations

import pytest

from cosim.api import NONSECURE, SECURE, ns
from tests.machine.redistributor_bench import (
    CTLR,
    GICR,
    INVLPIR,
    PEND,
    PENDBASER,
    PROPBASER,
    SGI_BASE,
    SYNCR,
    TYPER,
    VPENDBASER,
    WAKER,
    Gic,
)

ISENABLER, ICENABLER, ISPENDR, ICPENDR = (SGI_BASE + o for o in (0x100, 0x180, 0x200, 0x280))
ISACTIVER, ICACTIVER, IPRIORITYR, ICFGR1 = (SGI_BASE + o for o in (0x300, 0x380, 0x400, 0xC04))
IGROUPR = SGI_BASE + 0x80


@pytest.mark.parametrize(
    ("version", "bits"), [("4.1", 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 26), ("4.0", 0x2F), ("3", 0x21)]
)
def test_typer_tells_version_and_affinity(version: str, bits: int) -> None:
    """GICR_TYPER has the features of each GIC version, ProcessorNumber, Last and the affinity."""
    gic = Gic(2, affinities=[0x0, 0x0102_0304], boot=False, gic_version=version)
    assert gic.read(TYPER, 8) == bits
    assert gic.read(TYPER, 8, rd=1) == bits | 1 << 4 | 1 << 8 | 0x0102_0304 << 32


@pytest.mark.parametrize(("version", "rev"), [("4.1", 0x4B), ("3", 0x3B)])
def test_pidr2_matches_the_version(version: str, rev: int) -> None:
    """PIDR2.ArchRev is 4 for GICv4 and 3 for GICv3."""
    assert Gic(boot=False, gic_version=version).read(0xFFE8) == rev


def test_waker_belongs_to_secure_software() -> None:
    """WAKER is RAZ/WI for Non-secure accesses; Secure software wakes the PE, and ChildrenAsleep follows."""
    gic = Gic(boot=False)
    assert gic.read(WAKER, attr=SECURE) == 6
    gic.write(WAKER, 0)
    assert gic.read(WAKER) == 0 and gic.read(WAKER, attr=SECURE) == 6
    gic.write(WAKER, 0, attr=SECURE)
    assert gic.read(WAKER, attr=SECURE) == 0


def test_sleep_takes_back_what_the_pe_holds_and_waking_offers_it_again() -> None:
    """ProcessorSleep quiesces the CPU interface; pending interrupts are kept and come back after waking."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)
    assert gic.holds()
    gic.write(WAKER, 2, attr=SECURE)
    assert gic.read(WAKER, attr=SECURE) == 6
    assert not gic.holds()
    gic.write(WAKER, 0, attr=SECURE)
    assert gic.take() == 0


def test_ppi_level_is_pending_again_after_deactivation() -> None:
    """A level-sensitive PPI that is still high becomes pending again when it is deactivated, and not before."""
    gic = Gic()
    gic.write(ISENABLER, 1 << 27)
    gic.on_pe(lambda_drive(gic, 27, 1))
    assert gic.take() == 27
    assert gic.read(ISACTIVER) == 1 << 27 and gic.read(ISPENDR) == 1 << 27
    assert not gic.holds()
    gic.on_pe(lambda_up(gic, "Deactivate", 27, 1))
    assert gic.take() == 27
    gic.on_pe(lambda_drive(gic, 27, 0))
    gic.on_pe(lambda_up(gic, "Deactivate", 27, 1))
    assert not gic.holds() and gic.read(ISPENDR) == 0


def test_ppi_level_drop_withdraws_the_offer() -> None:
    """A level that goes low before the acknowledge leaves nothing to acknowledge."""
    gic = Gic()
    gic.write(ISENABLER, 1 << 25)
    gic.on_pe(lambda_drive(gic, 25, 1))
    assert gic.holds()
    gic.on_pe(lambda_drive(gic, 25, 0))
    assert gic.take() == 1023


def test_edge_ppi_stays_pending_when_the_line_falls() -> None:
    """An edge-triggered PPI latches its rising edge; ICPENDR clears it."""
    gic = Gic()
    gic.write(ICFGR1, 2 << 2 * (30 - 16))
    gic.write(ISENABLER, 1 << 30)
    gic.on_pe(lambda_drive(gic, 30, 1))
    gic.on_pe(lambda_drive(gic, 30, 0))
    assert gic.read(ISPENDR) == 1 << 30
    gic.write(ICPENDR, 1 << 30)
    assert gic.take() == 1023


def test_ispendr_adds_a_latch_to_a_high_level() -> None:
    """ISPENDR of a PPI whose level is high leaves it pending when the level falls."""
    gic = Gic()
    gic.on_pe(lambda_drive(gic, 26, 1))
    gic.write(ISPENDR, 1 << 26)
    gic.on_pe(lambda_drive(gic, 26, 0))
    assert gic.read(ISPENDR) == 1 << 26


def test_nonsecure_sees_group_1_only_and_shifted_priorities() -> None:
    """With two Security states a Non-secure access sees NS Group 1 interrupts only, priorities shifted into its half."""
    gic = Gic()
    gic.write(IGROUPR, 0xFFFF_FFFE, attr=SECURE)
    gic.write(ISENABLER, 0b11)
    assert gic.read(ISENABLER) == 0b10 and gic.read(ISENABLER, attr=SECURE) == 0b10
    gic.write(IPRIORITYR, 0xA0A0, attr=NONSECURE)
    assert gic.read(IPRIORITYR) == 0xA000
    assert gic.read(IPRIORITYR, attr=SECURE) == 0x8080_D000
    gic.write(IPRIORITYR + 0, 0x20, 1, attr=SECURE)
    assert gic.read(IPRIORITYR, attr=SECURE) == 0x8080_D020
    assert gic.read(IGROUPR) == 0


def test_one_security_state_shows_everything() -> None:
    """With one Security state Non-secure accesses reach IGROUPR0 and WAKER, and priorities are not shifted."""
    gic = Gic(two_security_states=False)
    gic.write(IGROUPR, 5)
    gic.write(IPRIORITYR, 0xA8)
    assert gic.read(IGROUPR) == 5 and gic.read(IPRIORITYR) == 0xA8 and gic.read(WAKER) == 0


def test_best_is_the_lowest_priority_value_then_the_lowest_intid() -> None:
    """Priority decides, INTID breaks ties, and a better one replaces the one that the PE holds."""
    gic = Gic()
    gic.write(ISENABLER, 0b1111)
    gic.write(IPRIORITYR, 0x40_80_80_A0)
    gic.write(ISPENDR, 0b0001)
    gic.write(ISPENDR, 0b0110)
    assert gic.pes[0].held == (1, 0xC0, 1)
    gic.write(ISPENDR, 0b1000)
    assert [gic.take() for _ in range(5)] == [3, 1, 2, 0, 1023]


def test_changed_priority_is_offered_anew() -> None:
    """A new priority of the interrupt that the PE holds reaches the PE, and it is taken once."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)
    gic.write(IPRIORITYR, 0x10, 1)
    assert gic.pes[0].held == (0, 0x88, 1)
    assert gic.take() == 0 and gic.take() == 1023


def test_rwp_is_one_until_the_pe_gave_back_what_was_disabled() -> None:
    """GICR_CTLR.RWP after ICENABLER0 lasts until the withdrawal is acknowledged, and ends."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)

    first, later = gic.write_and_watch(ICENABLER, 1, CTLR, ns(20))
    assert first & 8 and not later & 8
    assert gic.take() == 1023


def test_icactiver_deactivates_an_sgi_that_was_never_ended() -> None:
    """ICACTIVER0 clears active, and the SGI can come again."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)
    gic.take()
    gic.write(ISPENDR, 1)
    assert not gic.holds()
    gic.write(ICACTIVER, 1)
    assert gic.take() == 0


def test_deactivate_needs_the_right_group() -> None:
    """A Deactivate entitled to Non-secure Group 1 leaves a Group 0 interrupt active."""
    gic = Gic()
    gic.write(IGROUPR, 0, attr=SECURE)
    gic.write(ISACTIVER, 1, attr=SECURE)
    gic.on_pe(lambda_up(gic, "Deactivate", 0, 1))
    assert gic.read(ISACTIVER, attr=SECURE) == 1
    gic.on_pe(lambda_up(gic, "Deactivate", 0, 3))
    assert gic.read(ISACTIVER, attr=SECURE) == 0


def test_sgi_set_after_its_clear_is_not_lost_to_the_old_acknowledge() -> None:
    """ICPENDR0, then ISPENDR0, while the acknowledge of the first one is on its way: the second one stays pending."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)

    async def take() -> None:
        await gic.pes[0].sleep(ns(38))
        gic.pes[0].take()

    async def again() -> None:
        gic.its.bus.post32(GICR + ICPENDR, 1)
        gic.its.bus.post32(GICR + ISPENDR, 1)
        await gic.its.bus.dsb()

    gic.also("pe0", take())
    gic.run(again())
    assert gic.pes[0].taken == [0]
    gic.write(ICACTIVER, 1)
    assert gic.take() == 0 and gic.take() == 1023


def test_group_off_in_the_cpu_interface_does_not_block_another() -> None:
    """An interrupt of a group that is off in ICC_IGRPEN is not sent, so that one of an enabled group gets through."""
    gic = Gic()
    gic.write(IGROUPR, 0xFFFF_FFFE, attr=SECURE)
    gic.on_pe(lambda_up(gic, "UpstreamControl", "GroupEnables", 0b010))
    gic.write(ISENABLER, 0b11, attr=SECURE)
    gic.write(IPRIORITYR, 0xF000, attr=SECURE)
    gic.write(ISPENDR, 0b11, attr=SECURE)
    assert gic.take() == 1
    gic.on_pe(lambda_up(gic, "UpstreamControl", "GroupEnables", 0b011))
    assert gic.take() == 0


def test_icfgr0_is_read_only() -> None:
    """SGIs are always edge-triggered."""
    gic = Gic()
    gic.write(SGI_BASE + 0xC00, 0)
    assert gic.read(SGI_BASE + 0xC00) == 0xAAAA_AAAA


def test_propbaser_is_fixed_while_lpis_are_enabled() -> None:
    """PROPBASER and PENDBASER writes while EnableLPIs is 1 are ignored and counted."""
    gic = Gic()
    before = gic.read(PROPBASER, 8)
    gic.write(PROPBASER, 0x1234_0000, 8)
    gic.write(PENDBASER, 0x1234_0000, 8)
    assert gic.read(PROPBASER, 8) == before and gic.read(PENDBASER, 8) == PEND
    assert gic.rds[0].count["table_writes_ignored"] == 2


def test_syncr_is_busy_for_a_while_after_invlpir() -> None:
    """GICR_SYNCR.Busy reads 1 right after a write of INVLPIR and 0 later."""
    gic = Gic()

    async def invalidate() -> tuple[int, int]:
        bus = gic.its.bus
        bus.post64(GICR + INVLPIR, 8200)
        first = await bus.read32(GICR + SYNCR)
        await gic.its.sleep(ns(50))
        return first, await bus.read32(GICR + SYNCR)

    assert gic.run(invalidate()) == (1, 0)


def test_unmodelled_and_reserved_accesses_are_counted() -> None:
    """An access where this redistributor has no register is RAZ/WI and counted, never silent."""
    gic = Gic()
    gic.write(0x40, 8192, 8)
    assert gic.read(0x5000) == 0
    assert gic.rds[0].count["reserved_accesses"] == 2


def test_ppi_line_out_of_range_is_counted() -> None:
    """A wire line that is no PPI is dropped and counted."""
    gic = Gic()
    gic.on_pe(lambda_drive(gic, 40, 1))
    assert gic.rds[0].count["ppi_errors"] == 1


def test_stray_answer_of_the_pe_is_counted() -> None:
    """Activate of an interrupt that was not sent changes nothing and is counted."""
    gic = Gic()
    gic.on_pe(lambda_up(gic, "Activate", -1, 5))
    assert gic.rds[0].count["stream_violations"] == 1 and gic.read(ISACTIVER) == 0


def test_refused_interrupt_is_not_offered_for_ever() -> None:
    """A PE that gives an interrupt back unasked is not sent it again and again."""
    gic = Gic()
    gic.write(ISENABLER, 1)
    gic.write(ISPENDR, 1)

    def refuse() -> None:
        gic.pes[0].held = None
        gic.pes[0].up("Release", -1, 0)

    gic.on_pe(Bound(gic, refuse))
    assert not gic.holds() and gic.rds[0].count["refused"] == 1


def test_vpendbaser_exists_with_gicv4_only() -> None:
    """A GICv3 redistributor has two frames: what lies behind them ends with an error."""
    gic = Gic(gic_version="3")
    with pytest.raises(Exception, match="SLVERR"):
        gic.read(VPENDBASER, 8)


class Bound:
    """A function that counts as a method of PE 0, for `Gic.on_pe`."""

    def __init__(self, gic: Gic, function: object) -> None:
        self.__self__ = gic.pes[0]
        self._function = function

    def __call__(self) -> object:
        assert callable(self._function)
        return self._function()


def lambda_drive(gic: Gic, line: int, level: int) -> Bound:
    return Bound(gic, lambda: gic.pes[0].ppi.drive(line, level))


def lambda_up(gic: Gic, kind: str, *fields: int | str) -> Bound:
    return Bound(gic, lambda: gic.pes[0].up(kind, *fields))
