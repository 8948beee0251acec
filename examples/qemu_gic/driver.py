"""The other nodes of qemu_gic.yaml: software that drives a GIC and an ITS, and a device that it tells to interrupt.

The software has no interrupt handler: it waits for a CPU's line, acknowledges, and compares what it got. What it got comes from
the GIC, whoever plays it; nothing here knows of QEMU but the addresses.
"""

from __future__ import annotations

from typing import NamedTuple

from cosim.api import BusFault, MmioInitiator, MmioTarget, Node, Peer, Request, Wire, ns, us
from nodes.arch.its_commands import COMMAND_SIZE, encode
from nodes.arch.lpi import config_address, config_byte, pending_position
from nodes.software import gicv3, its
from nodes.software.gicv3 import CTLR_ARE, CTLR_G1A, GICD_CTLR, GICD_IGROUPR, GICD_TYPER, SGI_FRAME

GICD, GITS, GICR = 0x0800_0000, 0x0808_0000, 0x080A_0000
TRANSLATER = GITS + 0x1_0040
CPU_FRAMES, DEVICES, DEVICE_SIZE = 0x2000_0000, 0x3000_0000, 0x1000
PROPERTY, PENDING, QUEUE, QUEUE_SIZE, TABLES, ITT, VIRTUAL_PENDING, VIRTUAL_PROPERTY = (
    0x4010_0000, 0x4020_0000, 0x4030_0000, 0x1000, 0x4040_0000, 0x4050_0000, 0x4060_0000, 0x4061_0000,
)  # fmt: skip
TABLE_SIZE = 0x1_0000
GICD_ISENABLER, GICD_IPRIORITYR, GICD_IROUTER, GICR_WAKER = 0x0100, 0x0400, 0x6000, 0x0014
VLPI_FRAME, VENG1 = 0x2_0000, 1 << 1
CHILDREN_ASLEEP = 1 << 2
TYPER_LPIS = 1 << 17

# System registers: op0, op1, CRn, CRm, op2 in 16 bits.
ICC_PMR, ICC_IAR1, ICC_EOIR1, ICC_IGRPEN1, ICC_SGI1R = 0xC230, 0xC660, 0xC661, 0xC667, 0xC65D
ICH_HCR, ICH_VMCR = 0xE658, 0xE65F

SPI_LINE, SGI, FIRST_LPI, EVENTS = 8, 3, 8192, 4
SPI = 32 + SPI_LINE
DOORBELL, VPE, VLPI = FIRST_LPI + EVENTS, 7, 8200
FIRE, LEVEL = 0x00, 0x08


class Device(Node):
    """Sends an MSI for each write of an EventID to register 0x00; a write to 0x08 drives its line."""

    kind = "msi_device"
    parameters = {"line": int}
    regs = MmioTarget()
    dma = MmioInitiator()
    spi = Wire()

    def setup(self) -> None:
        """Serve the two registers."""
        self.regs.serve(write=self._write)

    def _write(self, access: Request) -> None:
        if access.addr == FIRE:
            self.dma.post32(TRANSLATER, int.from_bytes(access.bytes, "little"))
            self.count["msis"] += 1
        elif access.addr == LEVEL:
            self.spi.drive(self.params["line"], int.from_bytes(access.bytes, "little"))


class Failure(Exception):
    """The GIC did what it should not; the text says what was expected."""


class Taken(NamedTuple):
    """An acknowledged interrupt: its INTID, and when (ps) the line rose."""

    intid: int
    rose: int


