"""KVM's virtual GIC, purely: list registers, ap_list, flush and fold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.hypervisor.kvm.irq import LR_GROUP1, LR_HW, STATE_ACTIVE, STATE_PENDING, Hw, VgicIrq
from nodes.hypervisor.kvm.vgic import HCR_EN, HCR_NPIE, HCR_UIE, HCR_VSGI_EOI_COUNT, Vgic, VgicCpu

PRIO = 0xA0


def vgic(cpus: int = 2, **options: object) -> Vgic:
    """A virtual GIC that is on, whose vCPUs take all priorities and LPIs."""
    made = Vgic([0x8000_0000 | n for n in range(cpus)], **options)  # type: ignore[arg-type]
    made.enabled = True
    for cpu in made.cpus:
        cpu.vmcr = 0xF0 << 24
        cpu.lpis_enabled = True
        for irq in cpu.private:
            irq.priority = PRIO
    return made


def lpi(gic: Vgic, intid: int, cpu: VgicCpu, priority: int = PRIO) -> VgicIrq:
    """An enabled LPI for a vCPU."""
    irq = gic.lpis[intid] = VgicIrq(intid)
    irq.target, irq.priority, irq.enabled = cpu, priority, True
    return irq


def lrs(image: tuple[int, ...]) -> list[int]:
    """The list registers of an image."""
    return list(image[2:6])


def after(image: tuple[int, ...], *values: int) -> tuple[int, ...]:
    """The image that comes back with other list registers."""
    return (*image[:2], *values, *([0] * (4 - len(values))), *image[6:])


def low(_irq: VgicIrq) -> bool:
    """A timer line that is low."""
    return False


@pytest.mark.parametrize(
    ("intid", "state", "expected"),
    [
        (8195, "pending", 0x50A0_0000_0000_2003),
        (1, "pending", 0x50A0_0000_0000_0001),
        (27, "active", 0xB0A0_001B_0000_001B),
    ],
)
def test_list_register_values_are_those_of_the_sheet(intid: int, state: str, expected: int) -> None:
    """A pending vLPI and SGI, and the active hardware-mapped timer, have the computed list-register values."""
    irq = VgicIrq(intid, level=intid == 27)
    irq.priority, irq.pending_latch, irq.active = PRIO, state == "pending", state == "active"
    if intid == 27:
        irq.hw, irq.pintid = Hw.MAPPED, 27
    assert irq.to_lr() == expected


def test_an_sgi_goes_into_a_list_register_once_and_is_counted_once() -> None:
    """A pending SGI that comes back pending is loaded again but counted once; after its acknowledge a new one counts."""
    count: Counter[str] = Counter()
    gic = vgic(count=count)
    cpu = gic.cpus[0]
    gic.set_pending(cpu.private[1])
    image = gic.flush(cpu)
    assert lrs(image)[0] & STATE_PENDING
    assert gic.irq(cpu, 1) is cpu.private[1]
    gic.fold(cpu, image, low)
    assert cpu.private[1].pending_latch
    image = gic.flush(cpu)
    gic.fold(cpu, after(image, 0), low)
    assert cpu.ap_list == [] and count["lr_injections"] == 1
    gic.set_pending(cpu.private[1])
    gic.flush(cpu)
    assert count["lr_injections"] == 2 and count["lr_injections_other"] == 0


def test_an_sgi_that_is_active_at_an_exit_is_active_in_the_next_entry() -> None:
    """An exit inside the guest's handler keeps the active state; pending again then shows pending and active."""
    gic = vgic()
    cpu = gic.cpus[0]
    gic.set_pending(cpu.private[1])
    image = gic.flush(cpu)
    gic.fold(cpu, after(image, lrs(image)[0] & ~STATE_PENDING | STATE_ACTIVE), low)
    gic.set_pending(cpu.private[1])
    assert lrs(gic.flush(cpu))[0] & (STATE_PENDING | STATE_ACTIVE) == STATE_PENDING | STATE_ACTIVE


