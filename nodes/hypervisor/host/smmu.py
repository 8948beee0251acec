"""The SMMUv3 driver (Linux arm-smmu-v3.c): stream table, command and event queue, domains of stage 1 or 2 (sheet 12).

The stream table has two levels where the SMMU offers them; a level-2 table comes with the first device that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cosim.api import Lock, ModelError, ns
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import poll, read_all
from nodes.hypervisor.host.pagetable import IPA_BITS, MAIR, Stage1, Stage2
from nodes.hypervisor.host.regs import field

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.host import Host

CMDQ_LOG2, CMD_SIZE = 8, 16
EVENTQ_LOG2, EVENT_SIZE = 7, 32
STE_SIZE = 64
SPI_EVENTQ, SPI_GERROR = 260, 262

CMD_CFGI_STE = 0x03
CMD_CFGI_ALL = 0x04
CMD_CFGI_CD = 0x05
CMD_TLBI_NH_ASID = 0x11
CMD_TLBI_S12_VMALL = 0x28
CMD_TLBI_NSNH_ALL = 0x30
CMD_SYNC = 0x46
CMDQ_ERRORS = {0: "No error", 1: "Illegal command", 2: "Abort on command fetch", 3: "ATC invalidate timeout"}

STE_VALID = 1 << 0
STE_S1_ONLY, STE_S2_ONLY = 5 << 1, 6 << 1
STE1_S1_WRITE_BACK_INNER = 1 << 2 | 1 << 4 | 3 << 6
"""STE.S1CIR, S1COR: write-back; S1CSH: inner."""
CD_SIZE = 64
CD_VALID, CD_AA64, CD_RECORD, CD_ABORT, CD_ASET = 1 << 31, 1 << 41, 1 << 45, 1 << 46, 1 << 47
CD_EPD1 = 1 << 30
STRTAB_SPLIT = 8
STRTAB_2LEVEL = 1 << 16
L1_DESC_SIZE = 8
STE1_SHCFG_INCOMING = 1 << 44
CR1_CACHED = 0b11_01_01_11_01_01
"""Queues and tables: inner shareable, write-back (CR1.{TABLE,QUEUE}_{SH,OC,IC})."""


def cmd_cfgi_ste(sid: int) -> bytes:
    """CMD_CFGI_STE of one stream, Leaf = 1."""
    return _words(CMD_CFGI_STE | sid << 32, 1)


def cmd_cfgi_all() -> bytes:
    """CMD_CFGI_ALL."""
    return _words(CMD_CFGI_ALL, 31)


def cmd_cfgi_cd(sid: int) -> bytes:
    """CMD_CFGI_CD of a stream's only context, Leaf = 1."""
    return _words(CMD_CFGI_CD | sid << 32, 1)


def cmd_tlbi_asid(asid: int) -> bytes:
    """CMD_TLBI_NH_ASID, VMID 0."""
    return _words(CMD_TLBI_NH_ASID | asid << 48, 0)


def cmd_tlbi_vmid(vmid: int) -> bytes:
    """CMD_TLBI_S12_VMALL."""
    return _words(CMD_TLBI_S12_VMALL | vmid << 32, 0)


def cmd_tlbi_all() -> bytes:
    """CMD_TLBI_NSNH_ALL."""
    return _words(CMD_TLBI_NSNH_ALL, 0)


def cmd_sync() -> bytes:
    """CMD_SYNC without a completion signal: software polls CMDQ_CONS."""
    return _words(CMD_SYNC, 0)


def ste_stage2(vmid: int, root: int, oas: int) -> list[int]:
    """The eight words of an STE that translates by stage 2 only: 48-bit IPA from level 0, 4 KiB granule, faults recorded."""
    word2 = vmid
    word2 |= (64 - IPA_BITS) << 32  # S2T0SZ
    word2 |= 2 << 38  # S2SL0: level 0
    word2 |= 1 << 40 | 1 << 42 | 3 << 44  # S2IR0, S2OR0: write-back; S2SH0: inner
    word2 |= oas << 48 | 1 << 51 | 1 << 58  # S2PS, S2AA64, S2R
    return [STE_VALID | STE_S2_ONLY, STE1_SHCFG_INCOMING, word2, root, 0, 0, 0, 0]


def ste_stage1(contexts: int) -> list[int]:
    """The eight words of an STE that translates by stage 1 only, with one context descriptor and no substreams."""
    return [STE_VALID | STE_S1_ONLY | contexts, STE1_S1_WRITE_BACK_INNER | STE1_SHCFG_INCOMING, 0, 0, 0, 0, 0, 0]


