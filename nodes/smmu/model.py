"""SMMUv3 in front of endpoints: Non-secure programming interface, stages 1 and 2 (IHI 0070).

A transaction's StreamID is the attribute `stream_id` of the link it came by, its SubstreamID the PASID of its attributes.
Writes of one stream reach memory in the order in which they came, reads do not pass writes, and an MSI waits until all earlier
writes of its stream are complete (PCI Express Base Specification 2.4.1, producer and consumer).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from cosim.api import (
    NONSECURE,
    OKAY,
    SLVERR,
    Bank,
    BusError,
    Channel,
    Future,
    MmioInitiator,
    MmioTarget,
    ModelError,
    Node,
    Peer,
    Reg,
    Request,
    Wire,
    ns,
)
from nodes.arch.msi import MSI
from nodes.arch.pcie import ATTR_INSTRUCTION, ATTR_PASID, ATTR_PRIVILEGED, pasid_of
from nodes.smmu.commands import CommandQueue
from nodes.smmu.config import Features
from nodes.smmu.events import Event, EventQueue, Fault, record
from nodes.smmu.regs import SMMU
from nodes.smmu.translate import Access, Translator
from nodes.smmu.walk import GRANULES, PS_BITS

PAGE = 4096
QUEUE_LOG2 = 19
MSI_SIZE = 4
PULSE = ns(10)
"""Length of an interrupt pulse: the wires are edges (IHI 0070, 3.18)."""
WRITABLE_CR0 = 0b1101
WRITABLE_IRQ = 0b101
IIDR_MMU700 = 0x4870_043B
IDR0 = 1 << 0 | 2 << 2 | 1 << 4 | 1 << 12 | 1 << 13 | 1 << 18 | 2 << 21 | 1 << 24 | 1 << 26 | 1 << 27
"""S2P, TTF AArch64, COHACC, ASID16, MSI, VMID16, TTENDIAN little, STALL_MODEL none, TERM_MODEL abort, ST_LEVEL two."""
IDR0_STAGE1 = 1 << 1 | 1 << 19
"""S1P, CD2L."""
IDR1_OVERRIDE = 1 << 26
IDR3_HAD = 1 << 2
MAX_SSID_BITS = 20
ATTR_BUS = ATTR_PASID - 1
"""What of the attributes goes on to memory."""
RECINVSID = "RECINVSID"


class Stream:
    """Order of one stream's transactions: `issued` is that of the last write, `open` are writes that are not complete."""

    __slots__ = ("issued", "open")

    def __init__(self) -> None:
        self.issued: Future[None] | None = None
        self.open: dict[Future[None], None] = {}


def _follow(issued: Future[None], after: Future[None] | None) -> None:
    """A write that was not issued passes its turn on, but not before it has got it."""
    if after is None or after.done:
        issued.set(None)
    else:
        after.when_done(lambda: issued.set(None))


def _access(request: Request) -> Access:
    """What a transaction wants; a write is never an instruction fetch."""
    write = request.data is not None
    instruction = bool(request.attr & ATTR_INSTRUCTION) and not write
    return Access(write, bool(request.attr & ATTR_PRIVILEGED), instruction)


