"""Random commands and events against a model of dictionaries."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.arch.its_commands import encode
from tests.machine.its_bench import CTLR, DEV, DEV2, ITT, RDS, ItsBench, Sent

DEVICES = (DEV, DEV2, 0x5_0000)
"""The last one has no level-1 page."""
LPIS = (8191, 8192, 8200, 0xFFFF, 0x1_0000)
NONE = 1023
COLLECTION_BITS = VPE_BITS = 2

rds = st.integers(0, RDS)
icids = st.integers(0, 4)
vpeids = st.integers(0, 4)
events = st.integers(0, 9)
devices = st.sampled_from(DEVICES)


def command(name: str, **fields: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[str, dict[str, int]]]:
    """A command with random fields."""
    return st.tuples(st.just(name), st.fixed_dictionaries(fields))


EVENT: dict[str, st.SearchStrategy[int]] = {"device_id": devices, "event_id": events}
BIT = st.integers(0, 1)
steps = st.one_of(
    command("MAPD", device_id=devices, size=st.sampled_from([0, 2, 3, 16]), valid=st.sampled_from([0, 1, 1, 1])),
    command("MAPC", icid=icids, rdbase=rds, valid=st.sampled_from([0, 1, 1, 1])),
    command("MAPTI", **EVENT, pintid=st.sampled_from(LPIS), icid=icids),
    command("VMAPTI", **EVENT, vintid=st.sampled_from(LPIS), vpeid=vpeids),
    command("MOVI", **EVENT, icid=icids),
    command("VMOVI", **EVENT, vpeid=vpeids),
    command("VMAPP", vpeid=vpeids, rdbase=rds, valid=st.sampled_from([0, 1, 1]), alloc=st.just(1)),
    command("VMOVP", vpeid=vpeids, rdbase=rds),
    *[command(name, **EVENT) for name in ("INT", "CLEAR", "DISCARD", "INV")],
    command("INVALL", icid=icids),
    command("SYNC", rdbase=rds),
    command("VSYNC", vpeid=vpeids),
    command("VSGI", vpeid=vpeids, sgi=st.integers(0, 15), clear=BIT),
    command("msi", **EVENT),
    command("sgir", vpeid=vpeids, sgi=st.integers(0, 15)),
    command("restart"),
)


class Wrong(Exception):
    """The command is wrong, or the event is dropped."""


@dataclasses.dataclass
class Model:
    """What the commands mean, without memory, time or caches."""

    sizes: dict[int, int] = dataclasses.field(default_factory=dict)
    events: dict[tuple[int, int], tuple[bool, int, int]] = dataclasses.field(default_factory=dict)
    collections: dict[int, int] = dataclasses.field(default_factory=dict)
    vpes: dict[int, int] = dataclasses.field(default_factory=dict)

    def run(self, name: str, f: dict[str, int]) -> list[Sent]:
        """Messages of one step; raises Wrong."""
        sent: list[Sent] = []
        handler = getattr(self, "do_" + name.lower(), None)
        if handler is None:
            return self.on_interrupt(name, f)
        handler(f, sent)
        return sent

    def check_event(self, f: dict[str, int]) -> tuple[int, int]:
        size = self.sizes.get(f["device_id"])
        if size is None or f["event_id"] >= 2 << size:
            raise Wrong
        return f["device_id"], f["event_id"]

    def find(self, f: dict[str, int]) -> tuple[bool, int, int]:
        entry = self.events.get(self.check_event(f))
        if entry is None:
            raise Wrong
        return entry

    def home(self, table: dict[int, int], number: int) -> int:
        if number not in table:
            raise Wrong
        return table[number]

    def on_interrupt(self, name: str, f: dict[str, int]) -> list[Sent]:
        physical, intid, target = self.find(f)
        rd = self.home(self.collections if physical else self.vpes, target)
        verb = {"INT": "Set", "msi": "Set", "CLEAR": "Clear", "DISCARD": "Clear", "INV": "Inv"}[name]
        if name == "DISCARD":
            del self.events[self.check_event(f)]
        if physical:
            return [(rd, f"{verb}Lpi", (intid,))]
        return [(rd, f"{verb}Vlpi", (target, intid, NONE) if verb == "Set" else (target, intid))]

    def do_mapd(self, f: dict[str, int], sent: list[Sent]) -> None:
        device = f["device_id"]
        if device == DEVICES[2] or (f["valid"] and f["size"] == 16):
            raise Wrong
        self.events = {key: value for key, value in self.events.items() if key[0] != device}
        self.sizes.pop(device, None)
        if f["valid"]:
            self.sizes[device] = f["size"]

    def do_mapc(self, f: dict[str, int], sent: list[Sent]) -> None:
        if f["icid"] >> COLLECTION_BITS or (f["valid"] and f["rdbase"] >= RDS):
            raise Wrong
        self.collections.pop(f["icid"], None)
        if f["valid"]:
            self.collections[f["icid"]] = f["rdbase"]

    def do_mapti(self, f: dict[str, int], sent: list[Sent]) -> None:
        key = self.check_event(f)
        if not 8192 <= f["pintid"] < 0x1_0000 or f["icid"] >> COLLECTION_BITS:
            raise Wrong
        self.events[key] = (True, f["pintid"], f["icid"])

    def do_vmapti(self, f: dict[str, int], sent: list[Sent]) -> None:
        key = self.check_event(f)
        if not 8192 <= f["vintid"] < 0x1_0000 or f["vpeid"] not in self.vpes:
            raise Wrong
        self.events[key] = (False, f["vintid"], f["vpeid"])

    def do_movi(self, f: dict[str, int], sent: list[Sent]) -> None:
        physical, intid, old = self.find(f)
        if not physical:
            raise Wrong
        rd = self.home(self.collections, f["icid"])
        self.events[self.check_event(f)] = (True, intid, f["icid"])
        if self.collections.get(old, rd) != rd:
            sent.append((self.collections[old], "MoveLpi", (intid, rd)))

    def do_vmovi(self, f: dict[str, int], sent: list[Sent]) -> None:
        physical, intid, old = self.find(f)
        if physical:
            raise Wrong
        rd = self.home(self.vpes, f["vpeid"])
        self.events[self.check_event(f)] = (False, intid, f["vpeid"])
        if old in self.vpes and old != f["vpeid"]:
            sent.append((self.vpes[old], "MoveVlpi", (old, intid, f["vpeid"], rd, NONE)))

    def do_vmapp(self, f: dict[str, int], sent: list[Sent]) -> None:
        vpeid = f["vpeid"]
        if vpeid >> VPE_BITS or (f["valid"] and f["rdbase"] >= RDS) or not (f["valid"] or vpeid in self.vpes):
            raise Wrong
        if f["valid"] and vpeid in self.vpes:
            raise Wrong  # Alloc=1 of a vPE that has an entry
        if f["valid"]:
            self.vpes[vpeid] = f["rdbase"]
            sent.append((f["rdbase"], "MapVpe", (vpeid, 1, 0, 0, 0, 15, NONE)))
        else:
            sent.append((self.vpes.pop(vpeid), "UnmapVpe", (vpeid, 1)))

    def do_vmovp(self, f: dict[str, int], sent: list[Sent]) -> None:
        old = self.home(self.vpes, f["vpeid"])
        if f["rdbase"] >= RDS:
            raise Wrong
        self.vpes[f["vpeid"]] = f["rdbase"]
        sent.append((old, "MoveVpe", (f["vpeid"], f["rdbase"], 0, NONE)))

    def do_invall(self, f: dict[str, int], sent: list[Sent]) -> None:
        sent.append((self.home(self.collections, f["icid"]), "InvAll", ()))

    def do_sync(self, f: dict[str, int], sent: list[Sent]) -> None:
        if f["rdbase"] >= RDS:
            raise Wrong

    def do_vsync(self, f: dict[str, int], sent: list[Sent]) -> None:
        self.home(self.vpes, f["vpeid"])

    def do_vsgi(self, f: dict[str, int], sent: list[Sent]) -> None:
        rd = self.home(self.vpes, f["vpeid"])
        if f["clear"]:
            sent.append((rd, "ClearVsgi", (f["vpeid"], f["sgi"])))
        else:
            sent.append((rd, "CfgVsgi", (f["vpeid"], f["sgi"], 0, 0, 0)))

    def do_sgir(self, f: dict[str, int], sent: list[Sent]) -> None:
        sent.append((self.home(self.vpes, f["vpeid"]), "SetVsgi", (f["vpeid"], f["sgi"])))

    def do_restart(self, f: dict[str, int], sent: list[Sent]) -> None:
        """Caches are dropped; what is mapped stays mapped."""


def fields_for(name: str, fields: dict[str, int], fresh: int) -> dict[str, int]:
    """Fields of the command as software writes them: a new zeroed ITT for each MAPD, a VPT of 16 bits, no doorbells."""
    if name == "MAPD":
        return fields | {"itt": ITT + fresh * 0x1000}
    if name == "VMAPP":
        return fields | {"vpt_size": 15, "default_doorbell": NONE}
    return fields


def step(bench: ItsBench, name: str, fields: dict[str, Any], fresh: int) -> list[Sent]:
    """Carry out one step of a scenario on the ITS."""
    if name == "msi":
        return bench.msi(fields["device_id"], fields["event_id"])
    if name == "sgir":
        return bench.sgir(fields["vpeid"], fields["sgi"])
    if name == "restart":
        bench.write(CTLR, 0, 4)
        bench.write(CTLR, 1, 4)
        return bench.take()
    return bench.run(encode(name, **fields_for(name, fields, fresh)))


START: list[tuple[str, dict[str, int]]] = [
    ("MAPC", {"icid": 0, "rdbase": 1, "valid": 1}),
    ("VMAPP", {"vpeid": 1, "rdbase": 2, "valid": 1, "alloc": 1}),
    ("MAPD", {"device_id": DEV, "size": 2, "valid": 1}),
    ("MAPTI", {"device_id": DEV, "event_id": 1, "pintid": 8200, "icid": 0}),
    ("VMAPTI", {"device_id": DEV, "event_id": 2, "vintid": 8192, "vpeid": 1}),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=1, max_size=30))
def test_any_sequence_does_what_the_model_says(scenario: list[tuple[str, dict[str, int]]]) -> None:
    """Each step sends the model's messages, or fails as in the model and changes nothing; caches are dropped at random."""
    bench = ItsBench(collection_bits=COLLECTION_BITS, vpe_bits=VPE_BITS).enable()
    model = Model()
    for number, (name, fields) in enumerate(START + scenario):
        errors = bench.count["command_errors"] + bench.count["msi_dropped"] + bench.count["sgir_dropped"]
        try:
            expected, wrong = model.run(name, fields), 0
        except Wrong:
            expected, wrong = [], 1
        assert step(bench, name, fields, number) == expected, (name, fields)
        after = bench.count["command_errors"] + bench.count["msi_dropped"] + bench.count["sgir_dropped"]
        assert after - errors == wrong, (name, fields)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps.filter(lambda s: s[0] not in ("msi", "sgir", "restart")), min_size=1, max_size=40))
def test_one_batch_equals_single_commands(scenario: list[tuple[str, dict[str, int]]]) -> None:
    """Commands queued together do to each redistributor, in its order, what they do one by one."""
    batch, model = ItsBench(collection_bits=COLLECTION_BITS, vpe_bits=VPE_BITS).enable(), Model()
    expected: dict[int, list[Sent]] = {rd: [] for rd in range(RDS)}
    commands, wrong = [], 0
    for number, (name, fields) in enumerate(START + scenario):
        commands.append(encode(name, **fields_for(name, fields, number)))
        try:
            for message in model.run(name, fields):
                expected[message[0]].append(message)
        except Wrong:
            wrong += 1
    sent = batch.run(*commands)
    assert {rd: [message for message in sent if message[0] == rd] for rd in range(RDS)} == expected
    assert batch.count["command_errors"] == wrong and batch.count["commands"] == len(commands)
