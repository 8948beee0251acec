"""Topologies become plans: RD-N2-Cfg1's real numbers, determinism, and a resolved file that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosim.api import Node, Wire
from cosim.core.plan import NodePlan, Plan
from cosim.core.time import ns, us
from cosim.topo.catalogue import Catalogue
from cosim.topo.errors import TopologyErrors
from cosim.topo.load import load, load_text
from cosim.topo.resolve import Resolved, describe, resolve
from cosim.topo.schema import json_schema

TOPOLOGIES = Path(__file__).resolve().parents[3] / "topologies"


class Gate(Node):
    """A model that topologies below name."""

    kind = "gate"
    a = Wire()
    b = Wire()


HERE = f"{__name__}:Gate"


def shipped(name: str, **sets: str) -> Resolved:
    return resolve(load(TOPOLOGIES / f"{name}.yaml"), sets=sets)


def node(plan: Plan, name: str) -> NodePlan:
    return next(n for n in plan.nodes if n.name == name)


def links(plan: Plan) -> dict[str, tuple[int, dict[str, Any]]]:
    """(latency, attributes) of one-way links by "node.port -> node.port"."""
    names = {n.id: n.name for n in plan.nodes}
    return {
        f"{names[k.src]}.{k.src_port} -> {names[k.dst]}.{k.dst_port}": (k.latency, k.attributes) for k in plan.links
    }


def test_rdn2cfg1_has_its_nodes() -> None:
    """8 PEs and redistributors, 3 ITSs, one of each other kind; ids by sorted name; one worker each."""
    plan = shipped("rdn2cfg1").plan
    kinds = [n.kind for n in plan.nodes]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "pe": 8,
        "redistributor": 8,
        "distributor": 1,
        "its": 3,
        "smmu": 1,
        "smmute": 1,
        "pcie": 1,
        "memory": 1,
        "hypervisor": 1,
    }
    assert [n.name for n in plan.nodes] == sorted(n.name for n in plan.nodes)
    assert [n.id for n in plan.nodes] == list(range(25))
    assert plan.groups == tuple((i,) for i in range(25))
    assert plan.tests == ("vsgi.ipi", "vlpi.smmute")
    assert (plan.seed, plan.until) == (1, None)


def test_rdn2cfg1_has_its_real_addresses() -> None:
    """What the hypervisor sees, from the public firmware of the platform."""
    plan = shipped("rdn2cfg1").plan
    names = {n.id: n.name for n in plan.nodes}
    seen = {(r.base, r.size, names[plan.links[r.link].dst], r.offset) for r in node(plan, "hypervisor").maps["bus"]}
    assert seen == {
        (0x3000_0000, 0x1_0000, "distributor", 0),
        (0x3004_0000, 0x4_0000, "its0", 0),
        (0x3008_0000, 0x4_0000, "its1", 0),
        (0x300C_0000, 0x4_0000, "its2", 0),
        *((0x3010_0000 + n * 0x4_0000, 0x4_0000, f"redistributor{n}", 0) for n in range(8)),
        (0x4000_0000, 0x2_0000, "smmu0", 0),
        (0x8000_0000, 0x7EF0_0000, "memory", 0x8000_0000),
        (0x6000_0000, 0x1000_0000, "pcie", 0x6000_0000),
        (0x10_1000_0000, 0x1000_0000, "pcie", 0),
        (0x40_0000_0000, 0x40_0000_0000, "pcie", 0x40_0000_0000),
        (0x80_8000_0000, 0x1_8000_0000, "memory", 0x80_8000_0000),
    }
    [whole] = node(plan, "smmute").maps["dma1"]
    assert (whole.base, whole.size, whole.offset) == (0, 1 << 48, 0)


def test_rdn2cfg1_tells_blocks_who_they_are() -> None:
    """Parameters and link attributes: affinities, StreamIDs, DeviceIDs that no two ITSs share."""
    plan = shipped("rdn2cfg1").plan
    assert node(plan, "pe7").params["mpidr"] == 0x8107_0000
    assert node(plan, "redistributor7").params["affinity"] == 0x0007_0000
    assert [node(plan, f"redistributor{n}").params["last"] for n in range(8)] == [False] * 7 + [True]
    assert node(plan, "distributor").params["affinities"] == [n << 16 for n in range(8)]
    found = links(plan)
    assert found["smmute.dma1 -> smmu0.upstream"] == (ns(250), {"stream_id": 0x30801})
    assert found["smmu0.upstream -> smmute.dma1"] == (ns(250), {})
    msi = [found[f"smmu0.msi -> its{n}.msi"][1] for n in range(3)]
    assert [m["translater"] for m in msi] == [0x3005_0040, 0x3009_0040, 0x300D_0040]
    ranges = sorted(r for m in msi for r in m["device_ids"])
    assert ranges[0] == [0x30000, 0x308FF]
    assert ranges[-1] == [0x80000, 0x80000]
    assert all(a[1] < b[0] for a, b in zip(ranges, ranges[1:], strict=False))


def test_rdn2cfg1_has_its_latencies() -> None:
    """Each kind of link has the default of the timing table; --set changes it; spans reach models as picoseconds."""
    found = links(shipped("rdn2cfg1").plan)
    assert found["pe3.gic -> redistributor3.cpu"][0] == ns(5)
    assert found["its2.net -> redistributor7.net"][0] == found["redistributor0.net -> distributor.net"][0] == ns(20)
    assert found["hypervisor.bus -> its0.regs"][0] == found["smmu0.msi -> its0.msi"][0] == ns(40)
    assert found["pe0.bus -> memory.bus"][0] == found["memory.bus -> its1.bus"][0] == ns(60)
    assert found["pe0.bus -> pcie.mmio"][0] + found["pcie.link0 -> smmute.mmio"][0] == ns(250)
    assert found["hypervisor.bus -> pcie.ecam"][0] == ns(100)
    assert found["pe0.trap -> hypervisor.trap"][0] == found["hypervisor.trap -> pe0.trap"][0] == ns(300)
    assert found["hypervisor.power -> memory.power"][0] == us(1)
    slow = shipped("rdn2cfg1", t_memory="1us", t_engine="2us")
    assert links(slow.plan)["pe0.bus -> memory.bus"][0] == us(1)
    assert node(slow.plan, "smmute").params["engine_latency"] == us(2)


def test_parameters_are_typed_and_follow_each_other() -> None:
    """vcpus follows pes unless set; values arrive at the hypervisor; the plan lists them all."""
    resolved = shipped("rdn2cfg1", pes="4", nassgireq="false", smmute_size="0x200", **{"break": "discard"})
    params = node(resolved.plan, "hypervisor").params
    assert (params["pes"], params["vcpus"], params["nassgireq"], params["smmute_size"]) == (4, 4, False, 0x200)
    assert params["break"] == "discard"
    assert resolved.parameters["vcpus"] == 4
    assert resolved.plan.parameters == resolved.parameters
    assert len(params["mpidrs"]) == 4
    assert set(shipped("rdn2cfg1").parameters) >= {
        *("pes", "gic_version", "vgic_v4_enable", "nassgireq", "vcpus", "guest_wait", "smmute_size"),
        *("smmute_transactions", "break", "t_pe_rd", "t_gic", "t_pe_gic", "t_memory", "t_smmu_its", "t_pcie", "t_trap"),
    }


def test_programs_reach_the_pes_as_import_paths() -> None:
    """Workers need not look entry points up: models and programs are import paths in the plan."""
    plan = shipped("tiny").plan
    assert node(plan, "pe0").model == "nodes.pe.model:Pe"
    assert node(plan, "pe0").params["programs"]["ipi"] == "nodes.software.ipi:program"


def test_chosen_tests_reach_plan_and_software() -> None:
    """--test keeps those named, in the order of the file."""
    source = load(TOPOLOGIES / "tiny.yaml")
    plan = resolve(source, sets={}, tests=["vlpi.smmute"], seed=7, until="5ms").plan
    assert plan.tests == ("vlpi.smmute",)
    assert node(plan, "hypervisor").params["tests"] == ["vlpi.smmute"]
    assert (plan.seed, plan.until) == (7, 5_000_000_000)


@pytest.mark.parametrize("name", ["rdn2cfg1", "tiny"])
@pytest.mark.parametrize("sets", [{}, {"pes": "1"}, {"t_pcie": "77ps", "stream_to_device": "0x1000"}])
def test_the_resolved_file_says_the_same(name: str, sets: dict[str, str]) -> None:
    """The topology without templates loads to the same plan, and resolving that changes nothing any more."""
    first = shipped(name, **sets)
    again = resolve(load_text(first.topology_yaml, "resolved.yaml"), sets={})
    assert again.plan == first.plan
    assert again.topology_yaml == first.topology_yaml
    assert "${" not in first.topology_yaml.replace("$${", "")


@pytest.mark.parametrize("workers", ["per-node", "auto", "0", "1", "3", "99"])
def test_placement_changes_groups_only(workers: str) -> None:
    """Nodes, links and parameters are the same for every --workers; each node is hosted once."""
    source = load(TOPOLOGIES / "tiny.yaml")
    plan = resolve(source, sets={}, workers=workers).plan
    assert plan._replace(groups=()) == resolve(source, sets={}).plan._replace(groups=())
    assert sorted(n for group in plan.groups for n in group) == [n.id for n in plan.nodes]


def test_a_plan_is_plain_data() -> None:
    """It survives JSON, and the wire to each worker."""
    plan = shipped("tiny").plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert len(plan.worker_plan(0, {}).to_msgpack()) > 100


def test_the_schema_file_is_current() -> None:
    """topologies/topology.schema.json is what ``python -m cosim.topo.schema`` prints."""
    assert (TOPOLOGIES / "topology.schema.json").read_text(encoding="utf-8") == json_schema()


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_topologies_name_their_schema(path: Path) -> None:
    """Editors find the schema by the first line."""
    assert path.read_text(encoding="utf-8").splitlines()[0] == "# yaml-language-server: $schema=topology.schema.json"


def test_the_description_shows_the_machine() -> None:
    """Nodes, address map per initiator and links with latencies are in the text of `cosim check`."""
    text = describe(shipped("tiny"))
    assert "tiny: 10 nodes" in text
    assert "0x80000000    0x8fffffff    dram0       memory.bus           0x80000000    60ns" in text
    assert "pe0.gic <-> redistributor0.cpu 5ns" in " ".join(text.split())
    assert "t_pcie               250ns" in text


# -- models ------------------------------------------------------------------------------------------------------------

PAIR = """
name: pair
parameters:
  far: {type: span, default: 5ns}
