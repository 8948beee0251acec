"""What the broken nodes are made of: the engine of examples/python_node, to which each does one thing wrong."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "python_node"))

from engine import CTRL, PORTS, STATUS, Engine, main  # type: ignore[import-not-found]

__all__ = ["CTRL", "Engine", "PORTS", "STATUS", "main"]
