"""Steps of a program: what software and devices do, one action each, readable as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.arch.its_commands import encode
from tests.differential.layout import LINE, REGISTERS


@dataclass(frozen=True, slots=True)
class Write:
    """A register of a block; `cpu` says which redistributor."""

    register: str
    value: int
    cpu: int = 0

    def __str__(self) -> str:
        of = f" of CPU {self.cpu}" if REGISTERS[self.register][0] == "gicr" else ""
        return f"write {self.register}{of} {self.value:#x}"


@dataclass(frozen=True, slots=True)
class Store:
    """`size` bytes to memory: configuration of LPIs and the like; `what` says of what."""

    address: int
    value: int
    size: int
    what: str = ""

    def __str__(self) -> str:
        return f"store {self.size} bytes {self.value:#x} at {self.address:#x}{f' ({self.what})' if self.what else ''}"


@dataclass(frozen=True, slots=True)
class Command:
    """An ITS command: into the queue, then GITS_CWRITER."""

    name: str
    fields: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, name: str, **fields: int) -> Command:
        """A command with its fields by name."""
        return cls(name, tuple(fields.items()))

    def __getitem__(self, key: str) -> int:
        return dict(self.fields)[key]

    @property
    def data(self) -> bytes:
        """Its 32 bytes."""
        return encode(self.name, **dict(self.fields))

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value:#x}" for key, value in self.fields)])


@dataclass(frozen=True, slots=True)
class Msi:
    """A device writes to GITS_TRANSLATER."""

    device_id: int
    event_id: int

    def __str__(self) -> str:
        return f"MSI of device {self.device_id:#x} event {self.event_id}"


@dataclass(frozen=True, slots=True)
class Line:
    """A level-sensitive device (QEMU's UART, INTID 33) raises or lowers its line."""

    level: int

    def __str__(self) -> str:
        return f"line of SPI {LINE} {'high' if self.level else 'low'}"


@dataclass(frozen=True, slots=True)
class Mrs:
    """Read of a system register at EL2, or at EL1 as a guest (virtual); acknowledges where the register does."""

    register: str
    cpu: int = 0
    el: int = 2

    def __str__(self) -> str:
        return f"CPU {self.cpu} EL{self.el}: read {self.register}"


@dataclass(frozen=True, slots=True)
class Msr:
    """Write of a system register."""

    register: str
    value: int
    cpu: int = 0
    el: int = 2

    def __str__(self) -> str:
        return f"CPU {self.cpu} EL{self.el}: {self.register} := {self.value:#x}"


Action = Write | Store | Command | Msi | Line | Mrs | Msr
Step = tuple[Action, ...]
"""Actions that make sense only together; what is seen is compared after the last one, and the result is the last one's."""


@dataclass(frozen=True, slots=True)
class Program:
    """`setup` runs unobserved, then every one of `steps` is followed by an observation."""

    version: str
    setup: Step = field(repr=False)
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"    {number:3} {'; '.join(map(str, step))}" for number, step in enumerate(self.steps)]
        return "\n".join([f"GICv{self.version}, after the usual set-up:", *lines])
