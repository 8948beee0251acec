"""Virtual Distributor and Redistributors: identification, per-interrupt fields, nASSGIreq, vSGIs in hardware."""

from __future__ import annotations

import pytest

from nodes.hypervisor.kvm.irq import Hw
from tests.machine.kvm_doubles import GICD, GICR, PROP, Guest

SGI_FRAME = 0x1_0000
RD1 = GICR + 0x2_0000


def test_identification_of_the_distributor() -> None:
    """TYPER shows 64 INTIDs, LPIs and 16 ID bits; TYPER2.nASSGIcap only with GICv4.1; PIDR2 is GICv3's."""
    guest = Guest()
    assert guest.read(GICD + 4) == 1 | 1 << 17 | 15 << 19
    assert guest.read(GICD + 0xC) == 1 << 8
    assert Guest(v4=False).read(GICD + 0xC) == 0
    assert guest.read(GICD + 0xFFE8) == guest.read(GICR + 0xFFE8) == 0x3B


def test_redistributor_typer_names_the_vcpu_and_the_last_one() -> None:
    """GICR_TYPER has affinity, number, PLPIS, no VLPIS, and Last at the last vCPU; its halves can be read alone."""
    guest = Guest()
    assert guest.read(GICR + 8, 8) == 1
    assert guest.read(RD1 + 8, 8) == 1 << 32 | 1 << 8 | 1 << 4 | 1
    assert guest.read(RD1 + 12, 4) == 1


@pytest.mark.parametrize(
    ("writes", "nassgireq"),
    [
        ([0x100], True),
        ([0x100, 0x113], True),
        ([0x13, 0x113], False),
        ([0x100, 0x113, 0x13], True),
        ([0x100, 0x13], False),
    ],
)
def test_nassgireq_follows_writes_that_switch_the_distributor(writes: list[int], nassgireq: bool) -> None:
    """nASSGIreq is taken from each write that turns the Distributor off or on and is read-only while it stays on."""
    guest = Guest()
    for value in writes:
        guest.write(GICD, value)
    assert bool(guest.read(GICD) & 0x100) == nassgireq == guest.vgic.nassgireq


def test_a_flip_reloads_and_a_repeated_write_does_not() -> None:
    """Only writes that turn the Distributor on or off make every vPE resident anew; the switch of SGIs comes once."""
    guest = Guest()
    for value in (0x100, 0x113, 0x113, 0x100, 0x113):
        guest.write(GICD, value)
    assert guest.v4 is not None
    assert guest.v4.calls == [("switch", True), ("reload",), ("reload",), ("reload",)]


def test_without_gicv41_nassgireq_is_ignored() -> None:
    """A VM without direct SGIs never shows nASSGIreq."""
    guest = Guest(v4=False)
    guest.write(GICD, 0x113)
    assert guest.read(GICD) == 0x52


def test_sgi_registers_of_the_distributor_are_raz_wi_and_spis_are_not() -> None:
    """With affinity routing INTIDs 0 to 31 live in the Redistributor; SPI fields read back what was written."""
    guest = Guest()
    guest.write(GICD + 0x100, 0xFFFF_FFFF)
    guest.write(GICD + 0x104, 0x8000_0001)
    assert guest.read(GICD + 0x100) == 0 and guest.read(GICD + 0x104) == 0x8000_0001
    guest.write(GICD + 0x184, 1)
    assert guest.read(GICD + 0x104) == 0x8000_0000
    guest.write(GICD + 0x420, 0xA0, 1)
    guest.write(GICD + 0x421, 0xFF, 1)
    assert guest.read(GICD + 0x420) == 0xF8A0


def test_irouter_routes_an_spi() -> None:
    """IROUTER takes an affinity in two halves or one; an affinity without a vCPU leaves the SPI without a target."""
    guest = Guest()
    guest.write(GICD + 0x6100, 1, 8)
    assert guest.vgic.spis[0].target is guest.vgic.cpus[1] and guest.read(GICD + 0x6100, 8) == 1
    guest.write(GICD + 0x6100, 9, 4)
    assert guest.vgic.spis[0].target is None


