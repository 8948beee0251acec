"""The physical CPU interface: priorities, acknowledge and end, groups, Security states, packets upwards."""

import pytest

from nodes.arch.groups import ANY_GROUP, GROUP0, GROUP1_NS, GROUP1_S
from tests.machine.cpu_interface_bench import NS_A0, SPURIOUS, Bench, booted

LPI = 8192 + 17


def test_linux_takes_an_spi() -> None:
    """At EL2 with EOImode 1: IAR activates, EOIR drops the priority, DIR deactivates; RPR is the shifted view."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    assert bench.irq() and not bench.fiq()
    assert bench.host("ICC_HPPIR1_EL1") == 40 and bench.host("ICC_RPR_EL1") == 0xFF
    assert bench.host("ICC_IAR1_EL1") == 40
    assert not bench.irq()
    assert bench.host("ICC_RPR_EL1") == 0xA0 and bench.el3("ICC_RPR_EL1") == 0xD0
    assert bench.host("ICC_AP1R0_EL1") == 1 << 26
    bench.host("ICC_EOIR1_EL1", 40)
    assert bench.host("ICC_RPR_EL1") == 0xFF
    bench.host("ICC_DIR_EL1", 40)
    assert bench.up() == [("Activate", 40), ("Deactivate", 40, GROUP1_NS)]


def test_eoimode_0_deactivates_at_eoir() -> None:
    """With EOImode 0 EOIR does both, and DIR nothing."""
    bench = booted(eoimode=0)
    bench.cpu.set(27, NS_A0, GROUP1_NS)
    assert bench.host("ICC_IAR1_EL1") == 27
    bench.host("ICC_DIR_EL1", 27)
    assert bench.up() == [("Activate", 27)]
    bench.host("ICC_EOIR1_EL1", 27)
    assert bench.up() == [("Deactivate", 27, GROUP1_NS)]


@pytest.mark.parametrize("eoimode", [0, 1])
def test_lpi_has_no_active_state(eoimode: int) -> None:
    """An LPI is acknowledged by Activate; its EOIR only drops the priority, its DIR is nothing; it can come again."""
    bench = booted(eoimode=eoimode)
    bench.cpu.set(LPI, NS_A0, GROUP1_NS)
    assert bench.host("ICC_IAR1_EL1") == LPI
    bench.cpu.set(LPI, NS_A0, GROUP1_NS)  # pending again while in service
    assert not bench.irq() and bench.host("ICC_IAR1_EL1") == SPURIOUS
    assert bench.host("ICC_HPPIR1_EL1") == LPI
    bench.host("ICC_EOIR1_EL1", LPI)
    bench.host("ICC_DIR_EL1", LPI)
    assert bench.irq() and bench.host("ICC_IAR1_EL1") == LPI
    assert bench.up() == [("Activate", LPI), ("Activate", LPI)]


def test_hppir_shows_the_next_lpi_after_eoi() -> None:
    """Fact sheet 13, row 8: the next LPI is visible once sent, and taken after EOI of the first."""
    bench = booted()
    bench.cpu.set(LPI, NS_A0, GROUP1_NS)
    bench.host("ICC_IAR1_EL1")
    bench.cpu.set(LPI + 1, NS_A0, GROUP1_NS)
    bench.host("ICC_EOIR1_EL1", LPI)
    assert bench.host("ICC_HPPIR1_EL1") == LPI + 1 == bench.host("ICC_IAR1_EL1")


def test_clear_withdraws() -> None:
    """Row 9 and 27: Clear takes the interrupt back (Release, then ClearAck); IAR is 1023, EOIR(1023) harmless."""
    bench = booted()
    bench.cpu.set(LPI, NS_A0, GROUP1_NS)
    bench.cpu.clear(LPI)
    assert bench.up() == [("Release", LPI), ("ClearAck",)]
    assert not bench.irq()
    assert bench.host("ICC_HPPIR1_EL1") == SPURIOUS == bench.host("ICC_IAR1_EL1")
    for special in (1020, 1021, 1022, 1023):
        bench.host("ICC_EOIR1_EL1", special)
        bench.host("ICC_DIR_EL1", special)
    assert bench.up() == [] and bench.host("ICC_RPR_EL1") == 0xFF


def test_special_eoir_keeps_the_running_priority() -> None:
    """EOIR of a special INTID does not drop the priority of what is active."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    bench.host("ICC_IAR1_EL1")
    bench.host("ICC_EOIR1_EL1", 1023)
    assert bench.host("ICC_RPR_EL1") == 0xA0


