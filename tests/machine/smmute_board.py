"""Test double for the smmute guest: a vITS that carries out commands, and one smmute behind kvmtool's ECAM."""

from __future__ import annotations

from functools import partial
from typing import Any

from cosim.api import us
from nodes.arch.its_commands import COMMAND_SIZE, Command, decode
from nodes.software.smmute_app import program
from tests.machine.guest_board import GICD, Board

ECAM, BAR0, BAR2, BAR4 = 0x4000_0000, 0x5000_0000, 0x5004_0000, 0x5005_0000
BAR0_SIZE = 0x4_0000
PROPERTY_TABLE_BITS = 0xFFFF_FFFF_F000


class SmmuteBoard(Board):
    """`slot`: PCI device number of the smmute. The engine takes 2 us; tests override `msi`, `engine` and `read_back`."""

    def __init__(self, args: str = "", *, slot: int = 1, **params: Any) -> None:
        super().__init__(program, args, params)
        gits = GICD - 0x2_0000 * self.params["vcpus"] - 0x2_0000
        self.translater = gits + 0x1_0040
        self.slot = slot
        self.config = _config()
        self.frames: dict[int, int] = {}
        self.posted: list[tuple[int, int]] = []
        self.table: dict[int, int] = {}
        self.log: list[str] = []
        self.gits: dict[int, int] = {0x100: 1 << 56 | 7 << 48, 0x108: 4 << 56 | 7 << 48}
        self.commands: list[Command] = []
        self.events: dict[tuple[int, int], int] = {}
        self.enabled: set[int] = set()
        self.devices += [
            (gits, 0x2_0000, self._gits),
            (ECAM, 0x1000_0000, self._ecam),
            (BAR0, BAR0_SIZE, self._bar0),
            (BAR2, 0x8000, self._msix_table),
        ]
        self.started = 0

    # -- what tests change ---------------------------------------------------------------------------------------------

    def engine(self, frame: dict[int, int]) -> int:
        """Carry out MEMCPY; returns the final cmd."""
        begin, end, to = frame[0x28], frame[0x30], frame[0x40]
        for at in range(begin, end + 1):
            data = self.memory(at, 1)
            assert data is not None
            self.memory(to + at - begin, 1, data)
        return 1

    def read_back(self) -> int | None:
        """What cmd reads at once instead of MEMCPY (a refusal)."""
        return None

    def msi(self, number: int, vector: int) -> None:
        """Send transaction `number`'s MSI-X."""
        self.send_msi(vector)

    def send_msi(self, vector: int) -> None:
        """As the hardware does: only through an unmasked entry, a mapped event and an enabled LPI."""
        address = self.table.get(16 * vector, 0) | self.table.get(16 * vector + 4, 0) << 32
        control = int.from_bytes(self.config[0x42:0x44], "little")
        lpi = self.events.get((self.slot << 3, self.table.get(16 * vector + 8, -1)))
        usable = control & 0xC000 == 0x8000 and not self.table.get(16 * vector + 12, 1) & 1
        if usable and address == self.translater and lpi in self.enabled:
            assert lpi is not None
            self.deliver(0, lpi)

    # -- devices -------------------------------------------------------------------------------------------------------

    def _gits(self, offset: int, size: int, data: int | bytes | None) -> int:
        if data is None:
            return self.gits.get(offset, 0)
        assert isinstance(data, int)
        if offset in (0x100, 0x108):
            data |= self.gits[offset] & (7 << 56 | 0x1F << 48)
        self.gits[offset] = data
        if offset == 0x88:
            self._run_commands(data)
        return 0

    def _run_commands(self, until: int) -> None:
        base = self.gits[0x80] & PROPERTY_TABLE_BITS
        at = self.gits.get(0x90, 0)
        while at != until:
            raw = self.memory(base + at, COMMAND_SIZE)
            assert raw is not None
            command = decode(raw)
            self.commands.append(command)
            self.log.append(command.name)
            if command.name == "MAPTI":
                self.events[command["device_id"], command["event_id"]] = command["pintid"]
            elif command.name == "INV":
                lpi = self.events[command["device_id"], command["event_id"]]
                table = {o: d for f, o, d in self.gicr_writes if f == 0}[0x70] & PROPERTY_TABLE_BITS
                byte = self.memory(table + lpi - 8192, 1)
                assert byte is not None
                (self.enabled.add if byte[0] & 1 else self.enabled.discard)(lpi)
            at = (at + COMMAND_SIZE) % ((self.gits[0x80] & 0xFF) * 4096 + 4096)
        self.gits[0x90] = at

    def _ecam(self, offset: int, size: int, data: int | bytes | None) -> int:
        rid, register = offset >> 12, offset & 0xFFF
        if rid != self.slot << 3:
            return (1 << 8 * size) - 1
        if data is None:
            return int.from_bytes(self.config[register : register + size], "little")
        assert isinstance(data, int)
        if register == 0x10 and data == 0xFFFF_FFFF:
            data = -BAR0_SIZE & 0xFFFF_FFFF | 4
        self.config[register : register + size] = data.to_bytes(size, "little")
        if register == 0x42:
            self.log.append(f"control {data:#x}")
        return 0

    def _msix_table(self, offset: int, size: int, data: int | bytes | None) -> int:
        assert isinstance(data, int)
        self.table[offset] = data
        self.log.append("mask" if offset % 16 == 12 and data & 1 else "unmask" if offset % 16 == 12 else "entry")
        return 0

    def _bar0(self, offset: int, size: int, data: int | bytes | None) -> int:
        if data is None:
            refused = self.read_back() if offset == 0 else None
            return refused if refused is not None else self.frames.get(offset, 0)
        assert isinstance(data, int)
        self.posted.append((offset, data))
        self.frames[offset] = data
        if offset == 0 and data == 2 and self.read_back() is None:
            self.started += 1
            self.after(us(2), partial(self._finish, self.started, self.frames[0x18]))
        return 0

    def _finish(self, number: int, vector: int) -> None:
        self.frames[0] = self.engine(self.frames)
        self.msi(number, vector)


def _config() -> bytearray:
    config = bytearray(4096)

    def put(register: int, size: int, value: int) -> None:
        config[register : register + size] = value.to_bytes(size, "little")

    put(0x00, 4, 0xFF80_13B5)
    put(0x06, 2, 0x10)
    for n, (low, high) in enumerate(((BAR0, 0), (BAR2, 0), (BAR4, 0))):
        put(0x10 + 8 * n, 4, low | 4)
        put(0x14 + 8 * n, 4, high)
    put(0x34, 1, 0x50)
    put(0x50, 4, 0x0000_4010)  # PCI Express, then MSI-X
    put(0x40, 4, 0x07FF_0011)
    put(0x44, 4, 2)
    put(0x48, 4, 4)
    return config
