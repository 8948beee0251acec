"""The test engine behind an SMMU, with memory: what a host would set up, in a few calls."""

from __future__ import annotations

from typing import Any

from cosim.api import Peer, Span, ns
from cosim.node.node import SIDE_LOG, SIDE_MARK, Node
from cosim.testing import Bench, Received
from nodes.arch.msi import MSI
from nodes.memory.model import Memory
from nodes.smmu.model import Smmu
from nodes.smmute.model import Smmute

REGS, ECAM, PCI, PCI_SIZE = 0x4000_0000, 0x10_1000_0000, 0x40_0000_0000, 0x40_0000_0000
RAM, RAM_SIZE = 0x8000_0000, 0x1000_0000
HOLE = RAM + RAM_SIZE
TRANSLATER = 0x3005_0040
STRTAB, CMDQ, EVENTQ, TABLES, DATA = RAM, RAM + 0x40_0000, RAM + 0x50_0000, RAM + 0x60_0000, RAM + 0x80_0000
SIDS = (0x800, 0x801)
LOG2_SIDS = 12
VMID = 7
MSI_IOVA = 0x0800_0000
IOVA = 0x1000_0000
LOG2_QUEUE = 3

CR0, CR0ACK, CR2, GBPA, IRQ_CTRL, GERROR, GERRORN = 0x20, 0x24, 0x2C, 0x44, 0x50, 0x60, 0x64
STRTAB_BASE, STRTAB_CFG = 0x80, 0x88
CMDQ_BASE, CMDQ_PROD, CMDQ_CONS, EVENTQ_BASE = 0x90, 0x98, 0x9C, 0xA0
EVENTQ_PROD, EVENTQ_CONS = 0x1_00A8, 0x1_00AC
SMMUEN, EVENTQEN, CMDQEN = 1, 4, 8

AF, S2AP_R, S2AP_W = 1 << 10, 1 << 6, 1 << 7
RW = AF | S2AP_R | S2AP_W
VALID, STAGE2, BYPASS = 1, 6 << 1, 4 << 1


def command(opcode: int, high: int = 0, word: int = 0) -> bytes:
    """A command: opcode, DW0[63:32], DW1."""
    return (opcode | high << 32).to_bytes(8, "little") + word.to_bytes(8, "little")


SYNC = command(0x46)


def ste(root: int = TABLES, *, t0sz: int = 16, sl0: int = 2, extra: int = 0, low: int = VALID | STAGE2) -> bytes:
    """A stage-2 stream table entry that records faults."""
    word2 = VMID | t0sz << 32 | sl0 << 38 | 5 << 48 | 1 << 51 | 1 << 58
    words = (low, 0, word2 ^ extra, root, 0, 0, 0, 0)
    return b"".join(word.to_bytes(8, "little") for word in words)