def cd_lower(asid: int, root: int, oas: int) -> list[int]:
    """The eight words of a CD: 48-bit addresses by TTB0 with 4 KiB pages, the upper half disabled, faults recorded."""
    word0 = 64 - IPA_BITS | 1 << 8 | 1 << 10 | 3 << 12  # T0SZ, TG0 4 KiB, IR0, OR0: write-back, SH0: inner
    word0 |= CD_EPD1 | CD_VALID | oas << 32 | CD_AA64 | CD_RECORD | CD_ABORT | CD_ASET | asid << 48
    return [word0, root, 0, MAIR, 0, 0, 0, 0]


def _words(*words: int) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


class Domain:
    """A translation that devices are attached to: its tables, their number (ASID of stage 1, VMID of stage 2), the StreamIDs
    that use it."""

    def __init__(self, number: int, tables: Stage1 | Stage2) -> None:
        self.number = number
        self.tables = tables
        self.streams: list[int] = []

    @property
    def vmid(self) -> int:
        """VMID of a stage-2 domain; 0 of one of stage 1."""
        return self.number if isinstance(self.tables, Stage2) else 0

    def flush(self) -> bytes:
        """The command that drops what is cached of it."""
        return cmd_tlbi_vmid(self.number) if isinstance(self.tables, Stage2) else cmd_tlbi_asid(self.number)


