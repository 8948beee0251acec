"""A 16550A UART as kvmtool gives it to guests: output only, always ready (hw/serial.c's registers).

What is written to THR goes to `output` as text; UTF-8 sequences may be split over writes. A block write at THR is as many
characters as it has bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

RBR_THR: Final = 0
IER: Final = 1
IIR_FCR: Final = 2
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
MSR: Final = 6
SCR: Final = 7
LCR_DLAB: Final = 0x80
LSR_EMPTY: Final = 0x60
IIR_NONE: Final = 0x01
MSR_READY: Final = 0xB0
"""DCD, DSR and CTS."""


class Uart:
    """One UART; `output(text)` gets what the guest writes."""

    def __init__(self, output: Callable[[str], None]) -> None:
        self._output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._registers = {IER: 0, LCR: 0, MCR: 0, SCR: 0}
        self._divisor = [12, 0]

    @property
    def _latch(self) -> bool:
        return bool(self._registers[LCR] & LCR_DLAB)

    def read(self, offset: int) -> int:
        """A register's value (one byte)."""
        if self._latch and offset in (RBR_THR, IER):
            return self._divisor[offset]
        if offset in self._registers:
            return self._registers[offset]
        return {IIR_FCR: IIR_NONE, LSR: LSR_EMPTY, MSR: MSR_READY}.get(offset, 0)

    def write(self, offset: int, data: bytes) -> None:
        """A register's write; more than one byte only makes sense at THR."""
        if self._latch and offset in (RBR_THR, IER):
            self._divisor[offset] = data[0]
        elif offset == RBR_THR:
            text = self._decoder.decode(data)
            if text:
                self._output(text)
        elif offset in self._registers:
            self._registers[offset] = data[0]
