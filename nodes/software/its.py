"""A guest's LPI tables and ITS driver, after Linux' irq-gic-v3-its (facts): BASERs, command queue, mapping of a device.

All tables lie at fixed guest-physical addresses in RAM. Commands of one operation are written as one block and handed over by
one write of GITS_CWRITER. Sources: IHI 0069 5.3 and 12.18; table layouts, facts sheet 5.1, 5.2.
"""

from __future__ import annotations

from nodes.arch.cpu import Cpu
from nodes.arch.its_commands import COMMAND_SIZE, encode
from nodes.arch.lpi import config_address, config_byte, config_size, pending_size
from nodes.software import gicv3
from nodes.software.gicv3 import GuestGicError

PROPERTY_TABLE = 0x8010_0000
PENDING_TABLE = 0x8011_0000
QUEUE = 0x8012_0000
QUEUE_SIZE = 0x1_0000
TABLES = 0x8013_0000
"""GITS_BASER tables: 64 KiB for each that asks for memory."""
TABLE_SIZE = 0x1_0000
ITT = 0x801F_0000

ID_BITS = 16
GITS_CTLR, GITS_CBASER, GITS_CWRITER, GITS_CREADR, GITS_BASER = 0x0000, 0x0080, 0x0088, 0x0090, 0x0100
CTLR_ENABLED = 1 << 0
VALID = 1 << 63
CACHED = 7 << 7 | 1 << 10
"""Inner cacheable, read and write allocate; inner shareable: of PROPBASER, PENDBASER."""
BASER_CACHED = 7 << 59 | 1 << 10
BASER_PAGE_64K = 2 << 8
BASER_TYPES = 7 << 56
DONE_LIMIT = 1000


async def enable_lpis(cpu: Cpu, rd: int, pending: int = PENDING_TABLE, *, configure: bool = True) -> None:
    """LPI tables of the Redistributor at `rd`: all LPIs disabled at the default priority (without `configure` as they are),
    none pending; then EnableLPIs."""
    if configure:
        await cpu.post_block(PROPERTY_TABLE, bytes([config_byte(gicv3.PRIORITY, False)]) * config_size(ID_BITS))
    await cpu.post_block(pending, bytes(pending_size(ID_BITS)))
    await cpu.dsb()
    wanted = PROPERTY_TABLE | CACHED | ID_BITS - 1
    await cpu.store(rd + gicv3.GICR_PROPBASER, wanted)
    got = await cpu.load(rd + gicv3.GICR_PROPBASER)
    if got & ~0xFFF != wanted & ~0xFFF:
        raise GuestGicError(f"GICR_PROPBASER at {rd:#x} must keep {wanted:#x}; it reads {got:#x}")
    await cpu.store(rd + gicv3.GICR_PENDBASER, pending | CACHED | gicv3.PENDBASER_PTZ)
    await cpu.store(rd + gicv3.GICR_CTLR, gicv3.RD_ENABLE_LPIS, 4)


class GuestIts:
    """The ITS at guest-physical address `base`."""

    def __init__(self, cpu: Cpu, base: int) -> None:
        self.cpu = cpu
        self.base = base
        self._write = 0

    async def enable(self) -> None:
        """Tables and queue, then GITS_CTLR.Enabled; collection 0 to processor 0."""
        cpu = self.cpu
        table = TABLES
        for n in range(8):
            register = self.base + GITS_BASER + 8 * n
            value = await cpu.load(register)
            if not value & BASER_TYPES:
                continue
            await cpu.post_block(table, bytes(TABLE_SIZE))
            await cpu.dsb()
            wanted = VALID | BASER_CACHED | BASER_PAGE_64K | table
            await cpu.store(register, wanted)
            got = await cpu.load(register)
            if not got & VALID or got & 0xFFFF_FFFF_F000 != table:
                raise GuestGicError(f"GITS_BASER{n} must keep {wanted:#x}; it reads {got:#x}")
            table += TABLE_SIZE
        await cpu.store(self.base + GITS_CBASER, VALID | BASER_CACHED | QUEUE | QUEUE_SIZE // 4096 - 1)
        await cpu.store(self.base + GITS_CWRITER, 0)
        await cpu.store(self.base + GITS_CTLR, CTLR_ENABLED, 4)
        await self.run(
            encode("MAPC", icid=0, rdbase=0, valid=1),
            encode("SYNC", rdbase=0),
            encode("INVALL", icid=0),
            encode("SYNC"),
        )

    async def run(self, *commands: bytes) -> None:
        """Queue commands and wait until the ITS has carried them out. Raises GuestGicError."""
        cpu, start = self.cpu, self._write
        data = b"".join(commands)
        before_wrap = data[: QUEUE_SIZE - start]
        await cpu.post_block(QUEUE + start, before_wrap)
        await cpu.post_block(QUEUE, data[len(before_wrap) :])
        self._write = (start + len(commands) * COMMAND_SIZE) % QUEUE_SIZE
        await cpu.dsb()
        await cpu.store(self.base + GITS_CWRITER, self._write)
        for _ in range(DONE_LIMIT):
            if await cpu.load(self.base + GITS_CREADR) == self._write:
                return
            await cpu.delay(1_000_000)
        raise GuestGicError(f"GITS_CREADR must reach {self._write:#x}: the ITS is stalled or slow")

    async def map_device(self, device_id: int, lpis: list[int]) -> None:
        """MAPD, and event k to ``lpis[k]`` at collection 0."""
        bits = max(1, (len(lpis) - 1).bit_length())
        await self.cpu.store_block(ITT, bytes(4096))
        mapped = [encode("MAPTI", device_id=device_id, event_id=k, pintid=lpi, icid=0) for k, lpi in enumerate(lpis)]
        await self.run(
            encode("MAPD", device_id=device_id, size=bits - 1, itt=ITT, valid=1), *mapped, encode("SYNC", rdbase=0)
        )

    async def enable_lpis(self, device_id: int, lpis: list[int]) -> None:
        """Configuration bytes of the LPIs, then INV of their events."""
        for lpi in lpis:
            await self.cpu.post(config_address(PROPERTY_TABLE, lpi), config_byte(gicv3.PRIORITY, True), 1)
        await self.cpu.dsb()
        invalidated = [encode("INV", device_id=device_id, event_id=k) for k in range(len(lpis))]
        await self.run(*invalidated, encode("SYNC", rdbase=0))
