"""Test double of the machine under a guest program: vCPUs, an ideal GIC, RAM, UART, PSCI; no hypervisor, no bus.

It answers operations of `ProgramContext`s in time order, 10 ns each. Interrupts are pending numbers per vCPU. Tests change
`deliver` or `msi` to break it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Self

from cosim.api import Instant, ns
from nodes.arch.cpu import BOOT_ENTRY, UART, Program
from nodes.pe.context import ProgramContext
from nodes.pe.operations import Delay, Dsb, Hvc, Load, Mrs, Msr, Operation, Store, Wfi
from nodes.pe.timer import TIMER_REGISTERS, VirtualTimer

GICD = 0x3FFF_0000
RAM = range(0x8000_0000, 0x1_0000_0000)
Access = Callable[[int, int, "int | bytes | None"], "int | bytes | None"]
"""Device: (offset, size, data of a write or None) -> value of a read."""


class Vcpu:
    def __init__(self, context: ProgramContext) -> None:
        self.context = context
        self.pending: set[int] = set()
        self.timer = VirtualTimer(1_000_000_000)
        self.asleep = False
        self.wake = 0


class Board:
    """`run` goes on until PSCI SYSTEM_OFF (then `off` is True) or `limit` ps."""

    def __init__(self, program: Program, args: str, params: dict[str, Any], *, nassgicap: bool = True) -> None:
        self.program, self.args = program, args
        self.params = {"vcpus": 8, "nassgireq": True, "guest_wait": "wfi", **params}
        self.now: Instant = 0
        self.off = False
        self.text = ""
        self.writes: list[str] = []
        self.ram: dict[int, bytearray] = {}
        self.vcpus: dict[int, Vcpu] = {}
        self.gicd_writes: list[tuple[int, int, int]] = []
        self.gicr_writes: list[tuple[int, int, int]] = []
        self.sgi1r: list[int] = []
        self.devices: list[tuple[int, int, Access]] = [(UART, 0x1000, self._uart)]
        self._typer2 = 0x100 if nassgicap else 0
        self._ctlr = 0
        self._order = 0
        self._heap: list[tuple[Instant, int, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}
        self.start(0, BOOT_ENTRY, 0)

    # -- vCPUs ---------------------------------------------------------------------------------------------------------

    def start(self, index: int, entry: int, x0: int) -> None:
        params = {**self.params, "entry": entry, "x0": x0}
        context = ProgramContext("guest", self.program, self.args, params, 0x8000_0000 | index)
        self.vcpus[index] = Vcpu(context)
        self._schedule(index, self.now)

    def _schedule(self, index: int, time: Instant) -> None:
        vcpu = self.vcpus[index]
        vcpu.wake, self._order = time, self._order + 1
        heapq.heappush(self._heap, (time, self._order, index))

    def deliver(self, index: int, intid: int) -> None:
        """Make an interrupt pending at a vCPU; a powered-off one loses it."""
        vcpu = self.vcpus.get(index)
        if vcpu is not None:
            vcpu.pending.add(intid)
            self._schedule(index, self.now)

    def after(self, delay: int, fn: Callable[[], None]) -> None:
        """Call `fn` in `delay` ps."""
        self._order += 1
        self._calls[self._order] = fn
        heapq.heappush(self._heap, (self.now + delay, self._order, -1))

    def run(self, limit: Instant = 60 * 10**12) -> Self:
        while self._heap and not self.off:
            time, order, index = heapq.heappop(self._heap)
            if time > limit:
                break
            self.now = time
            if index < 0:
                self._calls.pop(order)()
            elif self.vcpus[index].wake == time:
                self._step(index)
        for vcpu in self.vcpus.values():
            vcpu.context.close()
        return self

    def _step(self, index: int) -> None:
        vcpu = self.vcpus[index]
        context = vcpu.context
        if vcpu.timer.output(self.now):
            vcpu.pending.add(27)
        operation = context.fetch()
        if vcpu.pending and not context.masked:
            if isinstance(operation, Wfi):
                context.complete(None)
            context.interrupt()
            self._schedule(index, self.now)
        elif isinstance(operation, Wfi) and not vcpu.pending:
            due = vcpu.timer.due(self.now)
            if due is not None:
                self._schedule(index, due)
        elif isinstance(operation, Delay):
            if context.until is None:
                context.begin_delay(self.now + operation.span)
            assert context.until is not None
            if self.now >= context.until:
                context.complete(None)
                self._schedule(index, self.now)
            else:
                self._schedule(index, context.until)
        else:
            context.complete(self._answer(index, operation))
            self._schedule(index, self.now + ns(10))

    # -- operations ----------------------------------------------------------------------------------------------------

    def _answer(self, index: int, operation: Operation) -> Any:
        match operation:
            case Load(address, size, block):
                value = self._access(index, address, size, None)
                if isinstance(value, int):
                    return value.to_bytes(size, "little") if block else value
                assert isinstance(value, bytes)
                return value if block else int.from_bytes(value, "little")
            case Store(address, data, size, _):
                self._access(index, address, size, data)
            case Mrs(name, _):
                return self._mrs(index, name)
            case Msr(name, value, _):
                self._msr(index, name, value)
            case Hvc(arguments):
                return self._hvc(arguments)
            case Dsb() | Wfi():
                pass
            case _:
                raise AssertionError(operation)
        return None

    def _mrs(self, index: int, name: str) -> int:
        vcpu = self.vcpus[index]
        if name in TIMER_REGISTERS:
            return vcpu.timer.read(name, self.now)
        if name == "MPIDR_EL1":
            return 0x8000_0000 | index
        assert name == "ICC_IAR1_EL1"
        if not vcpu.pending:
            return 1023
        intid = min(vcpu.pending)
        vcpu.pending.discard(intid)
        return intid

    def _msr(self, index: int, name: str, value: int) -> None:
        if name in TIMER_REGISTERS:
            assert self.vcpus[index].timer.write(name, value, self.now)
        elif name == "ICC_SGI1R_EL1":
            self.sgi1r.append(value)
            intid = value >> 24 & 0xF
            others = [n for n in self.vcpus if n != index]
            targets = others if value >> 40 & 1 else [n for n in range(16) if value >> n & 1]
            for target in targets:
                self.deliver(target, intid)

    def _hvc(self, arguments: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        function, target, entry, x0 = arguments
        if function == 0xC400_0003:
            self.start(target, entry, x0)
        elif function == 0x8400_0008:
            self.off = True
        return (0, 0, 0, 0)

    # -- memory --------------------------------------------------------------------------------------------------------

    def _access(self, index: int, address: int, size: int, data: int | bytes | None) -> int | bytes | None:
        if address in RAM:
            return self.memory(address, size, data)
        for base, length, device in self.devices:
            if base <= address < base + length:
                return device(address - base, size, data)
        if address >= GICD:
            return self._gicd(index, address - GICD, size, data)
        frame, offset = divmod(address - (GICD - 0x2_0000 * self.params["vcpus"]), 0x2_0000)
        assert frame >= 0, f"nothing at {address:#x}"
        return self._gicr(frame, offset, data)

    def memory(self, address: int, size: int, data: int | bytes | None = None) -> bytes | None:
        """Read, or write `data`."""
        page, at = divmod(address, 4096)
        assert at + size <= 4096
        held = self.ram.setdefault(page, bytearray(4096))
        if data is None:
            return bytes(held[at : at + size])
        held[at : at + size] = data if isinstance(data, bytes) else data.to_bytes(size, "little")
        return None

    def _uart(self, offset: int, size: int, data: int | bytes | None) -> int:
        assert offset == 0 and isinstance(data, bytes)
        self.text += data.decode()
        self.writes.append(data.decode())
        return 0

    def _gicd(self, index: int, offset: int, size: int, data: int | bytes | None) -> int:
        if data is None:
            return {0: self._ctlr, 4: 1 | 15 << 19, 0xC: self._typer2}[offset]
        assert isinstance(data, int)
        self.gicd_writes.append((index, offset, data))
        if offset == 0:
            self._ctlr = data
        return 0

    def _gicr(self, frame: int, offset: int, data: int | bytes | None) -> int:
        if data is None:
            if offset == 8:
                return frame << 32 | frame << 8 | (0x10 if frame == self.params["vcpus"] - 1 else 0)
            return {o: d for f, o, d in self.gicr_writes if f == frame}[offset]
        assert isinstance(data, int)
        self.gicr_writes.append((frame, offset, data))
        return 0
