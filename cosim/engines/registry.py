"""The engines by name. Each is imported when it is asked for: a run on this machine loads none of the others."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from cosim.engines.base import Engine
from cosim.errors import UsageError

ENGINES = {
    "local": "cosim.engines.local:LocalEngine",
    "ssh": "cosim.engines.ssh:SshEngine",
    "dask": "cosim.engines.dask:DaskEngine",
    "slurm": "cosim.engines.slurm:SlurmEngine",
    "k8s": "cosim.engines.k8s:K8sEngine",
}
"""Name -> class, constructed with (folder, options)."""


def make_engine(name: str, folder: Path, options: Mapping[str, str]) -> Engine:
    """An engine.

    Args:
        name: one of `ENGINES`.
        folder: in the run directory; the engine makes it (mode 0700) and keeps logs and, for some engines, credentials there.
        options: texts by name; see the engine's dataclass of options.

    Raises:
        UsageError: no such engine, or an option that is wrong.
    """
    if name not in ENGINES:
        raise UsageError(
            f"engine must be one of {', '.join(ENGINES)}, not {name!r}", code="engine", next_step="leave --engine out"
        )
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(folder, options)
    return engine