class Driver(Node):
    """Programs distributor, redistributors and ITS, and takes interrupts on every CPU."""

    kind = "gic_driver"
    parameters = {"cpus": int, "gicr_stride": int, "t_interrupt": int, "rounds": int, "virtual": bool}
    bus = MmioInitiator()
    irq = Wire("line 4 * CPU: IRQ; 2 more: virtual IRQ")

    def setup(self) -> None:
        """Watch the lines."""
        self.levels: dict[int, int] = {}
        self.rose: dict[int, int] = {}
        self.write = 0
        self.irq.watch(self._line)

    def _line(self, _peer: Peer, line: int, level: int) -> None:
        self.levels[line] = level
        if level:
            self.rose[line] = self.now

    async def start(self) -> None:
        """The tests, one after the other; each writes what it saw."""
        try:
            await self._distributor()
            await self._redistributors()
            await self._tables()
            await self._messages()
            await self._disabled()
            await self._order()
            await self._move()
            await self._unmapped()
            if self.params["virtual"]:
                await self._doorbell()
                await self._resident()
            await self._storm()
        except (Failure, BusFault) as failure:
            self._say(f"FAIL: {failure}")
            self.report_test("gic", "failed", str(failure))
        else:
            self.report_test("gic", "passed", f"{self.count['interrupts']} interrupts")
        self.power_off()

    # -- tools ---------------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.console("driver", f"{text}\n")

    def _expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            raise Failure(f"{what} must be {wanted}, not {got}")

    def _register(self, cpu: int, register: int, guest: bool) -> int:
        return CPU_FRAMES + (cpu << 20) + (guest << 19) + (register << 3)

    async def _mrs(self, cpu: int, register: int, *, guest: bool = False) -> int:
        return await self.bus.read64(self._register(cpu, register, guest))

    async def _msr(self, cpu: int, register: int, value: int, *, guest: bool = False) -> None:
        await self.bus.write64(self._register(cpu, register, guest), value)

    def _rd(self, cpu: int) -> int:
        return GICR + cpu * int(self.params["gicr_stride"])

    async def _take(self, cpu: int, *, guest: bool = False, limit: int = us(5)) -> Taken | None:
        """Wait for a CPU's line; acknowledge and end the interrupt. None: the line stayed low for `limit`."""
        line, end = 4 * cpu + 2 * guest, self.now + limit
        while not self.levels.get(line):
            if self.now >= end:
                return None
            await self.sleep(ns(50))
        rose = self.rose[line]
        intid = await self._mrs(cpu, ICC_IAR1, guest=guest)
        await self._msr(cpu, ICC_EOIR1, intid, guest=guest)
        await self.sleep(ns(500))  # the line may fall
        self.count["interrupts"] += 1
        return Taken(intid, rose)

    async def _want(self, what: str, cpu: int, intid: int | None, *, guest: bool = False) -> Taken | None:
        """The next interrupt of a CPU (of its guest) must be this one, or none."""
        taken = await self._take(cpu, guest=guest)
        self._expect(what, taken and taken.intid, intid)
        self._say(f"{what}: {'nothing' if taken is None else f'INTID {taken.intid} at CPU {cpu}'}")
        return taken

    def _fire(self, event: int, device: int = 0) -> None:
        self.bus.post32(DEVICES + device * DEVICE_SIZE + FIRE, event)

    async def _commands(self, *commands: bytes) -> None:
        """Give commands to the ITS and see that it has read them."""
        for command in commands:
            await self.bus.write_block(QUEUE + self.write, command)
            self.write = (self.write + COMMAND_SIZE) % QUEUE_SIZE
        await self.bus.write64(GITS + its.GITS_CWRITER, self.write)
        self._expect("GITS_CREADR", await self.bus.read64(GITS + its.GITS_CREADR), self.write)

    async def _configure(self, event: int, priority: int, enabled: bool) -> None:
        await self.bus.write(config_address(PROPERTY, FIRST_LPI + event), config_byte(priority, enabled), 1)
        await self._commands(encode("INV", device_id=8, event_id=event), encode("SYNC", rdbase=0))

    # -- setting up ----------------------------------------------------------------------------------------------------

    async def _distributor(self) -> None:
        bus = self.bus
        await bus.write32(GICD + GICD_CTLR, CTLR_ARE | CTLR_G1A)
        typer = await bus.read32(GICD + GICD_TYPER)
        self._expect("GICD_TYPER.LPIS", bool(typer & TYPER_LPIS), True)
        word, bit = SPI // 32 * 4, 1 << SPI % 32
        await bus.write32(GICD + GICD_IGROUPR + word, bit)
        await bus.write(GICD + GICD_IPRIORITYR + SPI, gicv3.PRIORITY, 1)
        await bus.write64(GICD + GICD_IROUTER + 8 * SPI, 0)
        await bus.write32(GICD + GICD_ISENABLER + word, bit)
        for cpu in range(self.params["cpus"]):
            await self._msr(cpu, ICC_PMR, gicv3.PMR_ALL)
            await self._msr(cpu, ICC_IGRPEN1, 1)
        await bus.write32(DEVICES + LEVEL, 1)
        taken = await self._take(0)
        self._expect("SPI", taken and taken.intid, SPI)
        await bus.write32(DEVICES + LEVEL, 0)
        self._say(f"distributor: SPI, INTID {SPI} at CPU 0")
        await self._want("its line is low again", 0, None)

    async def _redistributors(self) -> None:
        bus = self.bus
        for cpu in range(self.params["cpus"]):
            rd = self._rd(cpu)
            await bus.write32(rd + GICR_WAKER, 0)
            self._expect("ChildrenAsleep", await bus.read32(rd + GICR_WAKER) & CHILDREN_ASLEEP, 0)
            self._expect("processor number", await bus.read64(rd + gicv3.GICR_TYPER) >> 8 & 0xFFFF, cpu)
            sgi = rd + SGI_FRAME
            await bus.write32(sgi + gicv3.GICR_IGROUPR0, gicv3.ALL)
            await bus.write32(sgi + gicv3.GICR_IPRIORITYR, gicv3.PRIORITIES)
            await bus.write32(sgi + gicv3.GICR_ISENABLER0, gicv3.SGIS)
        await self._msr(0, ICC_SGI1R, SGI << 24 | 0b10)
        await self._want("redistributor: SGI of CPU 0", 1, SGI)

    async def _tables(self) -> None:
        bus = self.bus
        for cpu in range(self.params["cpus"]):
            rd = self._rd(cpu)
            await bus.write64(rd + gicv3.GICR_PROPBASER, PROPERTY | its.CACHED | its.ID_BITS - 1)
            await bus.write64(rd + gicv3.GICR_PENDBASER, PENDING + cpu * TABLE_SIZE | its.CACHED | gicv3.PENDBASER_PTZ)
            await bus.write32(rd + gicv3.GICR_CTLR, gicv3.RD_ENABLE_LPIS)
        for n in range(8):
            register = GITS + its.GITS_BASER + 8 * n
            if await bus.read64(register) & its.BASER_TYPES:
                table = TABLES + n * TABLE_SIZE
                await bus.write64(register, its.VALID | its.BASER_CACHED | its.BASER_PAGE_64K | table)
        await bus.write64(GITS + its.GITS_CBASER, its.VALID | its.BASER_CACHED | QUEUE | QUEUE_SIZE // 4096 - 1)
        await bus.write64(GITS + its.GITS_CWRITER, 0)
        await bus.write32(GITS + its.GITS_CTLR, its.CTLR_ENABLED)
        await self._commands(
            encode("MAPC", icid=0, rdbase=0, valid=1),
            encode("MAPC", icid=1, rdbase=1, valid=1),
            encode("MAPD", device_id=8, size=4, itt=ITT, valid=1),
            *(encode("MAPTI", device_id=8, event_id=e, pintid=FIRST_LPI + e, icid=0) for e in range(EVENTS)),
            encode("SYNC", rdbase=0),
        )

    # -- interrupts of the device --------------------------------------------------------------------------------------

    async def _messages(self) -> None:
        for event in range(EVENTS):
            await self._configure(event, gicv3.PRIORITY, True)
            fired = self.now
            self._fire(event)
            taken = await self._want(f"its: MSI with EventID {event}", 0, FIRST_LPI + event)
            assert taken is not None
            self._expect("time from the write to the line (ps)", taken.rose - fired, self.params["t_interrupt"])

    async def _disabled(self) -> None:
        await self._configure(0, gicv3.PRIORITY, False)
        self._fire(0)
        await self._want("a disabled LPI", 0, None)
        byte, mask = pending_position(FIRST_LPI)
        self._expect("pending bit in the GIC's RAM", await self.bus.read(PENDING + byte, 1) & mask, mask)
        await self._configure(0, gicv3.PRIORITY, True)
        await self._want("enabled, and INV", 0, FIRST_LPI)
        self._expect("pending bit when taken", await self.bus.read(PENDING + byte, 1) & mask, 0)

    async def _order(self) -> None:
        await self._msr(0, ICC_PMR, 0)
        for event in range(EVENTS):
            await self._configure(event, 0xC0 - 0x20 * event, True)
            self._fire(event)
        await self._want("with all priorities masked", 0, None)
        await self._msr(0, ICC_PMR, gicv3.PMR_ALL)
        for event in reversed(range(EVENTS)):
            await self._want(f"by priority {0xC0 - 0x20 * event:#x}", 0, FIRST_LPI + event)

    async def _move(self) -> None:
        await self._commands(encode("MOVI", device_id=8, event_id=1, icid=1), encode("SYNC", rdbase=1))
        self._fire(1)
        await self._want("moved by MOVI", 1, FIRST_LPI + 1)
        await self._want("and not at CPU 0", 0, None)

    async def _unmapped(self) -> None:
        self._fire(0, device=1)
        await self._want("the other device, which no MAPD names", 0, None)
        await self._commands(encode("DISCARD", device_id=8, event_id=2), encode("SYNC", rdbase=0))
        self._fire(2)
        await self._want("an event after DISCARD", 0, None)

    async def _doorbell(self) -> None:
        """GICv4.0: a vLPI for a vPE that is on no CPU stays pending in its table, and a physical LPI tells of it."""
        await self.bus.write(config_address(PROPERTY, DOORBELL), config_byte(gicv3.PRIORITY, True), 1)
        await self._commands(
            encode("INVALL", icid=0),
            encode("VMAPP", vpeid=VPE, rdbase=0, valid=1, vpt=VIRTUAL_PENDING, vpt_size=its.ID_BITS - 1),
            encode("VMAPTI", device_id=8, event_id=EVENTS, vpeid=VPE, vintid=VLPI, doorbell=DOORBELL),
            encode("VSYNC", vpeid=VPE),
        )
        self._fire(EVENTS)
        await self._want("doorbell of a vPE that is not resident", 0, DOORBELL)
        byte, mask = pending_position(VLPI)
        self._expect("vLPI pending in the vPE's table", await self.bus.read(VIRTUAL_PENDING + byte, 1) & mask, mask)

    async def _resident(self) -> None:
        """GICv4.0: the vPE is on CPU 0, whose guest takes the vLPI that is pending, then one that comes directly."""
        frame = self._rd(0) + VLPI_FRAME
        await self.bus.write(config_address(VIRTUAL_PROPERTY, VLPI), config_byte(gicv3.PRIORITY, True), 1)
        await self._msr(0, ICH_VMCR, gicv3.PMR_ALL << 24 | VENG1)
        await self._msr(0, ICH_HCR, 1)
        await self.bus.write64(frame + gicv3.GICR_PROPBASER, VIRTUAL_PROPERTY | its.CACHED | its.ID_BITS - 1)
        await self.bus.write64(frame + gicv3.GICR_PENDBASER, its.VALID | VIRTUAL_PENDING | its.CACHED)
        await self._want("resident: the vLPI that was pending", 0, VLPI, guest=True)
        fired = self.now
        self._fire(EVENTS)
        taken = await self._want("and one injected directly", 0, VLPI, guest=True)
        assert taken is not None
        self._expect("time from the write to the virtual line (ps)", taken.rose - fired, self.params["t_interrupt"])
        await self._want("without a doorbell", 0, None)

    async def _storm(self) -> None:
        before = self.now
        for _ in range(self.params["rounds"]):
            self._fire(3)
            taken = await self._take(0)
            self._expect("interrupt of the storm", taken and taken.intid, FIRST_LPI + 3)
        self._say(f"{self.params['rounds']} more in {(self.now - before) // us(1)} us")