class Smmu(Node):
    """Parameters: `sid_bits`, `oas` (bits), `stage1` (whether it has stage 1), `ssid_bits` (SubstreamIDs; 0 for none),
    `device_id_offset` (DeviceID - StreamID), `own_device_id`, `irq_event`, `irq_sync`, `irq_gerror` (INTIDs of its wires),
    `gbpa_abort` (GBPA.ABORT at reset), `update_latency` (ps until CR0ACK, IRQ_CTRLACK and GBPA.Update follow).

    Counters: `translations` (transactions let through by translation), `bypassed`, `faults`, `msis`, `own_msis`, `commands`,
    `command_errors`, `global_errors`, `events`, `events_lost` (queue full or aborted), `events_dropped` (queue disabled),
    `tlb_misses`, `ignored_writes`, `unmodelled_accesses`, `reserved_accesses`, `bus_errors`.
    """

    kind = "smmu"
    parameters = {
        "sid_bits": range(1, 33),
        "ssid_bits": range(MAX_SSID_BITS + 1),
        "stage1": bool,
        "oas": tuple(PS_BITS[:6]),
        "device_id_offset": int,
        "own_device_id": int,
        "update_latency": int,
        "irq_event": int,
        "irq_sync": int,
        "irq_gerror": int,
        "gbpa_abort": bool,
    }
    counters = ("translations", "faults", "msis")
    regs = MmioTarget("pages 0 and 1")
    upstream = MmioTarget("transactions of endpoints; one peer per function, link attribute stream_id")
    bus = MmioInitiator("memory: tables, queues and translated transactions")
    msi = Channel(MSI, "to ITSs; link attribute translater is the physical address of GITS_TRANSLATER")
    irq = Wire("event and global error interrupts, to the distributor's SPIs")

    def setup(self) -> None:
        params = self.params
        self.sid_bits: int = params.get("sid_bits", 20)
        self.oas: int = params.get("oas", 48)
        self.device_id_offset: int = params.get("device_id_offset", 0)
        self.own_device_id: int = params.get("own_device_id", 0x8_0000)
        self.update_latency: int = params.get("update_latency", 0)
        self.intids = {
            "event": params.get("irq_event", 260),
            "sync": params.get("irq_sync", 261),
            "gerror": params.get("irq_gerror", 262),
        }
        stage1 = bool(params.get("stage1", True))
        ssid_bits: int = params.get("ssid_bits", MAX_SSID_BITS) if stage1 else 0
        if not 0 <= ssid_bits <= MAX_SSID_BITS:
            raise ModelError(f"ssid_bits must be in 0..{MAX_SSID_BITS}, not {ssid_bits!r}")
        self.features = Features(stage1, self.oas, ssid_bits)
        if self.oas not in PS_BITS[:6] or not 1 <= self.sid_bits <= 32:
            raise ModelError(
                f"oas must be one of {PS_BITS[:6]} and sid_bits in 1..32, not {self.oas!r} and {self.sid_bits!r}"
            )
        self.bank = Bank(SMMU, on_reserved=self._reserved, on_unmodelled=self._unmodelled)
        self.translator = Translator(self.bank, self.bus, self.sid_bits, self.features, self._count)
        self.events = EventQueue(
            self.bank,
            self.bus,
            lambda: self.enabled("EVENTQEN"),
            self._global_error,
            self._event_interrupt,
            self._count,
            QUEUE_LOG2,
        )
        self.commands = CommandQueue(
            self.bank,
            self.bus,
            self.translator,
            running=self._commands_run,
            error=self._command_error,
            quiet=self._quiet,
            sync_irq=self._sync_interrupt,
            count=self._count,
            max_log2=QUEUE_LOG2,
        )
        self._streams: dict[int, Stream] = {}
        self._open: dict[Future[None], None] = {}
        self._configure()
        self._hook()
        self.regs.serve_bank(self.bank)
        self.upstream.serve(self._access, self._access)

    def start(self) -> None:
        self._translaters: dict[int, Peer] = {}
        for peer in self.msi.peers:
            address = peer.attributes.get("translater")
            if not isinstance(address, int):
                raise ModelError(f"the link to {peer!r} must have the attribute translater, a physical address")
            self._translaters[address] = peer
        self.spawn(self.commands.run(), "commands", daemon=True)
        self.spawn(self.events.run(), "events", daemon=True)

    # -- registers -----------------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        bank = self.bank
        stage1 = self.features.stage1
        bank.configure("SMMU_IDR0", IDR0 | (IDR0_STAGE1 if stage1 else 0))
        sizes = self.sid_bits | self.features.ssid_bits << 6 | QUEUE_LOG2 << 16 | QUEUE_LOG2 << 21
        bank.configure("SMMU_IDR1", sizes | IDR1_OVERRIDE)
        bank.configure("SMMU_IDR3", IDR3_HAD if stage1 else 0)
        bank.configure("SMMU_IDR5", PS_BITS.index(self.oas) | (1 << len(GRANULES)) - 1 << 4)
        bank.configure("SMMU_IIDR", IIDR_MMU700)
        bank.configure("SMMU_AIDR", 1)
        bank.configure("SMMU_GBPA", int(bool(self.params.get("gbpa_abort", False))) << 20)
        for name in ("BASE", "PROD", "CONS", "IRQ_CFG0", "IRQ_CFG1", "IRQ_CFG2"):
            bank.absent(f"SMMU_PRIQ_{name}")

    def _hook(self) -> None:
        bank = self.bank
        bank.on_write("SMMU_CR0", self._write_cr0)
        bank.on_write("SMMU_IRQ_CTRL", self._write_irq_ctrl)
        bank.on_write("SMMU_GBPA", self._write_gbpa)
        bank.on_write("SMMU_GERRORN", lambda index, old, new, mask: self.commands.wake())
        bank.on_write("SMMU_CMDQ_PROD", lambda index, old, new, mask: self.commands.wake())
        locked = {
            "SMMUEN": ("SMMU_STRTAB_BASE", "SMMU_STRTAB_BASE_CFG", "SMMU_CR2"),
            "CMDQEN": ("SMMU_CMDQ_BASE", "SMMU_CMDQ_CONS"),
            "EVENTQEN": ("SMMU_EVENTQ_BASE", "SMMU_EVENTQ_PROD"),
        }
        for enable, names in locked.items():
            for name in names:
                bank.on_write(name, self._lock(name, "SMMU_CR0", enable))
        for enable, prefix in (("GERROR_IRQEN", "SMMU_GERROR"), ("EVENTQ_IRQEN", "SMMU_EVENTQ")):
            for n in range(3):
                name = f"{prefix}_IRQ_CFG{n}"
                bank.on_write(name, self._lock(name, "SMMU_IRQ_CTRL", enable))

    def _lock(self, name: str, control: str, enable: str) -> Callable[[int, int, int, int], None]:
        """A register that may not be written while something uses it: the write is ignored."""

        def written(index: int, old: int, new: int, mask: int) -> None:
            if self.bank.field(control, enable) or self.bank.field(f"{control}ACK", enable):
                self.bank[name] = old
                self._report("ignored_writes", f"{control}.{enable} must be 0 for this write", register=name)

        return written

    def _acknowledge(self, name: str, value: int) -> None:
        self.bank[name] = value
        self.commands.wake()

    def _later(self, function: Callable[..., None], *args: Any) -> None:
        if self.update_latency:
            self.after(self.update_latency, function, *args)
        else:
            function(*args)

    def _write_cr0(self, index: int, old: int, new: int, mask: int) -> None:
        self.bank["SMMU_CR0"] = new & WRITABLE_CR0
        self._later(self._acknowledge, "SMMU_CR0ACK", new & WRITABLE_CR0)

    def _write_irq_ctrl(self, index: int, old: int, new: int, mask: int) -> None:
        self.bank["SMMU_IRQ_CTRL"] = new & WRITABLE_IRQ
        self._later(self._acknowledge, "SMMU_IRQ_CTRLACK", new & WRITABLE_IRQ)

    def _write_gbpa(self, index: int, old: int, new: int, mask: int) -> None:
        update = 1 << 31
        if new & update and not old & update:
            self.bank["SMMU_GBPA"] = old | update
            self._later(self._acknowledge, "SMMU_GBPA", new & ~update)
        else:
            self.bank["SMMU_GBPA"] = old
            self._report(
                "ignored_writes", "SMMU_GBPA must be written with Update = 1 and none under way", register="GBPA"
            )

    def enabled(self, field: str) -> bool:
        """Whether CR0's field is in effect."""
        return bool(self.bank.field("SMMU_CR0ACK", field))

    def _commands_run(self) -> bool:
        active = (self.bank["SMMU_GERROR"] ^ self.bank["SMMU_GERRORN"]) & 1
        return self.enabled("CMDQEN") and not active

    # -- transactions --------------------------------------------------------------------------------------------------

    def _access(self, request: Request) -> Any:
        """Note the order of arrival at once; the rest takes simulated time."""
        sid = request.peer.attributes.get("stream_id")
        if not isinstance(sid, int):
            raise ModelError(f"the link from {request.peer!r} must have the attribute stream_id, not {sid!r}")
        if request.size > PAGE - request.addr % PAGE:
            why = f"an access must not cross a 4 KiB page: {request.size} bytes at {request.addr:#x}"
            self._terminate(request, sid, Fault(Event.F_UUT, why))
            raise BusError(SLVERR, why)
        stream = self._streams.setdefault(sid, Stream())
        after = stream.issued
        done: Future[None] = self.future("completion of a transaction")
        self._open[done] = None
        if request.data is None:
            return self._finish(self._read(request, sid, after), stream, done, None, None)
        earlier = list(stream.open)
        stream.open[done] = None
        stream.issued = issued = self.future("issue of an earlier write")
        sent = self.now - request.peer.latency
        return self._finish(self._write(request, sid, after, issued, earlier, sent), stream, done, after, issued)

    async def _finish(
        self,
        body: Coroutine[Any, Any, Any],
        stream: Stream,
        done: Future[None],
        after: Future[None] | None,
        issued: Future[None] | None,
    ) -> Any:
        try:
            return await body
        finally:
            stream.open.pop(done, None)
            self._open.pop(done, None)
            if issued is not None and not issued.done:
                _follow(issued, after)
            done.set(None)

    async def _read(self, request: Request, sid: int, after: Future[None] | None) -> Any:
        address = await self._translate(request, sid)
        if after is not None:
            await after
        status, data = await self.bus.issue(address, request.size, None, request.attr & ATTR_BUS)
        if status != OKAY:
            raise BusError(status, f"read of {address:#x} (IOVA {request.addr:#x}) was refused")
        return data

    async def _write(
        self,
        request: Request,
        sid: int,
        after: Future[None] | None,
        issued: Future[None],
        earlier: list[Future[None]],
        sent: int,
    ) -> None:
        address = await self._translate(request, sid)
        assert request.data is not None
        its = self._translaters.get(address)
        if its is not None:
            for write in earlier:
                await write
            self._send_msi(its, request, sid, sent)
            return
        if after is not None:
            await after
        completion = self.bus.issue(address, request.size, request.data, request.attr & ATTR_BUS)
        issued.set(None)
        status, _ = await completion
        if status != OKAY:
            raise BusError(status, f"write to {address:#x} (IOVA {request.addr:#x}) was refused")

    def _send_msi(self, its: Peer, request: Request, sid: int, sent: int) -> None:
        if request.size != MSI_SIZE or not isinstance(request.data, int):
            raise BusError(SLVERR, f"GITS_TRANSLATER takes writes of {MSI_SIZE} bytes, not {request.size}")
        device_id = sid + self.device_id_offset
        self.count["msis"] += 1
        self.mark("msi", device_id, request.data, sent)
        self.msi.send(its, MSI.Msi, device_id, request.data)

    async def _translate(self, request: Request, sid: int) -> int:
        """Physical address of a transaction; BusError when it is terminated."""
        ssid = pasid_of(request.attr)
        try:
            if not self.enabled("SMMUEN"):
                if self.bank.field("SMMU_GBPA", "ABORT"):
                    raise Fault(None, "the SMMU is disabled and GBPA.ABORT is 1")
                self.count["bypassed"] += 1
                return request.addr
            address, translated = await self.translator.translate(sid, ssid, request.addr, _access(request))
        except Fault as fault:
            self._terminate(request, sid, fault)
            raise BusError(SLVERR, str(fault)) from None
        self.count["translations" if translated else "bypassed"] += 1
        return address

    def _terminate(self, request: Request, sid: int, fault: Fault) -> None:
        event = fault.event
        ssid = pasid_of(request.attr)
        self._report(
            "faults", "transaction terminated", stream_id=f"{sid:#x}", address=f"{request.addr:#x}",
            write=request.data is not None, record="none" if event is None else event.name, why=str(fault),
            **({} if ssid is None else {"substream_id": f"{ssid:#x}"}),
        )  # fmt: skip
        if event == Event.C_BAD_STREAMID and not self.bank.field("SMMU_CR2", RECINVSID):
            return
        if fault.recorded:
            self.events.put(record(fault, sid, request.addr, fault.access or _access(request)))

    async def _quiet(self) -> None:
        """Until every transaction that is under way now is complete."""
        for done in list(self._open):
            await done

    # -- errors and interrupts -----------------------------------------------------------------------------------------

    def _command_error(self, code: int, why: str) -> None:
        self._report("command_errors", "SMMU command error", code=code, why=why)
        self.bank.set_field("SMMU_CMDQ_CONS", "ERR", code)
        self._global_error("CMDQ_ERR")

    def _global_error(self, field: str) -> None:
        """Make an error active, which it is where GERROR differs from GERRORN; no effect on one that is active."""
        bank = self.bank
        self.count["global_errors"] += 1
        if bank.field("SMMU_GERROR", field) != bank.field("SMMU_GERRORN", field):
            return
        bank.set_field("SMMU_GERROR", field, bank.field("SMMU_GERROR", field) ^ 1)
        self.log("global error", error=field)
        if bank.field("SMMU_IRQ_CTRLACK", "GERROR_IRQEN"):
            self._interrupt("gerror", *self._irq_config("SMMU_GERROR"), "MSI_GERROR_ABT_ERR")

    def _event_interrupt(self) -> None:
        if self.bank.field("SMMU_IRQ_CTRLACK", "EVENTQ_IRQEN"):
            self._interrupt("event", *self._irq_config("SMMU_EVENTQ"), "MSI_EVENTQ_ABT_ERR")

    def _sync_interrupt(self, address: int, data: int) -> None:
        self._interrupt("sync", address, data, "MSI_CMDQ_ABT_ERR")

    def _irq_config(self, prefix: str) -> tuple[int, int]:
        return self.bank[f"{prefix}_IRQ_CFG0"], self.bank[f"{prefix}_IRQ_CFG1"]

    def _interrupt(self, wire: str, address: int, data: int, error: str) -> None:
        """By MSI if software gave an address, else by a pulse on the wire."""
        if not address:
            self._pulse(self.intids[wire])
            return
        self.count["own_msis"] += 1
        its = self._translaters.get(address)
        if its is not None:
            self.msi.send(its, MSI.Msi, self.own_device_id, data)
        else:
            self.spawn(self._write_msi(address, data, error), "own MSI")

    async def _write_msi(self, address: int, data: int, error: str) -> None:
        status, _ = await self.bus.issue(address, MSI_SIZE, data, NONSECURE)
        if status != OKAY:
            self._global_error(error)

    def _pulse(self, line: int) -> None:
        for peer in self.irq.peers:
            self.irq.drive(line, 1, peer)
            self.after(PULSE, self.irq.drive, line, 0, peer)
        if not self.irq.peers:
            self._report("unconnected_interrupts", "the interrupt wire must be linked to the distributor", intid=line)

    # -- counters and log ----------------------------------------------------------------------------------------------

    def _count(self, counter: str) -> None:
        self.count[counter] += 1

    def _report(self, counter: str, text: str, **fields: Any) -> None:
        self.count[counter] += 1
        self.log(text, **fields)

    def _reserved(self, offset: int, op: str) -> None:
        self._report("reserved_accesses", "no register there", offset=f"{offset:#x}", access=op)

    def _unmodelled(self, reg: Reg, index: int, op: str) -> None:
        self._report("unmodelled_accesses", "register is not modelled", register=reg.name, access=op)