class Rig:
    """Host, SMMU, endpoint, memory and an ITS that is a probe. `slow` is the latency of the SMMU's memory link."""

    def __init__(self, *, slow: Span = ns(60), endpoint: bool = True, **params: Any) -> None:
        self.bench = bench = Bench()
        smmu_params: dict[str, Any] = {
            name: params.pop(name)
            for name in ("update_latency", "gbpa_abort", "oas", "device_id_offset", "stage1", "ssid_bits")
            if name in params
        }
        self.smmu = bench.add("smmu0", Smmu, smmu_params)
        self.memory = bench.add("memory", Memory)
        self.host = bench.probe("host")
        self.its = bench.probe("its0")
        self.distributor = bench.probe("distributor")
        self.msis: list[tuple[int, int, int]] = []
        self.lines: list[tuple[int, int]] = []
        self.its.respond = self._msi
        self.distributor.respond = self._level
        bench.link("smmu0.msi", "its0.msi", ns(40), translater=TRANSLATER)
        bench.link("smmu0.irq", "distributor.spi", ns(40))
        ram = [(RAM, RAM_SIZE, "memory.bus", RAM)]
        bench.map("smmu0.bus", ram, latency=slow)
        regions: list[Any] = [(REGS, 0x2_0000, "smmu0.regs"), *ram]
        self.dma = [bench.probe(f"ep{n}") for n in range(2)] if not endpoint else []
        if endpoint:
            self.smmute = bench.add("smmute", Smmute, params)
            regions += [(ECAM, 0x1000_0000, "smmute.ecam"), (PCI, PCI_SIZE, "smmute.mmio", PCI)]
        for n in range(2):
            port = f"smmute.dma{n}" if endpoint else f"ep{n}.bus"
            bench.map(port, [(0, 1 << 48, "smmu0.upstream")], latency=ns(250), stream_id=SIDS[n])
        bench.map("host.bus", regions, latency=ns(40))
        self._next = TABLES + 0x1000
        self._prod = 0
        bench.boot()

    def _msi(self, peer: Peer, message: Received) -> None:
        assert message.kind is MSI.Msi
        self.msis.append((message.time, message.fields[0], message.fields[1]))

    def _level(self, peer: Peer, message: Received) -> None:
        self.lines.append(message.fields)

    @property
    def now(self) -> int:
        """Time reached (ps)."""
        kernel = self.bench.kernel
        assert kernel is not None
        return kernel.now

    # -- host ----------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int = 4) -> int:
        """A host read."""
        value = self.bench.call("host", self.host.bus.read(address, size))
        assert isinstance(value, int)
        return value

    def write(self, address: int, value: int, size: int = 4) -> None:
        """A host write; everything settles."""
        self.bench.call("host", self.host.bus.write(address, value, size))

    def block(self, address: int, data: bytes) -> None:
        """A host write of many bytes."""
        self.bench.call("host", self.host.bus.write_block(address, data))

    def reg(self, offset: int, size: int = 4) -> int:
        """A register of the SMMU."""
        return self.read(REGS + offset, size)

    def set(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register of the SMMU."""
        self.write(REGS + offset, value, size)

    def counts(self, node: Node, *names: str) -> list[int]:
        """Counters."""
        return [node.count[name] for name in names]

    # -- SMMU ----------------------------------------------------------------------------------------------------------

    def start(self, *, events: bool = True) -> Rig:
        """Stream table, queues of 8, both functions' streams with an empty stage 2, everything enabled."""
        self.set(STRTAB_BASE, STRTAB, 8)
        self.set(STRTAB_CFG, LOG2_SIDS)
        self.set(CMDQ_BASE, CMDQ | LOG2_QUEUE, 8)
        self.set(EVENTQ_BASE, EVENTQ | LOG2_QUEUE, 8)
        self.set(CR2, 2)
        for sid in SIDS:
            self.ste(sid, ste())
        self.set(IRQ_CTRL, 5)
        self.set(CR0, SMMUEN | CMDQEN | (EVENTQEN if events else 0))
        return self

    def ste(self, sid: int, data: bytes) -> None:
        """Place a stream table entry."""
        self.memory.poke(STRTAB + sid * 64, data)

    def map(
        self, iova: int, pa: int, *, attributes: int = RW, level: int = 3, root: int = TABLES, start: int = 0
    ) -> None:
        """Map one page or block (level 1, 2, 3) in the tables at `root`, which start at level `start`."""
        table = root
        for above in range(start, level):
            index = iova >> 39 - 9 * above & (511 if above > start else 0x1FFF)
            slot = table + 8 * index
            entry = int.from_bytes(self.memory.peek(slot, 8), "little")
            if not entry & 1:
                entry = self._next | 3
                self._next += 0x1000
                self.memory.poke(slot, entry.to_bytes(8, "little"))
            table = entry & ~0xFFF
        index = iova >> 39 - 9 * level & (511 if level > start else 0x1FFF)
        kind = 3 if level == 3 else 1
        self.memory.poke(table + 8 * index, (pa | attributes | kind).to_bytes(8, "little"))

    def map_all(self) -> Rig:
        """16 pages of data and the MSI page."""
        for n in range(16):
            self.map(IOVA + n * 0x1000, DATA + n * 0x1000)
        self.map(MSI_IOVA, TRANSLATER & ~0xFFF)
        return self

    def run(self, *commands: bytes) -> int:
        """Let the SMMU execute commands; returns CMDQ_CONS."""
        slots = 1 << LOG2_QUEUE
        for item in commands:
            self.memory.poke(CMDQ + self._prod % slots * 16, item)
            self._prod = (self._prod + 1) % (2 * slots)
        self.set(CMDQ_PROD, self._prod)
        return self.reg(CMDQ_CONS)

    def event(self, slot: int) -> list[int]:
        """The four words of a record."""
        data = self.memory.peek(EVENTQ + 32 * slot, 32)
        return [int.from_bytes(data[n : n + 8], "little") for n in range(0, 32, 8)]

    def marks(self) -> list[list[Any]]:
        """Marks of the SMMU."""
        return [record[4] for record in self.smmu.side if record[3] == SIDE_MARK]

    def logs(self, node: Node, event: str) -> list[dict[str, Any]]:
        """Fields of a node's log entries of one event."""
        return [r[4][1] for r in node.side if r[3] == SIDE_LOG and r[4][0] == event]

    # -- DMA without an engine -----------------------------------------------------------------------------------------

    def load(self, iova: int, size: int = 8, function: int = 0, attr: int = 2) -> int:
        """A read by the endpoint's double; raises BusFault."""
        value = self.bench.call(f"ep{function}", self.dma[function].bus.read(iova, size, attr))
        assert isinstance(value, int)
        return value

    def store(self, iova: int, value: int, size: int = 8, function: int = 0, attr: int = 2) -> None:
        """A write by the endpoint's double; raises BusFault."""
        self.bench.call(f"ep{function}", self.dma[function].bus.write(iova, value, size, attr))

    # -- PCI -----------------------------------------------------------------------------------------------------------

    def config(self, function: int, offset: int, size: int = 4) -> int:
        """A configuration read of 08:00.function."""
        return self.read(ECAM + (0x800 | function) * 4096 + offset, size)

    def set_config(self, function: int, offset: int, value: int, size: int = 4) -> None:
        """A configuration write."""
        self.write(ECAM + (0x800 | function) * 4096 + offset, value, size)

    def bars(self, function: int) -> tuple[int, int, int]:
        """Addresses that `enable` gives BAR 0, 2 and 4."""
        base = PCI + function * 0x10_0000
        return base, base + 0x8_0000, base + 0x9_0000

    def enable(self, function: int, *, vectors: int = 8, command: int = 6) -> None:
        """Assign BARs, memory space and bus master on, MSI-X on with the first vectors unmasked."""
        for n, address in enumerate(self.bars(function)):
            self.set_config(function, 0x10 + 8 * n, address & 0xFFFF_FFFF)
            self.set_config(function, 0x14 + 8 * n, address >> 32)
        self.set_config(function, 4, command, 2)
        for vector in range(vectors):
            self.entry(function, vector, MSI_IOVA + 0x40, vector, 0)
        self.set_config(function, 0x82, 1 << 15, 2)

    def entry(self, function: int, vector: int, address: int, data: int, control: int) -> None:
        """Write an MSI-X table entry."""
        words = (address & 0xFFFF_FFFF, address >> 32, data, control)
        at = self.bars(function)[1] + 16 * vector
        self.block(at, b"".join(word.to_bytes(4, "little") for word in words))

    def frame(self, function: int = 0, frame: int = 0) -> int:
        """Address of a user frame."""
        return self.bars(function)[0] + 128 * frame

    def program(self, command: int, begin: int, end: int, *, function: int = 0, frame: int = 0, **regs: int) -> None:
        """Fill a frame by one block and start it; the command runs as the bench goes on."""
        self.post(command, begin, end, function=function, frame=frame, **regs)
        self.bench.run()

    def post(self, command: int, begin: int, end: int, *, function: int = 0, frame: int = 0, **regs: int) -> None:
        """Queue a frame's program as the bench's next event, without running it."""
        values = {"msiaddress": 1, "msidata": 0, "attributes": 0x42FF42FF, "seed": 0, "stride": 1, "to": 0} | regs
        head = [command, 0, 0, 0]
        data = b"".join(word.to_bytes(4, "little") for word in head)
        data += values["msiaddress"].to_bytes(8, "little") + values["msidata"].to_bytes(4, "little") + bytes(4)
        data += values["attributes"].to_bytes(4, "little") + values["seed"].to_bytes(4, "little")
        data += b"".join(word.to_bytes(8, "little") for word in (begin, end, values["stride"], values["to"]))
        at = self.frame(function, frame)

        async def body() -> None:
            bus = self.host.bus
            bus.post32(at + 0x1_0000 + 0xC, values.get("substreamid", 0xFFFF_FFFF))
            bus.post32(at + 0x1_0000 + 4, values.get("port", 0))
            bus.post_block(at, data)

        self.bench._pending.append(("host", body()))

    def user(self, name: str, *, function: int = 0, frame: int = 0) -> int:
        """A register of a user frame."""
        offset, size = {"cmd": (0, 4), "uctrl": (4, 4), "launched": (8, 4), "returned": (12, 4), "udata0": (0x40, 8),
                        "udata1": (0x48, 8), "udata2": (0x50, 8), "begin": (0x28, 8)}[name]  # fmt: skip
        return self.read(self.frame(function, frame) + offset, size)


def ready(function: int = 1, **params: Any) -> Rig:
    """Everything mapped, and a function of the test engine enabled."""
    made = Rig(**params).start().map_all()
    made.enable(function)
    return made


def smmu_alone(**params: Any) -> Rig:
    """The SMMU with doubles around it."""
    return Rig(endpoint=False, **params).start()