def test_one_configuration_run_per_register_write_that_changes_a_vsgi() -> None:
    """With vSGIs in hardware IGROUPR0, IPRIORITYR and ISENABLER0 each send the vCPU's configuration once, if something changed."""
    guest = Guest()
    guest.write(GICD, 0x100)
    assert guest.v4 is not None
    guest.v4.calls.clear()
    frame = RD1 + SGI_FRAME
    guest.write(frame + 0x80, 0xFFFF_FFFF)
    assert guest.v4.calls == []
    for n in range(4):
        guest.write(frame + 0x400 + 4 * n, 0xA0A0_A0A0)
    guest.write(frame + 0x180, 0xFFFF)
    guest.write(frame + 0x100, 0xFFFF)
    guest.write(frame + 0x410, 0xA0A0_A0A0)
    assert guest.v4.calls == [("configure", 1)] * 6


def test_pending_registers_of_vsgis_ask_the_hardware() -> None:
    """ISPENDR0 reads come from the GIC, writes become GITS_SGIR, ICPENDR0 clears; PPIs stay in software."""
    guest = Guest()
    guest.write(GICD, 0x100)
    assert guest.v4 is not None
    guest.v4.calls.clear()
    guest.v4.pending = 0x8002
    frame = GICR + SGI_FRAME
    guest.write(frame + 0x200, 1 << 20 | 1 << 3)
    assert guest.read(frame + 0x200) == 1 << 20 | 0x8002
    assert guest.read(frame + 0x201, 1) == 0x80
    guest.write(frame + 0x280, 1 << 4)
    assert guest.v4.calls == [("pend", 0, 3), ("clear", 0, 4)]


def test_software_sgis_use_the_lists() -> None:
    """Without nASSGIreq, ISPENDR0 latches the SGI, a disabled one waits for ISENABLER0."""
    guest = Guest()
    guest.write(GICD, 0x12)
    frame = GICR + SGI_FRAME
    guest.write(frame + 0x180, 1 << 1)
    guest.write(frame + 0x200, 1 << 1)
    assert guest.vgic.cpus[0].ap_list == []
    guest.write(frame + 0x100, 1 << 1)
    assert [irq.intid for irq in guest.vgic.cpus[0].ap_list] == [1] and guest.vgic.cpus[0].private[1].hw is Hw.NONE


def test_lpi_registers_are_locked_while_lpis_are_on() -> None:
    """PROPBASER and PENDBASER keep their values while EnableLPIs is set."""
    guest = Guest().lpis_on()
    guest.write(GICR + 0x70, 0, 8)
    guest.write(GICR + 0x78, 0, 8)
    assert guest.read(GICR + 0x70, 8) == PROP | 15 and guest.vgic.cpus[0].pendbaser
    assert guest.read(GICR) == 1


def test_reserved_registers_are_counted_and_named() -> None:
    """An access to nothing reads 0, is counted and logged with its offset."""
    guest = Guest()
    assert guest.read(GICD + 0x3000) == 0
    guest.write(GICR + 0x9000, 1)
    assert guest.count["vgic_reserved_accesses"] == 2
    assert [fields["offset"] for _, fields in guest.logged] == ["0x3000", "0x9000"]


def test_what_became_pending_while_the_distributor_was_off_is_queued_when_it_is_switched_on() -> None:
    """An SGI latched with the Distributor off is in no list; GICD_CTLR's enable puts it there, with a kick."""
    guest = Guest()
    guest.write(GICR + SGI_FRAME + 0x200, 1 << 1)
    assert guest.vgic.cpus[0].ap_list == [] and guest.vgic.kicks == []
    guest.write(GICD, 0x12)
    assert [irq.intid for irq in guest.vgic.cpus[0].ap_list] == [1] and guest.vgic.kicks == [guest.vgic.cpus[0]]
