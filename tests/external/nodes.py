"""Where the example nodes are, and how a test builds and runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.components import lacking

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
ENGINE_STIMULUS = EXAMPLES / "python_node" / "engine.yaml"
HEADER = ROOT / "cosim" / "attach"


def plain_yaml(path: Path) -> Any:
    """The content of a YAML file."""
    return YAML(typ="safe", pure=True).load(path)


def need_compiler(name: str = "gcc") -> str:
    """A compiler with libzmq's header, or the test is skipped."""
    if missing := lacking(name, "/usr/include/zmq.h"):
        pytest.skip(missing)
    return str(shutil.which(name))


def build(source: Path, target: Path, *flags: str, compiler: str = "gcc") -> Path:
    """Compile a C or C++ node with warnings as errors."""
    command = [
        need_compiler(compiler),
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{HEADER}",
        *flags,
        str(source),
        "-o",
        str(target),
        "-lzmq",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return target
