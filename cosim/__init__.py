"""cosim: co-simulation of hardware and system software as communicating, deterministic nodes.

Importing this package loads nothing else: a worker pays only for what it uses (PEP 562). The names
below are looked up on first use:

- ``launch(topology, ...)``: async context manager that starts a run;
- ``run(topology, ...)``: its blocking form, for scripts and notebooks;
- the errors of :mod:`cosim.errors`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:  # not typing.TYPE_CHECKING: importing cosim loads no module at all
    from cosim.errors import (
        CosimError,
        DeadlockError,
        InternalError,
        Interrupted,
        NodeError,
        PeerError,
        TopologyError,
        UsageError,
    )
    from cosim.run.api import launch, run

__version__ = "0.1.0"

_WHERE = {
    "CosimError": "cosim.errors",
    "DeadlockError": "cosim.errors",
    "InternalError": "cosim.errors",
    "Interrupted": "cosim.errors",
    "NodeError": "cosim.errors",
    "PeerError": "cosim.errors",
    "TopologyError": "cosim.errors",
    "UsageError": "cosim.errors",
    "launch": "cosim.run.api",
}

__all__ = [
    "CosimError",
    "DeadlockError",
    "InternalError",
    "Interrupted",
    "NodeError",
    "PeerError",
    "TopologyError",
    "UsageError",
    "__version__",
    "launch",
    "run",
]


def __getattr__(name: str) -> object:
    """Import the module that defines `name` on first use; AttributeError for any other name."""
    from importlib import import_module

    if name == "run":  # the package of that name, which is callable: see cosim/run/__init__.py
        return import_module("cosim.run")
    home = _WHERE.get(name)
    if home is None:
        raise AttributeError(f"module 'cosim' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
