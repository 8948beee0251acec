"""What runs on a PE at EL1: the `Context` interface, and contexts that are Python programs.

A context is asked for its next operation (`fetch`) and told how it ended (`complete` or `fail`); between two operations
the PE may make it take an interrupt. Real AArch64 code fits the same interface: `fetch` executes instructions up to the
next access, system register, HVC, WFI or end of its quantum (a `Delay`).

A `ProgramContext` is a stack of coroutine frames: the program, and above it the interrupt handlers in progress. A
coroutine can't be copied, so it keeps a journal of all that reached it from outside: the same program fed with the same
journal is the same context, on any PE.

Source: exception entry and return, Arm ARM D1.3; PSTATE.I.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Coroutine, Generator, Iterable
from traceback import extract_tb
from typing import Any, Protocol, cast

from nodes.arch.cpu import MAX_BLOCK, UART, ExternalAbort, IrqHandler, Program, UndefinedInstruction
from nodes.pe.operations import OPERATIONS, Delay, Dsb, Hvc, Load, Mrs, Msr, Operation, Result, Store, Wfi

Entry = tuple[str, Any]
"""A journal entry: ("result", value), ("abort" or "undefined", text), ("delay", end in ps) or ("irq", fetched)."""

_ERRORS: dict[str, type[Exception]] = {"abort": ExternalAbort, "undefined": UndefinedInstruction}


class Crash(Exception):
    """The context can't go on; the text tells why, with the frames of a Python program."""


class Context(Protocol):
    """Execution state at EL1 and below of one vCPU."""

    masked: bool
    """PSTATE.I."""

    @property
    def until(self) -> int | None:
        """End (ps) of the `Delay` in progress, once the PE has begun it."""
        ...

    def fetch(self) -> Operation:
        """The operation that the context is at; the same one until it is completed. Raises Crash."""
        ...

    def complete(self, result: Result) -> None:
        """The operation is done."""
        ...

    def fail(self, error: ExternalAbort | UndefinedInstruction) -> None:
        """The operation caused an exception that is taken at EL1."""
        ...

    def begin_delay(self, until: int) -> None:
        """The `Delay` that the context is at ends at `until` ps."""
        ...

    def interrupt(self) -> None:
        """Take an IRQ now: enter the handler, with interrupts masked. Raises Crash if there is none."""
        ...

    def close(self) -> None:
        """Give up everything that it holds."""
        ...


class _Frame:
    """A coroutine, made by `start` when it first runs, and the operation that it is at."""

    __slots__ = ("coroutine", "error", "masked_below", "operation", "result", "start", "until")

    def __init__(self, start: IrqHandler, masked_below: bool) -> None:
        self.start = start
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self.masked_below = masked_below
        self.operation: Operation | None = None
        self.result: Result = None
        self.error: Exception | None = None
        self.until: int | None = None


class ProgramContext:
    """A Python program as a context; `mpidr` is what it reads as MPIDR_EL1."""

    def __init__(self, name: str, program: Program, args: str, params: dict[str, Any], mpidr: int) -> None:
        self.name = name
        self.args = args
        self.params = dict(params)
        self.mpidr = mpidr
        self.masked = True
        self.journal: list[Entry] = []
        self.handler: IrqHandler | None = None
        self._frames = [_Frame(lambda: program(ProgramCpu(self), args, dict(params)), masked_below=True)]

    @classmethod
    def replay(
        cls, name: str, program: Program, args: str, params: dict[str, Any], mpidr: int, journal: Iterable[Entry]
    ) -> ProgramContext:
        """The context that `journal` (of another one with the same program, arguments and parameters) leads to.

        Raises:
            ValueError: an entry of an unknown kind.
            Crash: the program crashes on the way.
        """
        context = cls(name, program, args, params, mpidr)
        for kind, value in journal:
            if kind == "irq":
                if value:
                    context.fetch()
                context.interrupt()
                continue
            context.fetch()
            if kind == "result":
                context.complete(value)
            elif kind == "delay":
                context.begin_delay(value)
            elif kind in _ERRORS:
                context._end(kind, value, None, _ERRORS[kind](value))
            else:
                raise ValueError(f"journal entry must be result, delay, irq, abort or undefined, not {kind!r}")
        return context

    @property
    def until(self) -> int | None:
        """End (ps) of the delay that the top frame is in, once it has begun."""
        return self._frames[-1].until

    @property
    def depth(self) -> int:
        """Frames on the stack: 1 without an interrupt in progress."""
        return len(self._frames)

    def fetch(self) -> Operation:
        """Run the top frame up to its next operation; a frame that returns gives way to the one below (ERET)."""
        while True:
            frame = self._frames[-1]
            if frame.operation is not None:
                return frame.operation
            if self._advance(frame):
                continue
            self._frames.pop()
            if not self._frames:
                raise Crash(f"program {self.name!r} returned: a vCPU must end by PSCI CPU_OFF or SYSTEM_OFF")
            self.masked = frame.masked_below

    def _advance(self, frame: _Frame) -> bool:
        """Run a frame to its next await; False when it has returned."""
        result, error = frame.result, frame.error
        frame.result = frame.error = None
        try:
            if frame.coroutine is None:
                frame.coroutine = frame.start()
            asked = frame.coroutine.throw(error) if error is not None else frame.coroutine.send(result)
        except StopIteration:
            return False
        except Exception as failure:
            raise Crash(_describe(failure)) from failure
        if not isinstance(asked, OPERATIONS):
            raise Crash(f"program {self.name!r} must await operations of its Cpu, not {type(asked).__name__}")
        frame.operation = asked
        return True

    def complete(self, result: Result) -> None:
        """Keep the result for the frame's next turn."""
        self._end("result", result, result, None)

    def fail(self, error: ExternalAbort | UndefinedInstruction) -> None:
        """Raise `error` in the frame at its next turn."""
        self._end("abort" if isinstance(error, ExternalAbort) else "undefined", str(error), None, error)

    def _end(self, kind: str, value: Any, result: Result, error: Exception | None) -> None:
        frame = self._frames[-1]
        assert frame.operation is not None, "an operation must be fetched before it ends"
        self.journal.append((kind, value))
        frame.operation = None
        frame.until = None
        frame.result, frame.error = result, error

    def begin_delay(self, until: int) -> None:
        """Note the end of the delay, so that it holds over interrupts and exits."""
        self.journal.append(("delay", until))
        self._frames[-1].until = until

    def interrupt(self) -> None:
        """Push a frame with the program's handler."""
        if self.handler is None:
            raise Crash(f"program {self.name!r} took an IRQ without a handler: set_irq_handler before irq_enable")
        self.journal.append(("irq", self._frames[-1].operation is not None))
        self._frames.append(_Frame(self.handler, masked_below=self.masked))
        self.masked = True

    def close(self) -> None:
        """Close every frame, the innermost first."""
        frames, self._frames = self._frames, []
        for frame in reversed(frames):
            if frame.coroutine is not None:
                frame.coroutine.close()