def test_clear_of_something_else_only_acknowledges() -> None:
    """A Clear that crossed an Activate, or names another INTID, gets ClearAck and takes nothing."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    bench.cpu.clear(41)
    assert bench.host("ICC_IAR1_EL1") == 40
    bench.cpu.clear(40)
    assert bench.up() == [("ClearAck",), ("Activate", 40), ("ClearAck",)]


def test_set_replaces_what_is_held() -> None:
    """A second Set releases the first; one of the same INTID only updates it."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    bench.cpu.set(40, 0xF8, GROUP1_NS)
    assert bench.up() == [] and not bench.irq()  # 0xF8 is not above the mask 0xF8
    bench.cpu.set(41, 0x88, GROUP1_NS)
    assert bench.up() == [("Release", 40)]
    assert bench.host("ICC_IAR1_EL1") == 41


def test_quiesce_gives_everything_back() -> None:
    """Quiesce releases the physical and the virtual interrupt and is acknowledged last."""
    bench = booted()
    bench.cpu.set(40, NS_A0, GROUP1_NS)
    bench.cpu.vset(7, LPI, 0xA0, 1)
    bench.cpu.quiesce()
    assert bench.up() == [("Release", 40), ("VRelease", 7, LPI), ("QuiesceAck",)]
    assert not bench.irq()


@pytest.mark.parametrize(
    ("priority", "pmr", "enable", "signalled"),
    [
        (0xD0, 0xF0, 1, True),
        (0xD0, 0xA8, 1, False),  # NS 0xA8 is 0xD4, which five bits make 0xD0: equal is masked
        (0xD0, 0xB0, 1, True),
        (0xF7, 0xF0, 1, True),  # the three lowest bits are not implemented
        (0xF8, 0xF0, 1, False),
        (0xD0, 0xF0, 0, False),
        (0xD0, 0x00, 1, False),
    ],
)
def test_mask_and_enable(priority: int, pmr: int, enable: int, signalled: bool) -> None:
    """Row 10: IAR is 1023 when masked or the group is off; HPPIR needs the group only."""
    bench = booted()
    bench.host("ICC_PMR_EL1", pmr)
    bench.host("ICC_IGRPEN1_EL1", enable)
    bench.cpu.set(40, priority, GROUP1_NS)
    assert bench.irq() is signalled
    assert bench.host("ICC_HPPIR1_EL1") == (40 if enable else SPURIOUS)
    assert bench.host("ICC_IAR1_EL1") == (40 if signalled else SPURIOUS)


@pytest.mark.parametrize(
    ("bpr1", "first", "second", "preempts"),
    [
        (0, 0xD0, 0xD0, False),  # equal priority never preempts
        (0, 0xD0, 0xC8, True),  # BPR1 minimum 3: all five bits count
        (3, 0xD0, 0xC8, True),
        (4, 0xD8, 0xD0, False),  # [7:4]: 0xD0 both
        (4, 0xD8, 0xC8, True),
        (5, 0xD8, 0xC8, False),  # [7:5]
        (6, 0xF0, 0xC8, False),  # [7:6]
        (7, 0xF0, 0x80, False),  # [7]
    ],
)
def test_binary_point_decides_preemption(bpr1: int, first: int, second: int, preempts: bool) -> None:
    """Row 11: the Non-secure binary point n leaves bits [7:n] for preemption, at least three for five bits."""
    bench = booted()
    bench.host("ICC_BPR1_EL1", bpr1)
    assert bench.host("ICC_BPR1_EL1") == max(bpr1, 3)
    bench.cpu.set(40, first, GROUP1_NS)
    assert bench.host("ICC_IAR1_EL1") == 40
    bench.cpu.set(41, second, GROUP1_NS)
    assert bench.irq() is preempts
    assert bench.host("ICC_IAR1_EL1") == (41 if preempts else SPURIOUS)