class SmmuDriver:
    """One SMMUv3 at `base`; `log2_streams` bits of StreamID in its stream table."""

    def __init__(self, host: Host, base: int) -> None:
        self.host = host
        self.base = base
        self.name = "arm-smmu-v3 arm-smmu-v3.0.auto"
        self.log2_streams = 0
        self.oas = 5
        self.stage: int = host.node.params.get("smmu_stage", 2)
        if self.stage not in (1, 2):
            raise ModelError(f"smmu_stage must be 1 or 2, not {self.stage!r}")
        self.events: list[tuple[int, int, int, int]] = []
        self._strtab = 0
        self._two_level = False
        self._level2: dict[int, int] = {}
        self._contexts: dict[int, int] = {}
        self._cmdq = 0
        self._eventq = 0
        self._prod = 0
        self._event_cons = 0
        self._overflow = 0
        self._lock = Lock("command queue of the SMMU")
        self._numbers: set[int] = set()

    # -- bring-up ------------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Reset the SMMU, give it tables and queues, enable it with an empty stream table: every stream is refused.

        Raises:
            ModelError: it doesn't have the stage that devices are to be attached by.
        """
        host, bus, base = self.host, self.host.bus, self.base
        idr0, idr1, idr5 = await read_all(
            bus, [(base + r, 4) for r in (regs.SMMU_IDR0, regs.SMMU_IDR1, regs.SMMU_IDR5)]
        )
        if not idr0 & (regs.IDR0_S2P if self.stage == 2 else regs.IDR0_S1P):
            raise ModelError(f"the SMMU at {base:#x} must have stage {self.stage} (smmu_stage); IDR0 = {idr0:#x}")
        sid_bits = field(idr1, 5, 0)
        needed = (host.pci.stream_id(0xFFFF)).bit_length()
        if needed > sid_bits:
            raise ModelError(f"StreamIDs have {needed} bits, but SMMU_IDR1.SIDSIZE is {sid_bits}")
        self.log2_streams = needed
        self.oas = field(idr5, 2, 0)
        host.printk(
            f"{self.name}: ias {IPA_BITS}-bit, oas {(32, 36, 40, 42, 44, 48, 52, 56)[self.oas]}-bit (features {idr0:#010x})"
        )
        await self._set_cr0(0)
        bus.post32(base + regs.SMMU_CR1, CR1_CACHED)
        bus.post32(base + regs.SMMU_CR2, 0b110)  # PTM, RECINVSID
        self._make_stream_table(bool(field(idr0, 28, 27)))
        self._cmdq = host.memory.alloc(CMD_SIZE << CMDQ_LOG2, 4096, "smmu")
        host.printk(f"{self.name}: allocated {1 << CMDQ_LOG2} entries for cmdq")
        bus.post64(base + regs.SMMU_CMDQ_BASE, self._cmdq | regs.QUEUE_RA | CMDQ_LOG2)
        bus.post32(base + regs.SMMU_CMDQ_PROD, 0)
        bus.post32(base + regs.SMMU_CMDQ_CONS, 0)
        await self._set_cr0(regs.CR0_CMDQEN)
        await self.run([cmd_cfgi_all(), cmd_tlbi_all()])
        self._eventq = host.memory.alloc(EVENT_SIZE << EVENTQ_LOG2, 4096, "smmu")
        host.printk(f"{self.name}: allocated {1 << EVENTQ_LOG2} entries for evtq")
        bus.post64(base + regs.SMMU_EVENTQ_BASE, self._eventq | regs.QUEUE_RA | EVENTQ_LOG2)
        bus.post32(base + regs.SMMU_EVENTQ_PROD, 0)
        bus.post32(base + regs.SMMU_EVENTQ_CONS, 0)
        await self._set_cr0(regs.CR0_CMDQEN | regs.CR0_EVENTQEN)
        await self._enable_irqs()
        await self._set_cr0(regs.CR0_CMDQEN | regs.CR0_EVENTQEN | regs.CR0_SMMUEN)

    def _make_stream_table(self, two_level: bool) -> None:
        bus, base, log2 = self.host.bus, self.base, self.log2_streams
        self._two_level = two_level and log2 > STRTAB_SPLIT
        size = L1_DESC_SIZE << log2 - STRTAB_SPLIT if self._two_level else STE_SIZE << log2
        self._strtab = self.host.memory.alloc(size, size, "smmu")
        bus.post64(base + regs.SMMU_STRTAB_BASE, self._strtab | regs.QUEUE_RA)
        form = STRTAB_2LEVEL | STRTAB_SPLIT << 6 if self._two_level else 0
        bus.post32(base + regs.SMMU_STRTAB_BASE_CFG, form | log2)

    def ste_address(self, sid: int) -> int:
        """Physical address of a stream's table entry; makes its level-2 table if there is none yet."""
        if not self._two_level:
            return self._strtab + sid * STE_SIZE
        index, inside = sid >> STRTAB_SPLIT, sid & (1 << STRTAB_SPLIT) - 1
        if index not in self._level2:
            size = STE_SIZE << STRTAB_SPLIT
            table = self._level2[index] = self.host.memory.alloc(size, size, "smmu")
            self.host.bus.post64(self._strtab + index * L1_DESC_SIZE, table | STRTAB_SPLIT + 1)
        return self._level2[index] + inside * STE_SIZE

    async def _enable_irqs(self) -> None:
        host, base = self.host, self.base
        wanted = regs.IRQ_EVENTQ | regs.IRQ_GERROR
        for spi, handler in ((SPI_EVENTQ, self._event_irq), (SPI_GERROR, self._gerror_irq)):
            host.request_irq(spi, handler, counter="smmu_irqs")
            await host.gic.enable_spi(spi, edge=True)
        host.bus.post32(base + regs.SMMU_IRQ_CTRL, wanted)
        what = "SMMU_IRQ_CTRLACK as IRQ_CTRL"
        await poll(host.node, host.bus, base + regs.SMMU_IRQ_CTRLACK, 4, lambda ack: ack & wanted == wanted, what)

    async def _set_cr0(self, value: int) -> None:
        base = self.base
        self.host.bus.post32(base + regs.SMMU_CR0, value)
        what = f"SMMU_CR0ACK {value:#x}"
        await poll(self.host.node, self.host.bus, base + regs.SMMU_CR0ACK, 4, lambda ack: ack & 0x1F == value, what)

    async def disable(self) -> None:
        """Refuse every stream (GBPA is not used: nothing is attached) and stop the queues."""
        self.host.bus.post32(self.base + regs.SMMU_IRQ_CTRL, 0)
        await self._set_cr0(0)

    # -- command queue -------------------------------------------------------------------------------------------------

    async def run(self, commands: Sequence[bytes]) -> None:
        """Queue commands and a CMD_SYNC, and wait until CMDQ_CONS has passed them.

        Raises:
            ModelError: more commands than the queue holds, or the SMMU reports a command error.
        """
        data = [*commands, cmd_sync()]
        slots = 1 << CMDQ_LOG2
        if len(data) > slots:
            raise ModelError(f"an SMMU operation must have fewer than {slots} commands, not {len(commands)}")
        bus = self.host.bus
        async with self._lock:
            slot = self._prod & (slots - 1)
            head = data[: slots - slot]
            bus.post_block(self._cmdq + slot * CMD_SIZE, b"".join(head))
            if len(head) < len(data):
                bus.post_block(self._cmdq, b"".join(data[len(head) :]))
            await bus.dsb()
            prod = self._prod = (self._prod + len(data)) & (2 * slots - 1)
            bus.post32(self.base + regs.SMMU_CMDQ_PROD, prod)
            what = f"SMMU_CMDQ_CONS at {prod:#x}"

            def done(cons: int) -> bool:
                return bool(field(cons, 30, 24)) or cons & (2 * slots - 1) == prod

            cons = await poll(self.host.node, bus, self.base + regs.SMMU_CMDQ_CONS, 4, done, what, first=ns(200))
        error = field(cons, 30, 24)
        if error:
            raise ModelError(
                f"{self.name}: CMDQ error (cons {cons:#010x}): {CMDQ_ERRORS.get(error, str(error))}; "
                f"the command is at {self._cmdq + (cons & (slots - 1)) * CMD_SIZE:#x}"
            )

    # -- domains -------------------------------------------------------------------------------------------------------

    def domain(self) -> Domain:
        """A new, empty domain of the stage that this host uses."""
        number = next(n for n in range(1, 1 << 16) if n not in self._numbers)
        self._numbers.add(number)
        make = Stage2 if self.stage == 2 else Stage1
        return Domain(number, make(self.host.bus, self.host.memory, f"iommu domain {number}"))

    async def attach(self, domain: Domain, sid: int) -> None:
        """Translate a stream by the domain: tables first, for stage 1 the context next, then the STE (its Valid word last), then
        the invalidations.

        Raises:
            ModelError: the StreamID is beyond the stream table.
        """
        if sid >> self.log2_streams:
            raise ModelError(f"StreamID must have {self.log2_streams} bits, not {sid:#x}")
        bus = self.host.bus
        domain.tables.sync()
        if isinstance(domain.tables, Stage1):
            contexts = self._contexts[sid] = self.host.memory.alloc(CD_SIZE, CD_SIZE, "iommu context")
            context = cd_lower(domain.number, domain.tables.root, self.oas)
            bus.post_block(contexts + 8, _words(*context[1:]))
            bus.post64(contexts, context[0])
            await self.run([cmd_cfgi_cd(sid)])
            words = ste_stage1(contexts)
        else:
            words = ste_stage2(domain.vmid, domain.tables.root, self.oas)
        ste = self.ste_address(sid)
        bus.post_block(ste + 8, _words(*words[1:]))
        bus.post64(ste, words[0])
        domain.streams.append(sid)
        await self.run([cmd_cfgi_ste(sid), domain.flush()])

    async def detach(self, domain: Domain, sid: int) -> None:
        """Refuse a stream again: its STE is made invalid."""
        self.host.bus.post64(self.ste_address(sid), 0)
        domain.streams.remove(sid)
        contexts = self._contexts.pop(sid, None)
        gone = [cmd_cfgi_ste(sid)] + ([cmd_cfgi_cd(sid)] if contexts is not None else [])
        await self.run([*gone, domain.flush()])
        if contexts is not None:
            self.host.memory.free(contexts)

    async def flush(self, domain: Domain) -> None:
        """Make later `map` calls on an attached domain's tables visible."""
        domain.tables.sync()
        await self.run([domain.flush()])

    def free(self, domain: Domain) -> None:
        """Free a domain that no stream uses.

        Raises:
            ModelError: a stream still uses it.
        """
        if domain.streams:
            raise ModelError(f"a domain must have no streams to be freed; it has {', '.join(map(hex, domain.streams))}")
        domain.tables.free()
        self._numbers.discard(domain.number)

    # -- interrupts ----------------------------------------------------------------------------------------------------

    async def _event_irq(self, _cpu: HostCpu, _intid: int) -> None:
        await self.drain_events()

    async def drain_events(self) -> None:
        """Read the event queue until it is empty; print each record as Linux does, and keep it in `events`."""
        bus, base = self.host.bus, self.base
        size = 1 << EVENTQ_LOG2
        wrap = 2 * size - 1
        while True:
            prod = await bus.read32(base + regs.SMMU_EVENTQ_PROD)
            count = ((prod & wrap) - self._event_cons) & wrap
            if not count:
                return
            for n in range(count):
                slot = (self._event_cons + n) & (size - 1)
                data = await bus.read_block(self._eventq + slot * EVENT_SIZE, EVENT_SIZE)
                self._report(data)
            self._event_cons = (self._event_cons + count) & wrap
            overflow = prod & 1 << 31
            if overflow != self._overflow:
                self._overflow = overflow
                self.host.printk(f"{self.name}: EVTQ overflow detected -- events lost")
            bus.post32(base + regs.SMMU_EVENTQ_CONS, self._event_cons | overflow)
            await bus.dsb()

    def _report(self, data: bytes) -> None:
        words = [int.from_bytes(data[n : n + 8], "little") for n in range(0, EVENT_SIZE, 8)]
        self.events.append((words[0], words[1], words[2], words[3]))
        self.host.node.count["smmu_events"] += 1
        self.host.printk(f"{self.name}: event {words[0] & 0xFF:#04x} received:")
        for word in words:
            self.host.printk(f"{self.name}: \t{word:#018x}")

    async def _gerror_irq(self, _cpu: HostCpu, _intid: int) -> None:
        bus, base = self.host.bus, self.base
        gerror, gerrorn = await read_all(bus, [(base + regs.SMMU_GERROR, 4), (base + regs.SMMU_GERRORN, 4)])
        active = gerror ^ gerrorn
        if not active:
            return
        self.host.node.count["smmu_gerrors"] += 1
        self.host.printk(f"{self.name}: unexpected global error reported ({active:#010x}), this could be serious")
        await bus.write32(base + regs.SMMU_GERRORN, gerror)

    def __repr__(self) -> str:
        return f"SMMU@{self.base:#x}"
