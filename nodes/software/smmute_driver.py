"""Driver of the SMMUv3 test engine (smmute) in a guest: a stand-in for Linux' driver of Arm's reference software.

One transaction: take a free frame and the next vector (round robin over 8), program the frame by posted stores through BAR0,
start it, sleep until the MSI-X has come as a vLPI; every 500 ms look at the frame, and log when it had finished without its
interrupt. Register layout, status codes and the order of accesses: facts sheet 9.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nodes.arch.cpu import Cpu
from nodes.software import gicv3, its, pci

VENDOR, DEVICE = 0x13B5, 0xFF80
MAX_VECTORS = 8
FIRST_LPI = 8192
PPI_TIMER = 27

PAGE, PAIR = 0x1_0000, 0x2_0000
FRAME_SIZE = 128
FRAMES = PAGE // FRAME_SIZE
CMD, UCTRL, MSIADDRESS, MSIDATA, MSIATTR = 0x00, 0x04, 0x10, 0x18, 0x1C
ATTRIBUTES, SEED, BEGIN, END, STRIDE, UDATA = 0x20, 0x24, 0x28, 0x30, 0x38, 0x40
PCTRL, SUBSTREAMID = 0x00, 0x0C
PCTRL_NS = 1
UCTRL_MSI_ABORTED = 1
NO_SUBSTREAM = 0xFFFF_FFFF
ATTRIBUTES_DEFAULT = 0x42FF_42FF

HALTED, MEMCPY, MISCONFIGURED, ERROR = 1, 2, 0xFFFF_FFFE, 0xFFFF_FFFF
SUCCESS, EIO, EFAULT, EINVAL = 0, 5, 14, 22

POLL_MS = 500
POLLS = 20
"""After these many polls a transaction that still runs is given up."""
SPIN_FIRST, SPIN_LAST = 1_000_000, 100_000_000


class Outcome(NamedTuple):
    """Of a transaction: its number, errno (0: success), the value that belongs to it, microseconds from start to end."""

    transaction: int
    status: int
    value: int
    duration_us: int


class Smmute:
    """The device and its driver. `guest_wait` as in ipi.py."""

    def __init__(self, cpu: Cpu, params: dict[str, Any]) -> None:
        self.cpu = cpu
        self.vcpus = int(params.get("vcpus", 8))
        self.wait = str(params.get("guest_wait", "wfi"))
        if self.wait not in ("wfi", "spin"):
            raise ValueError(f"guest_wait must be wfi or spin, not {self.wait!r}")
        self.lpis = [FIRST_LPI + k for k in range(MAX_VECTORS)]
        self.its = its.GuestIts(cpu, gicv3.layout(self.vcpus).gits)
        self.function: pci.PciFunction | None = None
        self.transactions = 0
        self._frames_used: set[int] = set()
        self._fired: set[int] = set()
        self._timed_out = False

    # -- set-up --------------------------------------------------------------------------------------------------------

    async def set_up(self) -> None:
        """GIC, LPIs, ITS; find the device; map its vectors; then its MSI-X entries, unmasked last; interrupts on."""
        cpu = self.cpu
        where = gicv3.layout(self.vcpus)
        await gicv3.switch_on_distributor(cpu, True)
        rd = await gicv3.find_redistributor(cpu, where.gicr)
        await self._set_up_private(rd + gicv3.SGI_FRAME)
        await gicv3.switch_on_cpu_interface(cpu)
        await its.enable_lpis(cpu, rd)
        controller = self.its
        await controller.enable()
        function = await pci.find(cpu, VENDOR, DEVICE)
        await function.probe()
        pairs = await function.bar_size(0) // PAIR
        await function.enable()
        await controller.map_device(function.rid, self.lpis)
        await controller.enable_lpis(function.rid, self.lpis)
        await function.enable_msix(where.translater, MAX_VECTORS)
        self.function = function
        cpu.set_irq_handler(self._handle_irq)
        cpu.irq_enable()
        await cpu.console(f"smmute {function.name}: {pairs}x2 pages of {FRAMES} frames\n")

    async def _set_up_private(self, sgi_frame: int) -> None:
        """SGIs and PPIs: Group 1, default priority, SGIs and the virtual timer enabled."""
        cpu = self.cpu
        await cpu.store(sgi_frame + gicv3.GICR_IGROUPR0, gicv3.ALL, 4)
        for n in range(8):
            await cpu.store(sgi_frame + gicv3.GICR_IPRIORITYR + 4 * n, gicv3.PRIORITIES, 4)
        await cpu.store(sgi_frame + gicv3.GICR_ISENABLER0, gicv3.SGIS | 1 << PPI_TIMER, 4)

    async def _handle_irq(self) -> None:
        """A vLPI completes its vector; the timer's PPI ends the wait of 500 ms."""
        intid = await self.cpu.mrs("ICC_IAR1_EL1") & 0xFF_FFFF
        if intid == gicv3.SPURIOUS:
            return
        if intid in self.lpis:
            self._fired.add(intid - FIRST_LPI)
        elif intid == PPI_TIMER:
            await self.cpu.msr("CNTV_CTL_EL0", 0)
            self._timed_out = True
        await self.cpu.msr("ICC_EOIR1_EL1", intid)

    # -- a transaction -------------------------------------------------------------------------------------------------

    async def memcpy(self, source: int, destination: int, size: int) -> Outcome:
        """Copy `size` bytes by the engine; addresses are guest-physical, which are its I/O virtual addresses."""
        assert self.function is not None, "set_up comes first"
        self.transactions += 1
        number = self.transactions
        vector = (number - 1) % MAX_VECTORS
        frame = next(n for n in range(FRAMES) if n not in self._frames_used)
        self._frames_used.add(frame)
        base = self.function.bar(0) + frame * FRAME_SIZE
        started = await self.cpu.mrs("CNTVCT_EL0")
        await self._program(base, vector, source, destination, size)
        status = await self._start(base, number, vector)
        outcome = await self._result(base, number, vector, status, started)
        self._frames_used.remove(frame)
        return outcome

    async def _program(self, base: int, vector: int, source: int, destination: int, size: int) -> None:
        """Both halves of the frame, by posted stores; complete at the return."""
        cpu = self.cpu
        user: list[tuple[int, int, int]] = [
            (CMD, HALTED, 4),
            (UCTRL, 0, 4),
            (BEGIN, source, 8),
            (END, source + size - 1, 8),
            (ATTRIBUTES, ATTRIBUTES_DEFAULT, 4),
            (SEED, 0, 4),
            (STRIDE, 1, 8),
            (MSIADDRESS, 1, 8),
            (MSIDATA, vector, 4),
            (MSIATTR, 0, 4),
            (UDATA, destination, 8),
            (UDATA + 8, 0, 8),
        ]
        await cpu.post(base + PAGE + PCTRL, PCTRL_NS, 4)
        await cpu.post(base + PAGE + SUBSTREAMID, NO_SUBSTREAM, 4)
        for offset, value, width in user:
            await cpu.post(base + offset, value, width)
        await cpu.dsb()

    async def _start(self, base: int, number: int, vector: int) -> int:
        """Give the command, and wait unless the read-back shows that it was refused; returns what cmd reads at the end."""
        cpu = self.cpu
        self._fired.discard(vector)
        await cpu.store(base + CMD, MEMCPY, 4)
        status = await cpu.load(base + CMD, 4)
        if status == MISCONFIGURED:
            return status
        for _ in range(POLLS):
            await self._wait_for(vector)
            status = await cpu.load(base + CMD, 4)
            if status != MEMCPY:
                if vector not in self._fired:
                    await self._log(f"missed MSI for transaction {number} (vector {vector})")
                break
            self._fired.discard(vector)  # of an earlier transaction: this one still runs
        return status

    async def _wait_for(self, vector: int) -> None:
        """Until the vector's interrupt has come, at most POLL_MS."""
        if self.wait == "spin":
            await self._spin_for(vector)
            return
        cpu = self.cpu
        self._timed_out = False
        await cpu.msr("CNTV_CVAL_EL0", await cpu.mrs("CNTVCT_EL0") + await self._ticks(POLL_MS))
        await cpu.msr("CNTV_CTL_EL0", 1)
        while vector not in self._fired and not self._timed_out:
            await cpu.wfi()
        await cpu.msr("CNTV_CTL_EL0", 0)

    async def _spin_for(self, vector: int) -> None:
        end = await self.cpu.mrs("CNTVCT_EL0") + await self._ticks(POLL_MS)
        period = SPIN_FIRST
        while vector not in self._fired and await self.cpu.mrs("CNTVCT_EL0") < end:
            await self.cpu.delay(period)
            period = min(2 * period, SPIN_LAST)

    async def _result(self, base: int, number: int, vector: int, status: int, started: int) -> Outcome:
        """Translate the frame's final state."""
        cpu = self.cpu
        ticks = await cpu.mrs("CNTVCT_EL0") - started
        duration = ticks * 1_000_000 // await cpu.mrs("CNTFRQ_EL0")
        if await cpu.load(base + UCTRL, 4) & UCTRL_MSI_ABORTED:
            await self._log(f"MSI aborted for transaction {number} (vector {vector})")
        if status == HALTED:
            return Outcome(number, SUCCESS, await cpu.load(base + UDATA + 8, 8), duration)
        if status == ERROR:
            return Outcome(number, EIO, await cpu.load(base + UDATA + 16, 8), duration)
        return Outcome(number, EINVAL if status == MISCONFIGURED else EFAULT, 0, duration)

    async def _ticks(self, milliseconds: int) -> int:
        return await self.cpu.mrs("CNTFRQ_EL0") * milliseconds // 1000

    async def _log(self, message: str) -> None:
        assert self.function is not None
        await self.cpu.console(f"smmute {self.function.name}: {message}\n")