@pytest.mark.parametrize(
    ("pri_bits", "pre_bits", "bpr0", "bpr1"), [(5, 5, 2, 3), (6, 5, 2, 3), (7, 6, 1, 2), (8, 7, 0, 1)]
)
def test_binary_point_minima(pri_bits: int, pre_bits: int, bpr0: int, bpr1: int) -> None:
    """The minimum is 7 - PREbits for BPR0 and the Secure BPR1, one more for the Non-secure and the virtual one."""
    bench = Bench(pri_bits=pri_bits, pre_bits=pre_bits)
    for _ in range(2):
        assert bench.el3("ICC_BPR0_EL1") == bpr0 == bench.el3("ICC_BPR1_EL1", secure=True)
        assert bench.host("ICC_BPR1_EL1") == bpr1 == bench.guest("ICC_BPR1_EL1")
        assert bench.guest("ICC_BPR0_EL1") == bpr0
        bench.el3("ICC_BPR0_EL1", 0)
        bench.el3("ICC_BPR1_EL1", 0, secure=True)
        bench.host("ICC_BPR1_EL1", 0)
        bench.guest("ICC_BPR0_EL1", 0)
        bench.guest("ICC_BPR1_EL1", 0)


def test_cbpr() -> None:
    """With CBPR Non-secure BPR1 reads BPR0 + 1, at most 7, ignores writes; Secure BPR1 is BPR0; EL3 sees its own."""
    bench = booted()
    bench.el3("ICC_CTLR_EL3", 0b11)
    bench.el3("ICC_BPR0_EL1", 5)
    bench.host("ICC_BPR1_EL1", 3)
    assert bench.host("ICC_BPR1_EL1") == 6 and bench.secure("ICC_BPR1_EL1") == 5
    assert bench.el3("ICC_BPR1_EL1") == 3 and bench.el3("ICC_BPR1_EL1", secure=True) == 2
    bench.secure("ICC_BPR1_EL1", 7)
    assert bench.el3("ICC_BPR0_EL1") == 7 and bench.host("ICC_BPR1_EL1") == 7
    bench.cpu.set(40, 0xD0, GROUP1_NS)
    assert bench.host("ICC_IAR1_EL1") == 40
    bench.cpu.set(41, 0x80, GROUP1_NS)
    assert not bench.irq()  # BPR0 = 7 leaves no group priority bits
    bench.el3("ICC_CTLR_EL3", 0)
    assert bench.host("ICC_BPR1_EL1") == 3 and not bench.irq()  # running 0 since it was activated without bits


def test_pmr_nonsecure_view() -> None:
    """With two Security states Non-secure PMR values are shifted and lose a bit; a Secure mask is out of reach."""
    bench = Bench()
    bench.host("ICC_PMR_EL1", 0xF0)
    assert bench.el3("ICC_PMR_EL1") == 0  # PMR was 0, in the Secure half: ignored, and told
    assert bench.cpu.counters == {"pmr_write_ignored": 1} and "firmware writes 0xFF" in bench.cpu.take_reports()[0][1]
    bench.el3("ICC_PMR_EL1", 0xFF)
    assert bench.el3("ICC_PMR_EL1") == 0xF8 and bench.host("ICC_PMR_EL1") == 0xF0
    bench.host("ICC_PMR_EL1", 0x08)  # how Linux finds out that Group 0 is EL3's
    assert bench.host("ICC_PMR_EL1") == 0 and bench.el3("ICC_PMR_EL1") == 0x80
    bench.host("ICC_PMR_EL1", 0xA0)
    assert bench.host("ICC_PMR_EL1") == 0xA0 and bench.el3("ICC_PMR_EL1") == 0xD0
    bench.el3("ICC_PMR_EL1", 0x78)
    assert bench.host("ICC_PMR_EL1") == 0


def test_rpr_nonsecure_view_hides_secure_priorities() -> None:
    """While a Secure priority runs, Non-secure software reads RPR 0."""
    bench = booted()
    bench.el3("ICC_IGRPEN0_EL1", 1)
    bench.cpu.set(8, 0x20, GROUP0)
    assert bench.el3("ICC_IAR0_EL1") == 8
    assert bench.host("ICC_RPR_EL1") == 0 and bench.el3("ICC_RPR_EL1") == 0x20


@pytest.mark.parametrize("parameters", [{"two_security_states": False}, {"scr": 0}])
def test_no_shift(parameters: dict[str, int]) -> None:
    """With one Security state, or SCR_EL3.FIQ = 0, PMR and RPR are plain."""
    bench = Bench(**parameters)
    bench.host("ICC_PMR_EL1", 0x08)
    assert bench.host("ICC_PMR_EL1") == 0x08
    bench.host("ICC_PMR_EL1", 0xF0)
    bench.host("ICC_IGRPEN1_EL1", 1)
    bench.cpu.set(40, 0xA0, GROUP1_NS)
    bench.host("ICC_IAR1_EL1")
    assert bench.host("ICC_RPR_EL1") == 0xA0


