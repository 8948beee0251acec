"""W6 interrupts delivered per second, end to end: from a device's MSI write, or a guest's SGI, to the guest's acknowledge.

The machine is that of `cosim up`. Two runs differ in nothing but the number of interrupts (transactions of the SMMUv3 test
engine; rounds of SGIs), and what they differ by, in wall time and in CPU time of all processes, is the cost of the
interrupts between: boot and set-up fall out. Operation: an interrupt acknowledged by the guest.
"""

from __future__ import annotations

from cosim.bench.harness import FAST, IN_PROCESS, MEMORY, PER_NODE, Case, Reading, Sample, run_plan
from cosim.core.plan import Plan
from cosim.errors import CosimError

UNIT = "interrupts/s"
ROWS = [
    (8, PER_NODE, FAST),
    (8, "2", FAST),
    (256, "2", FAST),
    (512, "auto", FAST),
    (8, IN_PROCESS, MEMORY),
    (256, IN_PROCESS, MEMORY),
]
"""(PEs, workers, link) of the rows shown when nothing is asked for, for each kind of interrupt."""
KINDS = ("vlpi", "vsgi")
CFG1_PES = 8
"""More PEs than that are a machine of their own, scale.yaml."""
VCPUS = 8
"""At most, so that machines of different sizes do the same work."""
TRANSACTIONS = (20, 220)
ATTEMPTS = 3
"""On a busy machine the noise of two runs may be more than their difference."""
STORM = ("nodes.software.sgi_storm:short", "nodes.software.sgi_storm:long")
TESTS = {"vlpi": "vlpi.smmute", "vsgi": "vsgi.ipi"}


def machine(kind: str, pes: int, workers: str, many: bool | str, vcpus: int = VCPUS) -> Plan:
    """The plan of a run with few or with many interrupts, of vSGIs also by the name of the program that sends them.

    Raises:
        TopologyError: there is no machine of so many PEs.
    """
    from cosim.topo.find import find_topology
    from cosim.topo.load import load
    from cosim.topo.resolve import resolve

    sets = {"pes": str(pes), "vcpus": str(min(pes, vcpus))}
    if kind == "vlpi":
        sets["smmute_transactions"] = str(TRANSACTIONS[bool(many)])
    topology = find_topology("rdn2cfg1" if pes <= CFG1_PES else "scale")
    plan = resolve(load(topology), sets=sets, tests=(TESTS[kind],), workers=workers).plan
    return plan if kind == "vlpi" else _with_storm(plan, many if isinstance(many, str) else STORM[many])


def _with_storm(plan: Plan, program: str) -> Plan:
    """The plan with another program in place of the ipi test."""
    nodes = [
        n._replace(params={**n.params, "programs": {**n.params["programs"], "ipi": program}})
        if "programs" in n.params
        else n
        for n in plan.nodes
    ]
    return plan._replace(nodes=tuple(nodes))


def delivered(sample: Sample, kind: str) -> int:
    """Interrupts of that kind that guests have acknowledged."""
    ending = f".{kind}_delivered"
    return sum(value for name, value in sample.result["counters"].items() if name.endswith(ending))


def case(pes: int, workers: str, link: str, operations: int = 0, kind: str = "vlpi") -> Case:
    """One row; how many interrupts there are is fixed."""
    few, many = (machine(kind, pes, workers, many) for many in (False, True))
    return paired(f"interrupts-{kind}", kind, (few, many), pes, workers, link)


def paired(name: str, kind: str, plans: tuple[Plan, Plan], pes: int, workers: str, link: str) -> Case:
    """A row measured by two runs: with few interrupts of that kind, and with many."""
    few_plan, many_plan = plans

    warm: list[float] = []

    def run(case: Case) -> Reading:
        if not warm:  # what is imported and compiled once is no part of the difference
            warm.append(run_plan(few_plan, workers, case.link).total_s)
        for _ in range(ATTEMPTS):
            few, many = (run_plan(plan, workers, case.link) for plan in (few_plan, many_plan))
            count = delivered(many, kind) - delivered(few, kind)
            wall = (many.total_s - many.running_s) - (few.total_s - few.running_s)
            cpu = many.total_cpu_s - few.total_cpu_s
            if min(count, wall, cpu) > 0:
                break
        else:
            raise CosimError(
                f"more {kind}s must be delivered and take more time, not {count} in {wall:.3f} s ({cpu:.3f} s of CPU), in "
                f"{ATTEMPTS} attempts (the run ended as {many.result['status']!r})",
                code="bench",
                next_step="measure again when the machine is less busy",
            )
        return Reading(
            rate=count / wall,
            cpu_s=cpu / count,
            digest=many.result["digest"],
            extra={
                "pes": pes,
                "interrupts": count,
                "events_per_op": (many.result["events"] - few.result["events"]) / count,
                "messages_per_op": (many.result["messages"] - few.result["messages"]) / count,
                "grants_per_op": (many.result["grants"] - few.result["grants"]) / count,
            },
        )

    link = MEMORY if workers == IN_PROCESS else link
    return Case(name, len(many_plan.nodes), workers, link, UNIT, run, TRANSACTIONS[1])