def test_an_lpi_has_no_active_state_for_software() -> None:
    """An LPI that was acknowledged but not ended at the exit leaves the list: its active state is stripped."""
    gic = vgic()
    cpu = gic.cpus[0]
    irq = lpi(gic, 8192, cpu)
    gic.set_pending(irq)
    image = gic.flush(cpu)
    gic.fold(cpu, after(image, lrs(image)[0] & ~STATE_PENDING | STATE_ACTIVE), low)
    assert not irq.active and cpu.ap_list == []


def test_a_list_that_fits_keeps_its_order_and_one_that_does_not_is_sorted() -> None:
    """Up to four interrupts are loaded first in, first out; a fifth sorts the list by priority and asks for maintenance."""
    gic = vgic()
    cpu = gic.cpus[0]
    for n, priority in enumerate([0xE0, 0xA0, 0xC0, 0xB0]):
        gic.set_pending(lpi(gic, 8192 + n, cpu, priority))
    image = gic.flush(cpu)
    assert [lr & 0xFFFF for lr in lrs(image)] == [8192, 8193, 8194, 8195]
    assert image[0] == HCR_EN
    gic.fold(cpu, image, low)
    gic.set_pending(lpi(gic, 8200, cpu, 0x20))
    image = gic.flush(cpu)
    assert [lr & 0xFFFF for lr in lrs(image)] == [8200, 8193, 8195, 8194]
    assert image[0] == HCR_EN | HCR_UIE | HCR_NPIE


def test_eoicount_ends_active_interrupts_that_have_no_list_register() -> None:
    """EOIs counted by hardware deactivate, in list order, what was active outside the list registers."""
    gic = vgic()
    cpu = gic.cpus[0]
    for sgi in range(5):
        cpu.private[sgi].active = True
        gic.queue(cpu.private[sgi])
        cpu.ap_list.append(cpu.private[sgi])
        cpu.private[sgi].listed = cpu
    image = gic.flush(cpu)
    outside = next(irq for irq in cpu.ap_list if irq not in cpu.in_lrs)
    gic.fold(cpu, (image[0] | 1 << 27, *image[1:]), low)
    assert not outside.active and sum(cpu.private[n].active for n in range(5)) == 4


def test_vsgi_eoi_count_is_set_only_without_sgis_in_the_list() -> None:
    """ICH_HCR.vSGIEOICount needs direct SGIs and a list without software SGIs, whose EOIs must be counted."""
    gic = vgic(direct_sgis=True)
    assert gic.flush(gic.cpus[0])[0] & HCR_VSGI_EOI_COUNT
    gic.set_pending(gic.cpus[0].private[3])
    assert not gic.flush(gic.cpus[0])[0] & HCR_VSGI_EOI_COUNT
    assert not vgic().flush(gic.cpus[1])[0] & HCR_VSGI_EOI_COUNT


def test_a_pending_sgi_survives_the_time_in_which_the_distributor_is_off() -> None:
    """With the Distributor off nothing is loaded or wakes; switched on again, the SGI is delivered."""
    gic = vgic()
    cpu = gic.cpus[1]
    gic.set_pending(cpu.private[1])
    gic.enabled = False
    image = gic.flush(cpu)
    gic.fold(cpu, image, low)
    assert lrs(image) == [0, 0, 0, 0] and not gic.has_pending(cpu)
    gic.enabled = True
    gic.requeue_all()
    assert lrs(gic.flush(cpu))[0] & 0xFFFF == 1


def test_a_disabled_lpi_stays_pending_outside_the_list() -> None:
    """An LPI that is disabled is not queued; enabling it later delivers it. One whose vCPU has EnableLPIs=0 never is."""
    gic = vgic()
    irq = lpi(gic, 8192, gic.cpus[0])
    irq.enabled = False
    gic.set_pending(irq)
    assert gic.cpus[0].ap_list == []
    irq.enabled = True
    gic.queue(irq)
    assert gic.cpus[0].ap_list == [irq]
    gic.cpus[1].lpis_enabled = False
    other = lpi(gic, 8193, gic.cpus[1])
    gic.set_pending(other)
    assert gic.cpus[1].ap_list == []


