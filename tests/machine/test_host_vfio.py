"""VFIO: binding with the shell lines of Arm's page, opening (domain, MSI page), MSI-X on the host, closing."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest

from cosim.api import ModelError
from nodes.hypervisor.host.vfio import GroupNotViable, VfioDevice
from tests.machine.host_rig import ITS_BASES, STREAM, Rig

NAME = "0000:08:00.1"
RAM = [(0x8000_0000, 0x8000_0000, 0x80_8000_0000)]


def opened(rig: Rig) -> VfioDevice:
    rig.call(rig.host.vfio.bind(NAME))
    device: VfioDevice = rig.call(rig.host.vfio.open_device(NAME, RAM))
    return device


def test_bind_prints_arms_steps() -> None:
    """The console shows the commands and, from lspci of the function, the line that it is bound."""
    rig = Rig().boot()
    rig.call(rig.host.vfio.bind(NAME))
    lines = rig.console().splitlines()
    shell = [line for line in lines if not line.startswith("[")]
    assert shell == [
        "# modprobe vfio-pci",
        "# echo vfio-pci > /sys/bus/pci/devices/0000:08:00.1/driver_override",
        "# echo 0000:08:00.1 > /sys/bus/pci/drivers_probe",
        "# lspci -vv -s 0000:08:00.1 | grep vfio-pci",
        "\tKernel driver in use: vfio-pci",
    ]


def test_lspci_shows_what_configuration_space_says() -> None:
    """Regions, MSI-X and the driver appear as lspci prints them; without a driver there is no such line."""
    rig = Rig().boot()
    text = "\n".join(rig.host.pci.lspci(NAME))
    assert "Device 13b5:ff80 (rev 0f)" in text and "[size=256K]" in text
    assert "MSI-X: Enable- Count=2048 Masked-" in text and "Vector table: BAR=2 offset=00000000" in text
    assert "Kernel driver" not in text
    with pytest.raises(ModelError, match="0000:08:00.0, 0000:08:00.1"):
        rig.host.pci.lspci("0000:09:00.0")


def test_only_bound_functions_of_viable_groups_open() -> None:
    """Opening needs vfio-pci on the function and no other driver in its IOMMU group, and is done once."""
    rig = Rig().boot()
    with pytest.raises(ModelError, match="must be bound to vfio-pci"):
        rig.call(rig.host.vfio.open_device(NAME, RAM))
    rig.host.pci.functions[0x800].driver = "smmute"
    rig.call(rig.host.vfio.bind(NAME))
    with pytest.raises(GroupNotViable, match="IOMMU group 0 is not viable"):
        rig.call(rig.host.vfio.open_device(NAME, RAM))
    rig.host.pci.functions[0x800].driver = ""
    rig.call(rig.host.vfio.open_device(NAME, RAM))
    with pytest.raises(ModelError, match="not be open"):
        rig.call(rig.host.vfio.open_device(NAME, RAM))


def test_a_host_driver_has_to_go_and_comes_back() -> None:
    """With a host driver both functions have it; bind unbinds one, whose group is not viable; when both are with VFIO one opens;
    unbind gives each back to the driver, and an open one is not given back."""
    rig = Rig(params={"host_smmute_driver": True}).boot()
    vfio, functions = rig.host.vfio, rig.host.pci.functions
    assert [f.driver for f in functions.values()] == ["smmute", "smmute"]
    rig.call(vfio.bind(NAME))
    assert f"# echo {NAME} > /sys/bus/pci/devices/{NAME}/driver/unbind\n" in rig.console()
    assert [f.driver for f in functions.values()] == ["smmute", "vfio-pci"]
    with pytest.raises(GroupNotViable):
        rig.call(vfio.open_device(NAME, RAM))
    assert not vfio.open
    rig.call(vfio.bind("0000:08:00.0"))
    device = rig.call(vfio.open_device(NAME, RAM))
    with pytest.raises(ModelError, match="not be open"):
        rig.call(vfio.unbind(NAME))
    rig.call(device.close())
    for name in (NAME, "0000:08:00.0"):
        rig.call(vfio.unbind(name))
    assert [(f.driver, f.driver_override) for f in functions.values()] == [("smmute", "")] * 2
    records = [r[4][1] for r in rig.node.side if r[3] == 0 and r[4][0] == "pci device" and r[4][1]["bdf"] == NAME]
    assert [driver for driver, _ in groupby(r["driver"] for r in records)] == ["smmute", "", "vfio-pci", "", "smmute"]


def test_without_a_host_driver_unbind_leaves_none() -> None:
    """A function that only VFIO had is without a driver afterwards, and can be bound again."""
    rig = Rig().boot()
    rig.call(rig.host.vfio.bind(NAME))
    rig.call(rig.host.vfio.unbind(NAME))
    assert rig.host.pci.function(NAME).driver == ""
    rig.call(rig.host.vfio.bind(NAME))
    assert rig.host.pci.function(NAME).driver == "vfio-pci"


def test_open_attaches_the_stream() -> None:
    """The function's stream translates guest RAM and the MSI window, where the page of GITS_TRANSLATER is."""
    rig = Rig().boot()
    device = opened(rig)
    assert (device.stream_id, device.device_id) == (STREAM, STREAM)
    smmu = rig.host.smmu
    word0 = int.from_bytes(rig.memory.peek(smmu._strtab + 64 * STREAM, 8), "little")
    assert word0 & 0xF == 0xD
    domain = device._domain
    assert domain is not None
    table = domain.tables.root
    for shift in (39, 30, 21):
        entry = int.from_bytes(rig.memory.peek(table + 8 * (0x0800_0000 >> shift & 511), 8), "little")
        table = entry & 0xFFFF_FFFF_F000
    page = int.from_bytes(rig.memory.peek(table + 8 * (0x0800_0000 >> 12 & 511), 8), "little")
    assert page & 0xFFFF_FFFF_F000 == ITS_BASES[0] + 0x1_0000
    assert rig.endpoint.config[1][4] & 0b110 == 0b110 and device.config[4] & 0b110 == 0b110
    assert device.bars[0][1] == 0x4_0000


