"""For the authors of models: drive nodes in one process, without sockets; see docs/writing-a-node.md."""

from cosim.testing.bench import Bench, Probe, Received

__all__ = ["Bench", "Probe", "Received"]
