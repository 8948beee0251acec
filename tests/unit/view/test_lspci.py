"""lspci's text from configuration space bytes typed in here."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.cli.lspci import _matcher
from cosim.errors import UsageError
from cosim.view.lspci import Function, functions, lines


def endpoint(**changes: Any) -> dict[str, Any]:
    """A record of a type 0 function with MSI-X enabled and a 64-bit BAR of 256 KiB."""
    config = bytearray(256)
    config[0x00:0x04] = (0xFF8013B5).to_bytes(4, "little")
    config[0x04:0x08] = (0x0010_0406).to_bytes(4, "little")  # memory, master, no INTx; capabilities
    config[0x08:0x0C] = (0xFF00_000F).to_bytes(4, "little")
    config[0x10:0x18] = (0x40_0008_0000 | 0xC).to_bytes(8, "little")
    config[0x2C:0x30] = (0x0001_13B5).to_bytes(4, "little")
    config[0x34] = 0x80
    config[0x80:0x84] = (0x87FF_0011).to_bytes(4, "little")
    config[0x84:0x88] = (2).to_bytes(4, "little")
    config[0x88:0x8C] = (0x1004).to_bytes(4, "little")
    record = {"bdf": "0000:08:00.1", "bars": [[0x40_0008_0000, 0x4_0000]], "driver": "vfio-pci", "iommu_group": 3}
    return {**record, "config": config.hex(), **changes}


def root_port() -> dict[str, Any]:
    """A record of a type 1 function whose prefetchable window is 4 GiB at 0x40_0000_0000."""
    config = bytearray(4096)
    config[0x00:0x04] = (0xDEF0_13B5).to_bytes(4, "little")
    config[0x06] = 0x10
    config[0x0A:0x0C] = (0x0604).to_bytes(2, "little")
    config[0x0E] = 1
    config[0x18:0x1B] = bytes((0, 8, 9))
    config[0x20:0x24] = (0x0000_FFF0).to_bytes(4, "little")  # limit below base: no such window
    config[0x24:0x28] = (0xFFF1_0001).to_bytes(4, "little")
    config[0x28], config[0x2C] = 0x40, 0x40
    config[0x34] = 0x40
    config[0x40:0x44] = (0x0142_0010).to_bytes(4, "little")
    config[0x100:0x104] = (0x0001_000D).to_bytes(4, "little")
    return {"bdf": "0000:00:04.0", "config": config.hex(), "bars": [], "driver": "pcieport", "iommu_group": None}


def test_one_line_without_v() -> None:
    """Address without its domain, class, vendor, device and revision."""
    assert lines(Function(endpoint()), 0, False) == ["08:00.1 Unassigned class [ff00]: ARM Device ff80 (rev 0f)"]
    assert lines(Function(endpoint()), 0, True)[0].startswith("0000:08:00.1 ")


def test_vv_shows_control_region_msix_and_driver() -> None:
    """The bits of Command as flags, the BAR with its size, the MSI-X table, group and driver."""
    text = lines(Function(endpoint()), 2, False)
    for line in (
        "\tSubsystem: ARM Device 0001",
        "\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+",
        "\tIOMMU group: 3",
        "\tRegion 0: Memory at 4000080000 (64-bit, prefetchable) [size=256K]",
        "\tCapabilities: [80] MSI-X: Enable+ Count=2048 Masked-",
        "\t\tVector table: BAR=2 offset=00000000",
        "\t\tPBA: BAR=4 offset=00001000",
        "\tKernel driver in use: vfio-pci",
    ):
        assert line in text, line


def test_v_shows_flags_without_register_detail() -> None:
    """One v: a Flags line in place of Control and Status, regions without numbers."""
    text = lines(Function(endpoint()), 1, False)
    assert "\tFlags: bus master, fast devsel, latency 0, IOMMU group 3" in text
    assert "\tMemory at 4000080000 (64-bit, prefetchable) [size=256K]" in text
    assert not any("Control:" in line or "Vector table" in line for line in text)


def test_a_bridge_shows_its_buses_and_windows() -> None:
    """Type 1: bus numbers, the 64-bit window, no window whose limit lies below its base, the port's kind, ACS."""
    text = lines(Function(root_port()), 2, False)
    assert text[0] == "00:04.0 PCI bridge: ARM Device def0"
    assert "\tBus: primary=00, secondary=08, subordinate=09, sec-latency=0" in text
    assert "\tPrefetchable memory behind bridge: 0000004000000000-00000040ffffffff [size=4G] [64-bit]" in text
    assert not any(line.startswith("\tMemory behind bridge") for line in text)
    assert "\tCapabilities: [40] Express (v2) Root Port (Slot+), IntMsgNum 0" in text
    assert "\tCapabilities: [100 v1] Access Control Services" in text


def test_the_last_record_counts_and_loops_end() -> None:
    """Of two records of a function the later is shown; a capability that points to itself is listed once."""
    (found,) = functions([endpoint(driver=""), endpoint()])
    assert found.driver == "vfio-pci"
    config = bytearray(bytes.fromhex(endpoint()["config"]))
    config[0x81] = 0x80
    assert list(Function(endpoint(config=config.hex())).capabilities()) == [(0x11, 0x80)]


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("0000:08:00.1", True),
        ("08:00.1", True),
        ("8:0", True),
        ("08:00.0", False),
        ("0.1", True),
        ("1", False),
        (None, True),
    ],
)
def test_s_selects_by_what_it_names(address: str | None, match: bool) -> None:
    """Parts that -s leaves out match anything; the rightmost number before the dot is the device."""
    assert _matcher(address)("0000:08:00.1") is match


def test_a_wrong_address_is_refused() -> None:
    """-s takes PCI addresses only."""
    with pytest.raises(UsageError, match="must look like"):
        _matcher("08:00:1.9")
