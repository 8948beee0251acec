"""Plans survive JSON and the wire, and give each worker what it has to know."""

import json

from cosim.core.plan import LinkPlan, NodePlan, Plan, RegionPlan, WorkerPlan


def example() -> Plan:
    """Three nodes in two workers: cpu and ram together, dma alone."""
    ram = RegionPlan(0x8000_0000, 0x1000, 0, 0x8000_0000, "ram")
    return Plan(
        name="example",
        seed=3,
        nodes=(
            NodePlan(0, "cpu", "pe", {"index": 0}, 0, {"bus": (ram,)}, "m:Cpu"),
            NodePlan(1, "dma", "dma", {}, 7, {}, "m:Dma"),
            NodePlan(2, "ram", "memory", {}, 0, {}, "m:Ram"),
        ),
        links=(
            LinkPlan(0, 0, "bus", 2, "bus", 10),
            LinkPlan(1, 2, "bus", 0, "bus", 10),
            LinkPlan(2, 1, "bus", 2, "bus", 20, {"stream_id": 5}),
        ),
        groups=((0, 2), (1,)),
        tests=("t",),
        parameters={"pes": 1},
        until=1000,
    )


def test_a_plan_survives_json() -> None:
    """to_dict, through JSON, from_dict gives an equal plan."""
    assert Plan.from_dict(json.loads(json.dumps(example().to_dict()))) == example()


def test_a_worker_gets_its_nodes_and_the_links_that_touch_them() -> None:
    """A worker plan has the hosted nodes, their links, and of the far ends only name, worker and reaction."""
    plan = example().worker_plan(0, {1: 30})
    assert [n.name for n in plan.nodes] == ["cpu", "ram"]
    assert [k.id for k in plan.links] == [0, 1, 2]
    assert plan.names == {0: "cpu", 1: "dma", 2: "ram"}
    assert plan.worker_of == {0: 0, 1: 1, 2: 0}
    assert plan.reactions == {1: 7}
    assert WorkerPlan.from_msgpack(plan.to_msgpack()) == plan


def test_distances_come_from_the_links() -> None:
    """A plan's distances are those of its links."""
    distances = example().distances()
    assert distances.dist(1, 2) == 20
    assert distances.dist(1, 0) == 30