def test_msix_entries_are_written_before_msix_is_unmasked() -> None:
    """Events are mapped, then entries hold IOVA 0x0800_0040 and their event, then MSI-X is enabled and unmasked."""
    rig = Rig().boot()
    device = opened(rig)
    order: list[Any] = []
    original = rig.endpoint._mmio_write

    def write(access: Any) -> None:
        order.append(access.addr)
        assert rig.host.its[0].devices[STREAM].routes
        assert rig.endpoint.config[1][0x43] >> 6 == 0b11
        original(access)

    rig.endpoint.mmio.serve(lambda access: 0, write)
    rig.call(device.enable_msix(8))
    base = device.bars[2][0]
    assert order == [base + 4 * n for n in range(32)]
    table = [rig.endpoint.written[base + 4 * n] for n in range(32)]
    assert [table[4 * k : 4 * k + 4] for k in range(8)] == [[0x0800_0040, 0, k, 0] for k in range(8)]
    assert rig.endpoint.config[1][0x43] >> 6 == 0b10
    with pytest.raises(ModelError, match="MSI-X disabled"):
        rig.call(device.enable_msix(8))


def test_host_lpis_signal_their_vector() -> None:
    """The LPI of vector k calls eventfd[k]; without an eventfd it is counted and logged."""
    rig = Rig().boot()
    device = opened(rig)
    rig.call(device.enable_msix(8))
    signals: list[int] = []
    device.eventfd[3] = signals.append
    rig.call(rig.host.handle_irq(rig.host.cpus[0], device.host_irq(3)))
    rig.call(rig.host.handle_irq(rig.host.cpus[0], device.host_irq(4)))
    assert signals == [3]
    assert rig.node.count["host_lpis"] == 2 and rig.node.count["unclaimed_lpis"] == 1


def test_vectors_can_be_masked() -> None:
    """mask and unmask write the vector control word; a vector that is not enabled is refused."""
    rig = Rig().boot()
    device = opened(rig)
    rig.call(device.enable_msix(2))
    word = device.bars[2][0] + 16 + 12
    rig.call(device.mask(1))
    assert rig.endpoint.written[word] == 1
    rig.call(device.unmask(1))
    assert rig.endpoint.written[word] == 0
    with pytest.raises(ModelError, match="one of the 2 enabled"):
        rig.call(device.mask(2))


def test_close_gives_everything_back() -> None:
    """Closing unmaps vLPIs, frees ITT, LPIs, tables and the domain, and the function can be opened again."""
    rig = Rig().boot()
    host = rig.host
    assert host.v4 is not None
    before = host.memory.in_use()
    device = opened(rig)
    rig.call(device.enable_msix(8))
    vpes = rig.call(host.v4.alloc_vpes(1, [0]))
    rig.call(host.v4.map_vlpi(device.its_device, 0, vpes[0], 8192, 0xA0, True))
    rig.call(device.close())
    rig.call(host.v4.free_vpes(vpes))
    assert host.lpis.in_use == 0 and not host.vfio.open
    left = [a for a in host.memory.in_use() if a not in before]
    assert [a.size for a in left] == [0x1_0000, 0x1_0000]  # level-2 pages of device and vPE table stay
    assert rig.endpoint.config[1][4] & 0b100 == 0 and rig.endpoint.config[1][0x43] >> 7 == 0
    assert rig.its[0].count["command_errors"] == 0
    rig.call(host.vfio.open_device(NAME, RAM))
    rig.call(host.shutdown())
