"""What tests need of the machine beyond Python's packages, and what a test says that is skipped for want of it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

PACKAGES = {
    "gcc": "gcc", "g++": "g++", "clang": "clang", "clang++": "clang", "iverilog": "iverilog", "verilator": "verilator",
    "/usr/include/zmq.h": "libzmq3-dev", "/usr/include/systemc": "libsystemc-dev",
}  # fmt: skip
"""Debian package of a program, or of a file."""
MODULES = {"cocotb": "cocotb", "verilator module": "verilator"}
"""Python packages of the extra `rtl`."""


def lacking(*names: str) -> str:
    """ "needs ..." with those of the components that are not here; "" if all are. "one or other" is either."""
    missing = [text for name in names if (text := _missing(name))]
    return f"needs {', '.join(missing)}" if missing else ""


def _missing(name: str) -> str:
    texts = [_absent(each) for each in name.split(" or ")]
    return " or ".join(texts) if all(texts) else ""


def _absent(name: str) -> str:
    if name in MODULES:
        module = MODULES[name]
        return "" if importlib.util.find_spec(module) else f"the Python package {module} (extra `rtl`)"
    found = Path(name).exists() if name.startswith("/") else shutil.which(name) is not None
    return "" if found else f"{name} (Debian package {PACKAGES[name]})"