def test_one_security_state_ctlr() -> None:
    """With one Security state CBPR and PMHE are writable at EL2; with two EOImode only, and EL3 sees each."""
    one, two = Bench(two_security_states=False), Bench()
    one.host("ICC_CTLR_EL1", 0xFFFFFFFF)
    assert one.host("ICC_CTLR_EL1") == 0x88443 and one.el3("ICC_CTLR_EL3") == 0x88452
    two.host("ICC_CTLR_EL1", 0xFFFFFFFF)
    assert two.host("ICC_CTLR_EL1") == 0x88402 and two.secure("ICC_CTLR_EL1") == 0x88400
    assert two.el3("ICC_CTLR_EL3") == 0xA8410
    two.el3("ICC_CTLR_EL3", 0xFFFFFFFF)
    assert two.el3("ICC_CTLR_EL3") == 0xA845F  # RM is RES0
    assert two.host("ICC_CTLR_EL1") == 0x88443 == two.secure("ICC_CTLR_EL1")


def test_nested_acknowledges() -> None:
    """Each preempting interrupt sets its active priority; RPR follows the most urgent until each EOI."""
    bench = booted()
    for intid, priority in [(40, 0xE0), (41, 0xC8), (42, 0x80)]:
        bench.cpu.set(intid, priority, GROUP1_NS)
        assert bench.host("ICC_IAR1_EL1") == intid
        assert bench.el3("ICC_RPR_EL1") == priority
    assert bench.host("ICC_AP1R0_EL1") == 1 << 28 | 1 << 25 | 1 << 16
    for running in (0xC8, 0xE0, 0xFF):
        bench.host("ICC_EOIR1_EL1", 42)
        assert bench.el3("ICC_RPR_EL1") == running


def test_deactivated_without_eoi() -> None:
    """Row 28: an SGI deactivated at the redistributor keeps its active priority; a more urgent one still comes."""
    bench = booted()
    bench.cpu.set(1, NS_A0, GROUP1_NS)
    bench.host("ICC_IAR1_EL1")
    bench.cpu.set(2, NS_A0, GROUP1_NS)
    assert bench.host("ICC_IAR1_EL1") == SPURIOUS
    bench.cpu.set(3, 0x88, GROUP1_NS)
    assert bench.irq() and bench.host("ICC_IAR1_EL1") == 3


def test_eoi_with_nothing_active_is_ignored() -> None:
    """Without an active priority EOIR neither drops nor deactivates."""
    bench = booted(eoimode=0)
    bench.host("ICC_EOIR1_EL1", 40)
    assert bench.up() == [] and bench.host("ICC_AP1R0_EL1") == 0


@pytest.mark.parametrize(
    ("intid", "ext_range", "deactivates"),
    [(0, True, True), (1019, True, True), (1056, True, True), (1120, True, False), (5119, True, True),
     (5120, True, False), (1056, False, False), (4096, False, False), (8191, True, False)],
)  # fmt: skip
def test_which_intids_have_an_active_state(intid: int, ext_range: bool, deactivates: bool) -> None:
    """SGIs, PPIs, SPIs and, with ExtRange, the extended ones are deactivated; reserved INTIDs are not."""
    bench = booted(ext_range=ext_range)
    bench.host("ICC_DIR_EL1", intid)
    assert bench.up() == ([("Deactivate", intid, GROUP1_NS)] if deactivates else [])


def test_intid_bits_above_the_implemented_are_ignored() -> None:
    """With 16-bit INTIDs bits [23:16] of EOIR and DIR are RES0."""
    bench = booted()
    bench.host("ICC_DIR_EL1", 0x10028)
    assert bench.up() == [("Deactivate", 40, GROUP1_NS)]


