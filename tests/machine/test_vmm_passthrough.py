"""A passed-through function's MSI-X: what reaches VFIO, irqfds and the bypass when the guest programs its table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nodes.hypervisor.kvm.irq import Hw
from nodes.hypervisor.vmm.passthrough import PassThrough
from tests.machine.kvm_doubles import GITS, Guest, now
from tests.machine.test_kvm_vits import mapped
from tests.machine.test_vmm_devices import MSIX, SIZES, physical

TRANSLATER = GITS + 0x1_0040
TABLE, PBA = 2, 4


class Device:
    """VFIO's side: notes what it is asked."""

    def __init__(self) -> None:
        self.device_id = 0x3_0801
        self.bars = {0: (0x40_0008_0000, SIZES[0]), 2: (0x40_000C_0000, SIZES[2]), 4: (0x40_000C_8000, SIZES[4])}
        self.config = physical()
        self.function = SimpleNamespace(
            msix_vectors=2048, msix_location=lambda pba=False: (PBA, 0) if pba else (TABLE, 0)
        )
        self.eventfd: dict[int, Any] = {}
        self.vectors = 0
        self.calls: list[Any] = []
        routes = {n: SimpleNamespace(cpu="cpu0") for n in range(64)}
        self.its_device = SimpleNamespace(device_id=self.device_id, routes=routes)

    async def enable_msix(self, vectors: int) -> None:
        self.vectors = vectors
        self.calls.append(("enable", vectors))

    async def disable_msix(self) -> None:
        self.vectors = 0
        self.eventfd.clear()
        self.calls.append("disable")

    async def close(self) -> None:
        self.calls.append("close")


class Bypass:
    """GICv4's side: forwards at once, and notes each run."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.back: list[int] = []
        self.triggered: list[int] = []

    async def forward(self, pairs: Any) -> None:
        self.runs.append([irq.intid for irq, _ in pairs])
        for irq, where in pairs:
            irq.hw, irq.forwarded = Hw.VLPI, where

    async def unforward(self, irq: Any) -> None:
        self.back.append(irq.intid)
        irq.hw, irq.forwarded = Hw.NONE, None

    async def pend(self, irq: Any) -> None:
        self.triggered.append(irq.intid)


class Setting:
    """A guest whose events 0 to 7 of device 8 are LPIs 8192 to 8199, and the function in its slot 1."""

    def __init__(self, *, v4: bool = True, events: int = 8) -> None:
        self.guest: Guest = mapped()
        for n in range(events):
            self.guest.config(8192 + n, 0xA0, True)
        self.guest.run(
            *[("MAPTI", {"device_id": 8, "event_id": n, "pintid": 8192 + n, "icid": 0}) for n in range(1, events)]
        )
        self.bypass = Bypass() if v4 else None
        self.device = Device()
        self.kicks: list[Any] = []
        self.marks: list[Any] = []
        guest = self.guest
        node = SimpleNamespace(count=guest.count, log=lambda event, **fields: None)
        vm = SimpleNamespace(
            node=node,
            vits=guest.vits,
            vgic=guest.vgic,
            v4=self.bypass,
            windows=(),
            flush_kicks=self.kicks.append,
            mark_route=lambda *route: self.marks.append(route),
        )
        self.vm = vm
        self.function = PassThrough(vm, self.device, 1, 0x5000_0000)  # type: ignore[arg-type]
        now(self.function.write_config(4, 2, 6))

    def control(self, value: int) -> None:
        now(self.function.write_config(MSIX + 2, 2, value))

    def entry(self, vector: int, control: int, data: int | None = None) -> None:
        """Write an entry as a guest does: address, data, then vector control."""
        for word, value in enumerate([TRANSLATER, 0, vector if data is None else data, control]):
            now(self.function.write_bar(TABLE, vector * 16 + 4 * word, 4, value))

    def up(self, vectors: int = 8) -> Setting:
        """The order of Linux and of the guest driver: enable masked, entries, unmask, then clear the function mask."""
        self.control(0xC000)
        for vector in range(vectors):
            self.entry(vector, 1)
        for vector in range(vectors):
            now(self.function.write_bar(TABLE, vector * 16 + 12, 4, 0))
        self.control(0x8000)
        return self

    def fire(self, vector: int) -> None:
        """The host took the vector's LPI."""
        self.device.eventfd[vector](vector)


def test_eight_vectors_are_enabled_and_forwarded_in_one_run() -> None:
    """Nothing happens until the function mask is cleared; then VFIO enables 8 vectors and one run maps 8 vLPIs."""
    setting = Setting().up()
    assert setting.bypass is not None
    assert setting.device.calls == [("enable", 8)]
    assert setting.bypass.runs == [[8192 + n for n in range(8)]]
    assert [(mark[0], mark[1], mark[2].intid) for mark in setting.marks] == [(0x3_0801, n, 8192 + n) for n in range(8)]


