"""The command queue: a ring of 32-byte commands in memory between GITS_CREADR and GITS_CWRITER (IHI 0069H section 5.3).

What lies between the two is fetched at once, in pieces of up to 4 KiB, and executed in order by one task; CREADR advances
with each command. A run of SYNC and VSYNC commands is issued together, since nothing lies between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cosim.api import Bank, BusFault, Future, MmioInitiator, Signal
from nodes.arch.its_commands import COMMAND_SIZE, Command, decode
from nodes.its.commands import Commands, syndrome
from nodes.its.config import Config
from nodes.its.mappings import Cause, Fault, Mappings, need
from nodes.its.net import Net
from nodes.its.tables import settle
from nodes.its.translate import Translator

T = TypeVar("T")

OFFSET = 0xF_FFE0
RETRY = STALLED = 1
PAGE = 4096

Report = Callable[..., None]
"""Called as report(counter, text, **fields): count and log."""


class CommandQueue:
    """Owns GITS_CBASER, GITS_CWRITER and GITS_CREADR of `bank`. `report` counts and logs errors; `pause` takes a command's time."""

    def __init__(
        self,
        config: Config,
        bank: Bank,
        bus: MmioInitiator,
        maps: Mappings,
        commands: Commands,
        net: Net,
        events: Translator,
        report: Report,
        on_command: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._bank = bank
        self._bus = bus
        self._maps = maps
        self._commands = commands
        self._net = net
        self._events = events
        self._report = report
        self._on_command = on_command
        self._pause = pause
        self._work = Signal("commands")
        self.busy = False
        bank.on_write("GITS_CWRITER", self._write_cwriter)

    # -- registers -----------------------------------------------------------------------------------------------------

    @property
    def ring(self) -> int:
        """Bytes of the ring."""
        return (self._bank.field("GITS_CBASER", "Size") + 1) * PAGE

    def restart(self) -> None:
        """GITS_CBASER was written, while nothing was under way: CREADR goes to 0, CWRITER stays."""
        self._bank["GITS_CREADR"] = 0
        self._work.notify()

    def wake(self) -> None:
        """GITS_CTLR.Enabled changed."""
        self._work.notify()

    def _write_cwriter(self, index: int, old: int, new: int, mask: int) -> None:
        offset = new & OFFSET
        if offset >= self.ring:
            self._report("queue_errors", "CWRITER.Offset must lie in the ring", offset=f"{offset:#x}", ring=self.ring)
            offset = old & OFFSET
        # Retry is an order, not a state.
        self._bank["GITS_CWRITER"] = offset
        if new & RETRY:
            self._bank["GITS_CREADR"] &= ~STALLED
        self._work.notify()

    # -- execution -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The task that executes commands; never ends."""
        while True:
            span = self._pending()
            if span is None:
                self.busy = False
                await self._work.wait()
                continue
            self.busy = True
            try:
                data = await self._bus.read_block(*span)
            except BusFault as fault:
                self._fetch_failed(fault)
                continue
            commands = [decode(data[at : at + COMMAND_SIZE]) for at in range(0, len(data), COMMAND_SIZE)]
            await self._execute(commands)

    def _runs(self) -> bool:
        bank = self._bank
        if bank["GITS_CREADR"] & STALLED:
            return False
        return bool(bank.field("GITS_CTLR", "Enabled") and bank.field("GITS_CBASER", "Valid"))

    def _pending(self) -> tuple[int, int] | None:
        """(address, bytes) of commands to fetch, up to the end of the ring; None if there are none."""
        bank = self._bank
        if not self._runs():
            return None
        read, write, ring = bank["GITS_CREADR"] & OFFSET, bank["GITS_CWRITER"] & OFFSET, self.ring
        if read == write or write >= ring:
            return None
        base = bank.field("GITS_CBASER", "Physical_Address") << 12
        return base + read, (write if write > read else ring) - read

    def _fetch_failed(self, fault: BusFault) -> None:
        self._report("queue_errors", "the command queue must be readable; write CWRITER.Retry to go on", why=str(fault))
        self._bank["GITS_CREADR"] |= STALLED

    async def _execute(self, commands: list[Command]) -> None:
        at = 0
        while at < len(commands) and self._runs():
            command = commands[at]
            await self._pause()
            if not self._runs():
                return
            try:
                if self._is_sync(command):
                    at += await self._syncs(commands[at:])
                    continue
                await self._one(command)
            except Fault as fault:
                self._failed(command, fault.cause)
                if self._config.stalls:
                    self._bank["GITS_CREADR"] |= STALLED
                    return
            self._advance()
            at += 1

    async def _one(self, command: Command) -> None:
        for confirmed in await self._settled(lambda: self._commands.run(command)) or ():
            await confirmed

    async def _settled(self, operation: Callable[[], T]) -> T:
        try:
            return await settle(operation)
        except BusFault as fault:
            self._table_fault(fault)
            raise Fault(Cause.TABLE_ACCESS) from None

    def _table_fault(self, fault: BusFault) -> None:
        self._report("table_faults", "the memory of the ITS's tables must be accessible", why=str(fault))

    def _failed(self, command: Command, cause: Cause) -> None:
        self._report(
            "command_errors",
            "ITS command error",
            command=command.name or f"opcode {command.opcode:#x}",
            syndrome=f"{syndrome(command, cause):#08x}",
            cause=cause.name,
            fields={key: f"{value:#x}" for key, value in command.fields.items()},
            offset=f"{self._bank['GITS_CREADR'] & OFFSET:#x}",
        )

    def _advance(self) -> None:
        self._on_command()
        self._bank["GITS_CREADR"] = ((self._bank["GITS_CREADR"] & OFFSET) + COMMAND_SIZE) % self.ring

    # -- SYNC and VSYNC ------------------------------------------------------------------------------------------------

    def _is_sync(self, command: Command) -> bool:
        return command.name == "SYNC" or command.name == "VSYNC" and self._config.virtual

    async def _syncs(self, commands: list[Command]) -> int:
        """Carry out the run of SYNCs and VSYNCs that `commands` begins with; how many. Raises Fault of the first."""
        await self._events.drained()
        futures = [await self._settled(lambda: self._ask(commands[0]))]
        for command in commands[1:]:
            if not self._is_sync(command):
                break
            try:
                futures.append(await self._settled(lambda: self._ask(command)))  # noqa: B023  (called in this turn)
            except Fault:
                break  # it gets its own turn, and fails there
        try:
            await self._bus.dsb()
        except BusFault as fault:
            self._table_fault(fault)
        for future in futures:
            await future
            self._advance()
        return len(futures)

    def _ask(self, command: Command) -> Future[None]:
        if command.name == "SYNC":
            need(self._net.knows(command["rdbase"]), Cause.SIZE_OR_PROCNUM_OOR)
            return self._net.sync(command["rdbase"])
        return self._net.vsync(self._maps.mapped_vpe(command["vpeid"]).rd, command["vpeid"])
