"""What the pure parts of KVM are tested against: guest RAM in a bytearray, a GICv4 that only notes, coroutines run at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any

from nodes.arch.its_commands import encode
from nodes.hypervisor.kvm.guest_memory import OutOfGuestRam
from nodes.hypervisor.kvm.irq import Hw, VgicIrq
from nodes.hypervisor.kvm.vgic import Vgic, VgicCpu
from nodes.hypervisor.kvm.vgic_mmio import GicFrames
from nodes.hypervisor.kvm.vits import BASER0, BASER1, CBASER, CTLR, CWRITER, VALID, VirtualIts

RAM, SIZE = 0x8000_0000, 0x10_0000
QUEUE, PROP, PEND, DEVICES, COLLECTIONS = RAM, RAM + 0x2_0000, RAM + 0x3_0000, RAM + 0x4_0000, RAM + 0x5_0000
GICD, GICR, GITS = 0x3FFF_0000, 0x3FFB_0000, 0x3FF9_0000


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine waits for simulated time")


class Ram:
    """GuestMemory without a bus; `reads` lists what was fetched."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.reads: list[tuple[int, int]] = []

    def _at(self, ipa: int, size: int) -> int:
        if not RAM <= ipa <= RAM + SIZE - size:
            raise OutOfGuestRam(ipa, size)
        return ipa - RAM

    async def read(self, ipa: int, size: int) -> bytes:
        at = self._at(ipa, size)
        self.reads.append((ipa, size))
        return bytes(self.data[at : at + size])

    def post(self, ipa: int, data: bytes) -> None:
        at = self._at(ipa, len(data))
        self.data[at : at + len(data)] = data


class Notes:
    """A GICv4 that notes what it is asked; `pending` is what a query of vSGIs answers."""

    def __init__(self, vgic: Vgic, sgis: bool = True) -> None:
        self.vgic = vgic
        self.sgis = sgis
        self.calls: list[tuple[Any, ...]] = []
        self.pending = 0

    async def switch_sgis(self, on: bool) -> None:
        self.calls.append(("switch", on))
        for cpu in self.vgic.cpus:
            for irq in cpu.private[:16]:
                irq.hw = Hw.SGI if on else Hw.NONE

    async def configure_sgis(self, cpu: VgicCpu) -> None:
        self.calls.append(("configure", cpu.index))

    async def sgis_pending(self, cpu: VgicCpu) -> int:
        return self.pending

    async def pend_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        self.calls.append(("pend", cpu.index, sgi))

    async def clear_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        self.calls.append(("clear", cpu.index, sgi))

    async def update(self, irq: VgicIrq) -> None:
        self.calls.append(("update", irq.intid, irq.priority, irq.enabled))

    async def move(self, irq: VgicIrq) -> None:
        self.calls.append(("move", irq.intid, irq.target.index if irq.target is not None else None))

    async def unforward(self, irq: VgicIrq) -> None:
        self.calls.append(("unforward", irq.intid))
        irq.hw = Hw.NONE

    async def pend(self, irq: VgicIrq) -> None:
        self.calls.append(("int", irq.intid))

    async def clear(self, irq: VgicIrq) -> None:
        self.calls.append(("clear lpi", irq.intid))

    def reload(self) -> None:
        self.calls.append(("reload",))


class Guest:
    """A guest with two vCPUs and the virtual GIC's frames; `run` queues ITS commands."""

    def __init__(self, cpus: int = 2, *, v4: bool = True) -> None:
        self.count: Counter[str] = Counter()
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.vgic = Vgic([0x8000_0000 | n for n in range(cpus)], count=self.count, direct_sgis=v4)
        self.ram = Ram()
        self.v4 = Notes(self.vgic) if v4 else None
        self.vits = VirtualIts(GITS, self.vgic, self.ram, self.v4, self.count, self._log)  # type: ignore[arg-type]
        self.frames = GicFrames(self.vgic, self.vits, GICD, GICR, self.v4, self.count, self._log)
        self._slot = 0

    def _log(self, event: str, **fields: Any) -> None:
        self.logged.append((event, fields))

    def read(self, ipa: int, size: int = 4, cpu: int = 0) -> int:
        value = now(self.frames.read(self.vgic.cpus[cpu], ipa, size))
        assert isinstance(value, int)
        return value

    def write(self, ipa: int, value: int, size: int = 4, cpu: int = 0) -> None:
        now(self.frames.write(self.vgic.cpus[cpu], ipa, size, value))

    def lpis_on(self) -> Guest:
        """GICD on, LPIs on, vITS on with tables and a queue of one page."""
        self.write(GICD, 0x12)
        for n in range(len(self.vgic.cpus)):
            rd = GICR + n * 0x2_0000
            self.write(rd + 0x70, PROP | 15, 8)
            self.write(rd + 0x78, PEND, 8)
            self.write(rd, 1)
            self.vgic.cpus[n].vmcr = 0xF0 << 24
        self.write(GITS + BASER0, VALID | DEVICES, 8)
        self.write(GITS + BASER1, VALID | COLLECTIONS, 8)
        self.write(GITS + CBASER, VALID | QUEUE, 8)
        self.write(GITS + CTLR, 1)
        return self

    def run(self, *commands: tuple[str, dict[str, int]]) -> None:
        """Queue commands in the guest's RAM and write CWRITER."""
        for name, fields in commands:
            self.ram.post(QUEUE + self._slot * 32, encode(name, **fields))
            self._slot = (self._slot + 1) % 128
        self.write(GITS + CWRITER, self._slot * 32, 8)

    def config(self, intid: int, priority: int, enabled: bool) -> None:
        """The guest's configuration byte of an LPI."""
        self.ram.post(PROP + intid - 8192, bytes([priority & 0xFC | 2 | enabled]))
