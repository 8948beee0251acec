"""The virtual ITS: commands, errors, tables, MSIs, and what happens to forwarded vLPIs."""

from __future__ import annotations

import pytest

from nodes.hypervisor.kvm.irq import Hw
from nodes.hypervisor.kvm.vits import BASER0, CBASER, CREADR, CTLR, CWRITER, TYPER, VALID, MsiError
from tests.machine.kvm_doubles import DEVICES, GITS, PEND, QUEUE, Guest

DEV = 8


def mapped(guest: Guest | None = None) -> Guest:
    """Device 8 with 8 events, event 0 mapped to LPI 8192 of collection 0 at vCPU 0, enabled with priority 0xA0."""
    guest = (guest or Guest()).lpis_on()
    guest.config(8192, 0xA0, True)
    guest.run(
        ("MAPD", {"device_id": DEV, "size": 2, "itt": 0x8006_0000, "valid": 1}),
        ("MAPC", {"icid": 0, "rdbase": 0, "valid": 1}),
        ("MAPC", {"icid": 1, "rdbase": 1, "valid": 1}),
        ("MAPTI", {"device_id": DEV, "event_id": 0, "pintid": 8192, "icid": 0}),
        ("SYNC", {"rdbase": 0}),
    )
    return guest


def test_identification_is_kvms() -> None:
    """GITS_TYPER shows 16 device and event bits, 8-byte ITEs, physical LPIs only; its upper half can be read alone."""
    guest = Guest()
    assert guest.read(GITS + TYPER, 8) == 1 | 7 << 4 | 15 << 8 | 15 << 13
    assert guest.read(GITS + TYPER + 4, 4) == 0
    assert guest.read(GITS + 0xFFE8) == 0x3B


def test_the_queue_is_read_in_one_block_and_an_msi_is_delivered() -> None:
    """Five commands cost one read of the queue; then the MSI's interrupt is pending in vCPU 0's list."""
    guest = mapped()
    assert [read for read in guest.ram.reads if read[0] < QUEUE + 0x1_0000] == [(QUEUE, 160)]
    assert guest.read(GITS + CREADR, 8) == guest.read(GITS + CWRITER, 8) == 160
    guest.vits.inject(DEV, 0)
    assert [irq.intid for irq in guest.vgic.cpus[0].ap_list] == [8192]
    assert guest.count["vits_command_errors"] == 0


def test_the_queue_wraps_at_its_own_size() -> None:
    """A batch that crosses the end of the ring is fully consumed."""
    guest = mapped()
    guest.run(*[("SYNC", {"rdbase": 0})] * 120)
    guest.run(*[("SYNC", {"rdbase": 0})] * 4, ("INT", {"device_id": DEV, "event_id": 0}))
    assert guest.read(GITS + CREADR, 8) == 2 * 32
    assert guest.vgic.lpis[8192].pending and guest.count["vits_commands"] == 130


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("MAPD", {"device_id": 0x1_0000, "valid": 1}, "0x010801"),
        ("MAPD", {"device_id": 9, "size": 16, "valid": 1}, "0x010802"),
        ("MAPC", {"icid": 3, "rdbase": 2, "valid": 1}, "0x010902"),
        ("MAPC", {"icid": 0x2000, "rdbase": 0, "valid": 1}, "0x010903"),
        ("MAPTI", {"device_id": 9, "event_id": 0, "pintid": 8200}, "0x010a04"),
        ("MAPTI", {"device_id": DEV, "event_id": 8, "pintid": 8200}, "0x010a05"),
        ("MAPTI", {"device_id": DEV, "event_id": 1, "pintid": 100}, "0x010a06"),
        ("MAPTI", {"device_id": DEV, "event_id": 1, "pintid": 8200, "icid": 0x2000}, "0x010a03"),
        ("INT", {"device_id": DEV, "event_id": 5}, "0x010307"),
        ("CLEAR", {"device_id": 9, "event_id": 0}, "0x010504"),
        ("INV", {"device_id": DEV, "event_id": 9}, "0x010c05"),
        ("DISCARD", {"device_id": DEV, "event_id": 5}, "0x010f07"),
        ("MOVI", {"device_id": DEV, "event_id": 0, "icid": 7}, "0x010109"),
        ("INVALL", {"icid": 7}, "0x010d09"),
        ("MOVALL", {"rdbase1": 0, "rdbase2": 5}, "0x010e01"),
        ("VSYNC", {"vpeid": 0}, "0x012500"),
    ],
)
def test_a_failing_command_is_skipped_with_its_syndrome(name: str, fields: dict[str, int], code: str) -> None:
    """A bad command is counted, logged with its code, and the next one is carried out."""
    guest = mapped()
    guest.run((name, fields), ("INT", {"device_id": DEV, "event_id": 0}))
    assert guest.count["vits_command_errors"] == 1
    assert code in guest.logged[-1][1]["why"]
    assert guest.vgic.lpis[8192].pending


def test_an_event_mapped_before_its_collection_is_delivered_once_that_is_mapped() -> None:
    """MAPTI to an unmapped collection is accepted; MSIs drop until MAPC gives it a vCPU."""
    guest = mapped()
    guest.run(("MAPTI", {"device_id": DEV, "event_id": 1, "pintid": 8193, "icid": 5}))
    with pytest.raises(MsiError, match="collection"):
        guest.vits.inject(DEV, 1)
    guest.run(("MAPC", {"icid": 5, "rdbase": 1, "valid": 1}))
    guest.vits.inject(DEV, 1)
    assert guest.vgic.lpis[8193].target is guest.vgic.cpus[1]


