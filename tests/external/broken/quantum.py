"""Its clock has a period of 7 ns, which divides no latency.

Case: partition: far
"""

from __future__ import annotations

from base import PORTS, Engine

from cosim.attach.client import AttachClient


def clocked():
    """Serve, were it not for the period."""
    with AttachClient.from_env(ports=PORTS, quantum_ps=7000) as node:
        engine = Engine(node)
        for grant in node:
            engine.run(grant)
    return 0


if __name__ == "__main__":
    raise SystemExit(clocked())