system:
  nodes:
    - {name: "gate${i}", kind: gate, count: 2, params: {n: "${i}", text: "$${i}"}, reaction: 3ps}
  links:
    - {from: gate0.a, to: gate1.b, latency: "${far}"}
models: {gate: "%s"}
"""


def gates(allow: tuple[str, ...] = (), model: str = HERE, catalogue: Catalogue | None = None) -> Resolved:
    return resolve(load_text(PAIR % model, "pair.yaml"), sets={}, allow_models=allow, catalogue=catalogue)


def test_a_dotted_model_needs_permission() -> None:
    """A class is loaded only from packages that the command line allows, whole names only."""
    for allow in ((), (__name__[:-1],), (__name__ + ".more",)):
        with pytest.raises(TopologyErrors) as caught:
            gates(allow)
        assert [e.code for e in caught.value.errors] == ["model-refused"]
    plan = gates((__name__,)).plan
    assert {n.model for n in plan.nodes} == {HERE}
    assert [(n.params, n.reaction) for n in plan.nodes] == [
        ({"n": 0, "text": "${i}"}, 3),
        ({"n": 1, "text": "${i}"}, 3),
    ]
    again = resolve(load_text(gates((__name__,)).topology_yaml, "r"), sets={}, allow_models=[__name__])
    assert again.plan == plan


def test_a_refused_model_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is never given to the import system."""
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(TopologyErrors, match="must come from an allowed package"):
        gates(model="antigravity:Gate")


