"""scale.yaml with work on each PE: a millisecond of CPU time per message, as the quantum of an instruction-set simulator.

A guest of 32 vCPUs on 32 PEs broadcasts SGIs, which all others take at once; one worker does the PEs' work one by one, two side
by side, as far as the hypervisor, the distributor and the sender do not keep them waiting. Operation: an SGI acknowledged by
the guest.
"""

from __future__ import annotations

from cosim.bench.harness import FAST, Case
from cosim.bench.interrupts import machine, paired
from cosim.core.plan import Plan

MODEL = "nodes.pe.working:WorkingPe"
STORM = ("nodes.software.sgi_storm:short", "nodes.software.sgi_storm:middle")
ROWS = [(32, "1", FAST), (32, "2", FAST)]
"""(PEs, workers, link) of the rows shown when nothing is asked for."""


def case(pes: int, workers: str, link: str, operations: int = 0) -> Case:
    """One row; how many interrupts there are is fixed."""
    few, many = (_working(machine("vsgi", pes, workers, program, vcpus=pes)) for program in STORM)
    return paired("working", "vsgi", (few, many), pes, workers, link)


def _working(plan: Plan) -> Plan:
    """The plan with working PEs."""
    return plan._replace(nodes=tuple(n._replace(model=MODEL) if n.kind == "pe" else n for n in plan.nodes))
