"""Words in guest RAM that several vCPUs read, one of them writes: records of one CPU each, polled by the others."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from nodes.arch.cpu import Cpu

RECORDS = 0x8020_0000
"""Guest-physical address of CPU 0's record."""
RECORD_SIZE = 64
POLL_FIRST, POLL_LAST = 5_000_000, 100_000_000
"""Period of polling in ps: doubles from 5 to 100 us."""

_FORMAT = struct.Struct("<4I")


class Record(NamedTuple):
    """What one CPU tells the others: that it is ready, interrupts acknowledged, spurious ones, INTID of the last."""

    ready: int = 0
    acked: int = 0
    spurious: int = 0
    intid: int = 0


async def clear(cpu: Cpu, cpus: int) -> None:
    """Zero all records; by the boot CPU before it starts the others."""
    await cpu.store_block(RECORDS, bytes(cpus * RECORD_SIZE))


async def publish(cpu: Cpu, index: int, record: Record) -> None:
    """Write the own record, in one access."""
    await cpu.store_block(RECORDS + index * RECORD_SIZE, _FORMAT.pack(*record))


async def read_all(cpu: Cpu, cpus: int) -> list[Record]:
    """Every CPU's record, in one access per 4 KiB."""
    data = await cpu.load_block(RECORDS, cpus * RECORD_SIZE)
    return [Record._make(_FORMAT.unpack_from(data, n * RECORD_SIZE)) for n in range(cpus)]


async def poll(cpu: Cpu, cpus: int, done: Callable[[list[Record]], bool], limit: int) -> bool:
    """Read all records until `done`, with a growing period, for at most `limit` ps; returns whether it was."""
    period, waited = POLL_FIRST, 0
    while not done(await read_all(cpu, cpus)):
        if waited >= limit:
            return False
        await cpu.delay(period)
        waited += period
        period = min(2 * period, POLL_LAST)
    return True