def test_inv_makes_a_configuration_change_visible() -> None:
    """An LPI that is disabled stays pending out of the list; after the byte changed, INV delivers it."""
    guest = mapped()
    guest.config(8193, 0x80, False)
    guest.run(("MAPTI", {"device_id": DEV, "event_id": 1, "pintid": 8193, "icid": 0}))
    guest.vits.inject(DEV, 1)
    assert guest.vgic.cpus[0].ap_list == []
    guest.config(8193, 0x40, True)
    guest.run(("INV", {"device_id": DEV, "event_id": 1}))
    assert [(irq.intid, irq.priority) for irq in guest.vgic.cpus[0].ap_list] == [(8193, 0x40)]


def test_movi_moves_a_pending_lpi_to_the_other_vcpu() -> None:
    """MOVI takes the pending interrupt from one list to the other."""
    guest = mapped()
    guest.vits.inject(DEV, 0)
    guest.run(("MOVI", {"device_id": DEV, "event_id": 0, "icid": 1}))
    assert guest.vgic.cpus[0].ap_list == [] and guest.vgic.cpus[1].ap_list[0].intid == 8192


def test_discard_drops_the_pending_state_and_the_mapping() -> None:
    """After DISCARD the event does not translate, and the LPI is in no list."""
    guest = mapped()
    guest.vits.inject(DEV, 0)
    guest.run(("DISCARD", {"device_id": DEV, "event_id": 0}))
    assert guest.vgic.cpus[0].ap_list == [] and 8192 not in guest.vgic.lpis
    with pytest.raises(MsiError, match="not mapped"):
        guest.vits.resolve(DEV, 0)


def test_a_pending_bit_left_in_the_guests_table_is_taken_over_once() -> None:
    """MAPTI of an LPI whose bit is set in the pending table makes it pending and clears the bit."""
    guest = Guest().lpis_on()
    guest.config(8192, 0xA0, True)
    guest.ram.post(PEND + 1024, b"\x01")
    guest.run(
        ("MAPD", {"device_id": DEV, "size": 2, "valid": 1}),
        ("MAPC", {"icid": 0, "rdbase": 0, "valid": 1}),
        ("MAPTI", {"device_id": DEV, "event_id": 0, "pintid": 8192, "icid": 0}),
    )
    assert guest.vgic.cpus[0].ap_list[0].intid == 8192
    assert guest.ram.data[PEND + 1024 - 0x8000_0000] == 0


def test_eight_mappings_read_each_guest_table_once() -> None:
    """A batch of MAPTI and INV costs one read of the configuration table and one of the pending table."""
    guest = mapped()
    guest.ram.reads.clear()
    events = range(1, 8)
    guest.run(
        *[("MAPTI", {"device_id": DEV, "event_id": n, "pintid": 8192 + n, "icid": 0}) for n in events],
        *[("INV", {"device_id": DEV, "event_id": n}) for n in events],
    )
    assert len(guest.ram.reads) == 3


def test_commands_on_a_forwarded_vlpi_reach_the_hardware() -> None:
    """INV, INT, CLEAR, MOVI and DISCARD of a forwarded vLPI are handed to GICv4 instead of the lists."""
    guest = mapped()
    assert guest.v4 is not None
    guest.v4.calls.clear()
    guest.vgic.lpis[8192].hw = Hw.VLPI
    guest.config(8192, 0x60, False)
    event = {"device_id": DEV, "event_id": 0}
    guest.run(("INV", event), ("INT", event), ("CLEAR", event), ("MOVI", {**event, "icid": 1}), ("DISCARD", event))
    assert guest.v4.calls == [
        ("update", 8192, 0x60, False),
        ("int", 8192),
        ("clear lpi", 8192),
        ("move", 8192, 1),
        ("unforward", 8192),
    ]
    assert guest.vgic.cpus[0].ap_list == guest.vgic.cpus[1].ap_list == []


def test_an_indirect_device_table_is_looked_up_in_guest_memory() -> None:
    """With a two-level table a DeviceID is in range only if its level-1 entry is valid."""
    guest = Guest().lpis_on()
    guest.write(GITS + CTLR, 0)
    guest.write(GITS + BASER0, VALID | 1 << 62 | DEVICES, 8)
    guest.write(GITS + CTLR, 1)
    guest.ram.post(DEVICES, (VALID | 0x8007_0000).to_bytes(8, "little"))
    guest.run(
        ("MAPD", {"device_id": 8191, "size": 2, "valid": 1}), ("MAPD", {"device_id": 8192, "size": 2, "valid": 1})
    )
    assert list(guest.vits.devices) == [8191] and guest.count["vits_command_errors"] == 1


def test_a_queue_outside_the_guests_ram_is_an_error_and_not_a_crash() -> None:
    """CBASER that points to nowhere: the commands are not read, the error is counted and says the address."""
    guest = Guest().lpis_on()
    guest.write(GITS + CTLR, 0)
    guest.write(GITS + CBASER, VALID | 0x1000, 8)
    guest.write(GITS + CTLR, 1)
    guest.write(GITS + CWRITER, 32, 8)
    assert guest.count["vits_command_errors"] == 1 and "0x1000" in guest.logged[-1][1]["why"]


def test_msis_drop_while_the_its_is_off() -> None:
    """A disabled vITS translates nothing, and says so."""
    guest = mapped()
    guest.write(GITS + CTLR, 0)
    with pytest.raises(MsiError, match="disabled"):
        guest.vits.resolve(DEV, 0)


def test_a_baser_write_that_clears_valid_drops_the_devices() -> None:
    """GITS_BASER0 with Valid = 0 forgets all mappings, as KVM does."""
    guest = mapped()
    guest.write(GITS + CTLR, 0)
    guest.write(GITS + BASER0, 0, 8)
    assert guest.vits.devices == {} and guest.vgic.lpis == {}