def test_only_node_classes_are_models() -> None:
    """An allowed path that is not a Node is an error before any process starts."""
    with pytest.raises(TopologyErrors, match="not a subclass of cosim.api.Node"):
        gates((__name__,), f"{__name__}:NODE_NOT")


NODE_NOT = 3


def test_without_entry_points_the_text_says_what_to_install() -> None:
    """In a plain checkout there are no kinds: one error, with the command that installs them."""
    with pytest.raises(TopologyErrors) as caught:
        resolve(load(TOPOLOGIES / "tiny.yaml"), sets={}, catalogue=Catalogue())
    assert {e.code for e in caught.value.errors} == {"not-installed"}
    assert len(caught.value.errors) == 2
    assert all("pip install -e ." in e.next_step for e in caught.value.errors)


def test_the_topologys_own_workers_hold_when_none_are_asked_for() -> None:
    """`deploy` gives the number of workers and who stays together."""
    text = PAIR % HERE + "deploy: {workers: 1, together: [[gate0, gate1]]}\n"
    source = load_text(text, "pair.yaml")
    assert resolve(source, sets={}, workers=None, allow_models=[__name__]).plan.groups == ((0, 1),)
    assert resolve(source, sets={}, workers="2", allow_models=[__name__]).plan.groups == ((0,), (1,))
    assert resolve(source, sets={}, workers=None, allow_models=[__name__]).workers == "1"