@pytest.mark.parametrize(
    ("group", "el", "secure", "irq", "fiq"),
    [
        (GROUP0, 1, False, False, True), (GROUP0, 1, True, False, True), (GROUP0, 3, True, False, True),
        (GROUP1_NS, 1, False, True, False), (GROUP1_NS, 1, True, False, True), (GROUP1_NS, 3, False, False, True),
        (GROUP1_S, 1, False, False, True), (GROUP1_S, 1, True, True, False), (GROUP1_S, 3, True, False, True),
    ],
)  # fmt: skip
def test_irq_or_fiq(group: int, el: int, secure: bool, irq: bool, fiq: bool) -> None:
    """Group 0 is always FIQ; Group 1 is IRQ in its own Security state below EL3, FIQ elsewhere."""
    bench = booted()
    bench.el3("ICC_IGRPEN0_EL1", 1)
    bench.el3("ICC_IGRPEN1_EL3", 0b11)
    bench.cpu.set_state(el, secure)
    bench.cpu.set(40, 0x90, group)
    assert (bench.irq(), bench.fiq()) == (irq, fiq)


@pytest.mark.parametrize(
    ("group", "reads"),
    [
        # IAR0 at EL3, IAR1 at EL3, IAR1 at Secure EL1, IAR1 at EL2
        (GROUP0, (40, SPURIOUS, SPURIOUS, SPURIOUS)),
        (GROUP1_NS, (1021, 40, SPURIOUS, 40)),
        (GROUP1_S, (1020, 40, 40, SPURIOUS)),
    ],
)
def test_who_sees_which_group(group: int, reads: tuple[int, ...]) -> None:
    """HPPIR and IAR show an interrupt to its own Security state and EL3; EL3's Group 0 reads give 1020 and 1021."""
    for nth, want in enumerate(reads):
        bench = booted()
        bench.el3("ICC_IGRPEN0_EL1", 1)
        bench.el3("ICC_IGRPEN1_EL3", 0b11)
        bench.up()
        bench.cpu.set(40, 0x90, group)
        read = (bench.el3, bench.el3, bench.secure, bench.host)[nth]
        suffix = "0_EL1" if nth == 0 else "1_EL1"
        assert read(f"ICC_HPPIR{suffix}") == want
        assert read(f"ICC_IAR{suffix}") == want
        assert bench.up() == ([("Activate", 40)] if want == 40 else [])


def test_nonsecure_group0_access_without_el3_trap() -> None:
    """With SCR_EL3.FIQ = 0 Non-secure reads of IAR0 see no Secure interrupt, and EOIR0 can't end one."""
    bench = booted(scr=0)
    bench.el3("ICC_PMR_EL1", 0xFF)
    bench.el3("ICC_IGRPEN0_EL1", 1)
    bench.cpu.set(40, 0x90, GROUP0)
    assert bench.host("ICC_IAR0_EL1") == SPURIOUS
    assert bench.el3("ICC_IAR0_EL1") == 40
    bench.host("ICC_EOIR0_EL1", 40)
    assert bench.el3("ICC_RPR_EL1") == 0x90
    bench.el3("ICC_EOIR0_EL1", 40)
    assert bench.el3("ICC_RPR_EL1") == 0xFF


def test_eoir_must_match_group_and_state() -> None:
    """EOIR ends only what is highest active, by the register of its group, from its own Security state or EL3."""
    bench = booted(eoimode=0)
    bench.el3("ICC_IGRPEN1_EL3", 0b11)
    bench.cpu.set(40, 0x90, GROUP1_S)
    assert bench.secure("ICC_IAR1_EL1") == 40
    bench.up()
    bench.host("ICC_EOIR1_EL1", 40)
    bench.el3("ICC_EOIR0_EL1", 40)
    assert bench.up() == [] and bench.el3("ICC_RPR_EL1") == 0x90
    assert bench.el3("ICC_AP1R0_EL1", secure=True) == 1 << 18 and bench.host("ICC_AP1R0_EL1") == 0
    bench.secure("ICC_EOIR1_EL1", 40)
    assert bench.up() == [("Deactivate", 40, GROUP1_S)]


def test_group0_with_one_security_state() -> None:
    """With one Security state EL2 handles Group 0 itself: FIQ, IAR0, EOIR0, DIR for any group."""
    bench = Bench(two_security_states=False)
    bench.host("ICC_PMR_EL1", 0xFF)
    bench.host("ICC_CTLR_EL1", 0b10)
    bench.host("ICC_IGRPEN0_EL1", 1)
    bench.up()
    bench.cpu.set(40, 0x20, GROUP0)
    assert bench.fiq() and not bench.irq()
    assert bench.host("ICC_HPPIR0_EL1") == 40 and bench.host("ICC_IAR1_EL1") == SPURIOUS
    assert bench.host("ICC_IAR0_EL1") == 40 and bench.host("ICC_AP0R0_EL1") == 1 << 4
    bench.host("ICC_EOIR0_EL1", 40)
    bench.host("ICC_DIR_EL1", 40)
    assert bench.up() == [("Activate", 40), ("Deactivate", 40, ANY_GROUP)]
    assert bench.host("ICC_IAR0_EL1") == SPURIOUS