def test_a_retargeted_interrupt_moves_to_the_other_list_with_a_kick() -> None:
    """Pruning moves an LPI whose target changed, and asks for a kick of the new vCPU."""
    gic = vgic()
    irq = lpi(gic, 8192, gic.cpus[0])
    gic.set_pending(irq)
    gic.kicks.clear()
    irq.target = gic.cpus[1]
    gic.prune(gic.cpus[0])
    assert gic.cpus[0].ap_list == [] and gic.cpus[1].ap_list == [irq] and gic.kicks == [gic.cpus[1]]


def test_wfi_ends_only_for_what_passes_the_priority_mask() -> None:
    """kvm_vgic_vcpu_pending_irq looks at enable, priority against VPMR, active state and the Distributor."""
    gic = vgic()
    cpu = gic.cpus[0]
    gic.set_pending(cpu.private[2])
    assert gic.has_pending(cpu)
    cpu.vmcr = PRIO << 24
    assert not gic.has_pending(cpu)


def test_the_timer_line_is_looked_at_again_when_the_guest_ended_its_interrupt() -> None:
    """A mapped level interrupt is pending once per rise; when its list register is empty, the line decides whether it goes on."""
    gic = vgic()
    cpu = gic.cpus[0]
    irq = cpu.private[27]
    irq.hw, irq.pintid, irq.enabled = Hw.MAPPED, 27, True
    gic.set_line(irq, True)
    image = gic.flush(cpu)
    assert lrs(image)[0] == STATE_PENDING | LR_HW | LR_GROUP1 | PRIO << 48 | 27 << 32 | 27
    assert not irq.line_level
    assert gic.fold(cpu, after(image, 0), lambda _irq: True) == [irq]
    assert irq.pending and cpu.ap_list == [irq]
    image = gic.flush(cpu)
    assert gic.fold(cpu, after(image, 0), low) == [irq] and cpu.ap_list == []


@given(st.lists(st.tuples(st.sampled_from(["pend", "run", "ack", "eoi", "off", "on"]), st.integers(0, 7)), max_size=60))
def test_no_sgi_is_lost_or_doubled(steps: list[tuple[str, int]]) -> None:
    """Whatever the order of sends, entries, acknowledges and Distributor flips: each SGI is acknowledged as often as an ideal
    latch would be, once everything has been let through."""
    gic = vgic(1)
    cpu = gic.cpus[0]
    latch = dict.fromkeys(range(8), False)
    active: set[int] = set()

    def run(ack: bool, eoi: bool) -> None:
        image = gic.flush(cpu)
        values = []
        for lr in lrs(image):
            sgi = lr & 0xF
            if lr and eoi and lr & STATE_ACTIVE:
                lr &= ~STATE_ACTIVE
                active.discard(sgi)
            if lr & STATE_PENDING and ack and not lr & STATE_ACTIVE:
                assert latch[sgi]
                latch[sgi] = False
                active.add(sgi)
                lr = lr & ~STATE_PENDING | STATE_ACTIVE
            values.append(lr if lr & (STATE_PENDING | STATE_ACTIVE) else 0)
        gic.fold(cpu, after(image, *values), low)

    def switch(on: bool) -> None:
        gic.enabled = on
        if on:
            gic.requeue_all()

    for what, sgi in steps:
        if what == "pend":
            latch[sgi] = True
            gic.set_pending(cpu.private[sgi])
        elif what in ("off", "on"):
            switch(what == "on")
        else:
            run(what == "ack", what == "eoi")
    switch(True)
    for _ in range(20):
        run(True, True)
    assert not any(latch.values()) and not active and cpu.ap_list == []