def test_errors_come_in_the_order_of_the_file() -> None:
    """All of them in one exception with exit code 2, sorted by place."""
    text = "name: n\nname: m\nsystem:\n  nodes:\n    - {name: a, kind: gate, count: no}\n    - {name: b, kynd: 1, kind: memroy}\n"
    with pytest.raises(TopologyErrors) as caught:
        resolve(load_text(text, "f"), sets={"x": "1"})
    assert caught.value.exit_code == 2
    assert [e.where for e in caught.value.errors] == ["--set x", "f:2:1", "f:5:36", "f:6:17", "f:6:32"]
    assert str(caught.value).count("next:") >= 4


@pytest.mark.parametrize(("base", "overlaps"), [(0x1000, False), (0xFFF, True), (0, True)])
def test_regions_may_touch_but_not_overlap(base: int, overlaps: bool) -> None:
    """Adjacent regions are right; one common byte is an overlap, whichever was written first."""
    regions = f"{{high: {{base: {base}, size: 4KiB, to: memory.bus}}, low: {{base: 0, size: 4KiB, to: memory.bus}}}}"
    text = (
        "name: n\nsystem:\n  nodes: [{name: memory, kind: memory}, {name: pe0, kind: pe}]\n"
        f"  regions: {regions}\n  maps: [{{from: pe0.bus, sees: [{{regions: [high, low], latency: 1ns}}]}}]\n"
    )
    if overlaps:
        with pytest.raises(TopologyErrors, match="overlaps"):
            resolve(load_text(text, "f"), sets={})
    else:
        assert len(resolve(load_text(text, "f"), sets={}).plan.nodes) == 2


def test_a_map_may_see_one_region_of_several() -> None:
    """A key as written means all regions that it makes; a text that isn't a key names one of them, or none and is refused."""
    text = (
        "name: n\nsystem:\n  nodes: [{name: 'memory${i}', kind: memory, count: 2}, {name: 'pe${i}', kind: pe, count: 2}]\n"
        "  regions: {'r${k}': {for: {k: 2}, base: 0, size: 4KiB, to: 'memory${k}.bus'}}\n"
        "  maps: [{from: 'pe${n}.bus', for: {n: 2}, sees: [{regions: ['r${n + OFF}'], latency: 1ns}]}]\n"
    )
    plan = resolve(load_text(text.replace("OFF", "0"), "f"), sets={}).plan
    links = {link.id: plan.nodes[link.dst].name for link in plan.links}
    seen = {node.name: [links[r.link] for r in node.maps["bus"]] for node in plan.nodes if node.kind == "pe"}
    assert seen == {"pe0": ["memory0"], "pe1": ["memory1"]}
    with pytest.raises(TopologyErrors, match="is not known"):
        resolve(load_text(text.replace("OFF", "1"), "f"), sets={})


def test_a_rule_of_placement_must_match_a_node() -> None:
    """A pattern in `deploy: place` that no node has is an error with its place, one per rule; with a right one there is none."""
    text = PAIR % HERE + (
        "deploy:\n  hosts: {near: {}, far: {}}\n  place:\n"
        "    - {nodes: 'gate0', host: near}\n    - {nodes: 'gaet*', host: far}\n    - {nodes: 'gate[2-9]', host: far}\n"
    )
    with pytest.raises(TopologyErrors) as caught:
        resolve(load_text(text, "pair.yaml"), sets={}, allow_models=[__name__])
    line = text[: text.index("'gaet*'")].count("\n") + 1
    assert [(e.code, e.where.rpartition(":")[0]) for e in caught.value.errors] == [
        ("unknown-node", f"pair.yaml:{line}"),
        ("unknown-node", f"pair.yaml:{line + 1}"),
    ]
    assert "'gaet*'" in caught.value.errors[0].what and "'gate" in caught.value.errors[0].next_step
    right = text.replace("gaet*", "gate1").replace("gate[2-9]", "gate?")
    assert len(resolve(load_text(right, "pair.yaml"), sets={}, allow_models=[__name__]).plan.hosts) == 2