def _describe(failure: Exception) -> str:
    """A traceback with file names only: where the project lies must not reach a message."""
    lines = [
        f"  {entry.filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{entry.lineno} in {entry.name}"
        for entry in extract_tb(failure.__traceback__)[1:]
    ]
    return "\n".join([f"{type(failure).__name__}: {failure}", *lines])


@types.coroutine
def _perform(operation: Operation) -> Generator[Operation, Any, Any]:
    return (yield operation)


class ProgramCpu:
    """`nodes.arch.cpu.Cpu` for Python programs: each method yields operations to the PE."""

    def __init__(self, context: ProgramContext) -> None:
        self._context = context

    @property
    def mpidr(self) -> int:
        """MPIDR_EL1."""
        return self._context.mpidr

    def load(self, address: int, size: int = 8) -> Awaitable[int]:
        """Read 1, 2, 4 or 8 bytes."""
        _check_size(size)
        return _perform(Load(address, size))

    def store(self, address: int, value: int, size: int = 8) -> Awaitable[None]:
        """Write 1, 2, 4 or 8 bytes and wait."""
        _check_size(size)
        _check_value(value, size)
        return _perform(Store(address, value, size))

    async def load_block(self, address: int, size: int) -> bytes:
        """Read bytes."""
        parts = [cast(bytes, await _perform(Load(a, n, block=True))) for a, n in _pieces(address, size)]
        return b"".join(parts)

    async def store_block(self, address: int, data: bytes) -> None:
        """Write bytes and wait."""
        await self._store_pieces(address, data, posted=False)

    def post(self, address: int, value: int, size: int = 8) -> Awaitable[None]:
        """Write 1, 2, 4 or 8 bytes without waiting."""
        _check_size(size)
        _check_value(value, size)
        return _perform(Store(address, value, size, posted=True))

    async def post_block(self, address: int, data: bytes) -> None:
        """Write bytes without waiting."""
        await self._store_pieces(address, data, posted=True)

    async def _store_pieces(self, address: int, data: bytes, posted: bool) -> None:
        for a, n in _pieces(address, len(data)):
            await _perform(Store(a, bytes(data[a - address : a - address + n]), n, posted))

    def dsb(self) -> Awaitable[None]:
        """Wait for posted stores."""
        return _perform(Dsb())

    def mrs(self, name: str) -> Awaitable[int]:
        """Read a system register."""
        return _perform(Mrs(name))

    def msr(self, name: str, value: int) -> Awaitable[None]:
        """Write a system register."""
        _check_value(value, 8)
        return _perform(Msr(name, value))

    def hvc(self, x0: int, x1: int = 0, x2: int = 0, x3: int = 0) -> Awaitable[tuple[int, int, int, int]]:
        """Call the hypervisor."""
        return _perform(Hvc((x0, x1, x2, x3)))

    def wfi(self) -> Awaitable[None]:
        """Wait for an interrupt."""
        return _perform(Wfi())

    def delay(self, span: int) -> Awaitable[None]:
        """Be busy."""
        if span < 0:
            raise ValueError(f"span of a delay must not be negative, not {span} ps")
        return _perform(Delay(span))

    def set_irq_handler(self, handler: IrqHandler) -> None:
        """What `interrupt` pushes."""
        self._context.handler = handler

    def irq_enable(self) -> None:
        """PSTATE.I = 0."""
        self._context.masked = False

    def irq_disable(self) -> None:
        """PSTATE.I = 1."""
        self._context.masked = True

    async def console(self, text: str) -> None:
        """Write to the UART's data register, block by block; no character is cut in two."""
        data = text.encode()
        start = 0
        while start < len(data):
            end = min(start + MAX_BLOCK, len(data))
            while end < len(data) and data[end] & 0xC0 == 0x80:
                end -= 1  # the next byte continues a character
            await _perform(Store(UART, data[start:end], end - start))
            start = end


def _check_size(size: int) -> None:
    if size not in (1, 2, 4, 8):
        raise ValueError(f"size of an access must be 1, 2, 4 or 8 bytes, not {size!r}")


def _check_value(value: int, size: int) -> None:
    if value < 0 or value >> 8 * size:
        raise ValueError(f"value must fit {size} bytes, not {value:#x}")


def _pieces(address: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) of the accesses of a block: none crosses a 4 KiB boundary."""
    pieces = []
    while size > 0:
        n = min(size, MAX_BLOCK - address % MAX_BLOCK)
        pieces.append((address, n))
        address += n
        size -= n
    return pieces