def test_group0_wins_the_tie_of_active_priorities() -> None:
    """With the same priority active in two groups EOIR of Group 0 comes first."""
    bench = Bench(two_security_states=False)
    bench.host("ICC_AP0R0_EL1", 1 << 20)
    bench.host("ICC_AP1R0_EL1", 1 << 20)
    bench.host("ICC_EOIR1_EL1", 40)
    assert bench.host("ICC_AP1R0_EL1") == 1 << 20
    bench.host("ICC_EOIR0_EL1", 40)
    bench.host("ICC_EOIR1_EL1", 40)
    assert bench.host("ICC_AP0R0_EL1") == 0 == bench.host("ICC_AP1R0_EL1")


def test_group0_wins_the_tie_over_secure_group1() -> None:
    """With two Security states EL3 ends Group 0 before a Secure Group 1 interrupt of the same priority."""
    bench = Bench()
    bench.el3("ICC_AP0R0_EL1", 1 << 4)
    bench.el3("ICC_AP1R0_EL1", 1 << 4, secure=True)
    bench.el3("ICC_EOIR0_EL1", 40)
    assert (bench.el3("ICC_AP0R0_EL1"), bench.el3("ICC_AP1R0_EL1", secure=True)) == (0, 1 << 4)


def test_group_enables_go_up_when_they_change() -> None:
    """IGRPEN0, IGRPEN1 and IGRPEN1_EL3 tell the redistributor each change once; both views agree."""
    bench = Bench()
    bench.host("ICC_IGRPEN1_EL1", 1)
    bench.host("ICC_IGRPEN1_EL1", 1)
    bench.el3("ICC_IGRPEN0_EL1", 1)
    bench.el3("ICC_IGRPEN1_EL3", 0b10)
    assert bench.up() == [("UpstreamControl", "GroupEnables", g) for g in (0b010, 0b011, 0b101)]
    assert bench.host("ICC_IGRPEN1_EL1") == 0 and bench.secure("ICC_IGRPEN1_EL1") == 1
    assert bench.el3("ICC_IGRPEN1_EL3") == 0b10 and bench.el3("ICC_IGRPEN0_EL1") == 1
    one = Bench(two_security_states=False)
    one.el3("ICC_IGRPEN1_EL3", 0b11)
    assert one.el3("ICC_IGRPEN1_EL3") == 0b01


def test_priority_mask_goes_up_with_pmhe() -> None:
    """PMR is a hint for 1-of-N distribution only while PMHE is set."""
    bench = booted()
    bench.host("ICC_PMR_EL1", 0xE0)
    assert bench.up() == []
    bench.el3("ICC_CTLR_EL3", 1 << 6)
    bench.host("ICC_PMR_EL1", 0xF0)
    bench.host("ICC_PMR_EL1", 0xF0)
    bench.el3("ICC_CTLR_EL3", 0)
    assert bench.up() == [("UpstreamControl", "PMR", mask) for mask in (0xF0, 0xF8, 0xFF)]


@pytest.mark.parametrize(
    ("name", "kind"), [("ICC_SGI1R_EL1", "SGI1R"), ("ICC_ASGI1R_EL1", "ASGI1R"), ("ICC_SGI0R_EL1", "SGI0R")]
)
def test_sgi_generation(name: str, kind: str) -> None:
    """The three registers send their defined bits and the Security state; RS needs RSS."""
    bench = booted()
    for value in (0x0000000001000002, 0x0000000001000055, 0x0000010001000000):
        bench.host(name, value)
        bench.secure(name, value)
        assert bench.up() == [("GenerateSgi", kind, value, 1), ("GenerateSgi", kind, value, 0)]
    every = 0xFFFFFFFFFFFFFFFF
    bench.host(name, every)
    with_rss = booted(rss=True)
    with_rss.host(name, every)
    assert bench.up() == [("GenerateSgi", kind, 0x00FF01FF0FFFFFFF, 1)]
    assert with_rss.up() == [("GenerateSgi", kind, 0x00FFF1FF0FFFFFFF, 1)]