def test_an_event_that_does_not_resolve_stays_on_software_injection() -> None:
    """A vector whose event is not mapped when it is unmasked is counted and not forwarded; its MSI is dropped."""
    setting = Setting(events=7).up()
    assert setting.bypass is not None and len(setting.bypass.runs[0]) == 7
    assert setting.guest.count["unresolved_routes"] == 1
    setting.fire(7)
    assert setting.guest.count["msis_dropped"] == 1


def test_an_address_that_is_not_the_vits_does_not_resolve() -> None:
    """An entry that points elsewhere is no interrupt of this ITS."""
    setting = Setting()
    setting.control(0x8000)
    for word, value in enumerate([0x3FEE_0080, 0, 0, 0]):
        now(setting.function.write_bar(TABLE, 4 * word, 4, value))
    assert setting.guest.count["unresolved_routes"] == 1


def test_without_gicv4_each_msi_is_injected_in_software_with_a_kick() -> None:
    """On the GICv3 path the host's LPI puts the guest's LPI into the vCPU's list and kicks from the PE that took it."""
    setting = Setting(v4=False).up()
    setting.fire(3)
    assert [irq.intid for irq in setting.guest.vgic.cpus[0].ap_list] == [8195]
    assert setting.kicks == ["cpu0"] and setting.guest.count["msis_injected"] == 1


def test_a_masked_vector_comes_back_and_its_msi_waits_in_the_pba() -> None:
    """Masking takes the vLPI back; an MSI meanwhile shows in the pending bits and is delivered by INT at the unmask."""
    setting = Setting().up()
    assert setting.bypass is not None
    now(setting.function.write_bar(TABLE, 12, 4, 1))
    assert setting.bypass.back == [8192]
    setting.fire(0)
    assert setting.function.read_bar(PBA, 0, 8) == 1
    now(setting.function.write_bar(TABLE, 12, 4, 0))
    assert setting.bypass.runs[1:] == [[8192]] and setting.bypass.triggered == [8192]
    assert setting.function.read_bar(PBA, 0, 8) == 0


def test_a_new_route_replaces_the_old_one() -> None:
    """Masked, rewritten and unmasked, a vector is the interrupt of its new data."""
    setting = Setting().up(4)
    assert setting.bypass is not None
    now(setting.function.write_bar(TABLE, 12, 4, 1))
    setting.entry(0, 0, data=6)
    assert setting.bypass.back == [8192] and setting.bypass.runs[-1] == [8198]


def test_more_vectors_than_enabled_enable_vfio_anew() -> None:
    """A vector beyond those that VFIO knows makes it disable and enable all of them, which are all wired again."""
    setting = Setting().up(2)
    assert setting.bypass is not None
    setting.entry(5, 0)
    assert setting.device.calls == [("enable", 2), "disable", ("enable", 6)]
    assert setting.bypass.runs[-1] == [8192, 8193, 8197]


def test_disabling_msix_takes_everything_back() -> None:
    """With Enable cleared nothing is forwarded and VFIO has no vectors; closing again does nothing more to them."""
    setting = Setting().up()
    assert setting.bypass is not None
    setting.control(0)
    assert setting.bypass.back == [8192 + n for n in range(8)] and setting.device.calls[-1] == "disable"
    now(setting.function.close())
    assert setting.device.calls[1:] == ["disable", "close"]


def test_only_the_bar_without_msix_structures_is_mapped() -> None:
    """BAR0 is a direct window while memory decoding is on; table and pending bits exit."""
    setting = Setting()
    assert setting.vm.windows == ((0x5000_0000, SIZES[0], 0x40_0008_0000),)
    now(setting.function.write_config(4, 2, 0))
    assert setting.vm.windows == ()


@pytest.mark.parametrize("bar", [PBA, 0])
def test_writes_elsewhere_are_counted(bar: int) -> None:
    """The pending bits are read-only: a write is ignored and counted."""
    setting = Setting()
    now(setting.function.write_bar(bar, 0, 4, 1))
    assert setting.guest.count["vmm_writes_ignored"] == 1


def test_the_hook_runs_once_after_the_first_vectors_are_wired() -> None:
    """`after_enable` (the planted DISCARD) comes after the bypass has forwarded, and only once."""
    setting = Setting()
    order: list[int] = []

    async def hook() -> None:
        assert setting.bypass is not None
        order.append(len(setting.bypass.runs))

    setting.function.after_enable = hook
    setting.up()
    setting.entry(0, 1)
    setting.entry(0, 0)
    assert order == [1]
