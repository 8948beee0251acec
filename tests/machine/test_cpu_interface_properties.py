"""Random sequences on both interfaces against a small model of another kind.

The model knows no bits: active priorities are a list of numbers, preemption compares multiples of a step, the
candidates are sorted. What it shares with the code under test is the specification only.
"""

from dataclasses import dataclass, field
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.pe.list_registers import lr
from tests.machine.cpu_interface_bench import SPURIOUS, Bench, in_guest

Op = tuple[str, int, int, int]

PRIORITIES = st.sampled_from([0x00, 0x08, 0x20, 0x40, 0x47, 0x60, 0x80, 0x90, 0x98, 0xA0, 0xA8, 0xF0, 0xF8, 0xFF])
EXAMPLES = settings(max_examples=150)


def operations(*names: str) -> st.SearchStrategy[list[Op]]:
    """Sequences of (name, priority, number, group); a name that stands twice comes twice as often."""
    one = st.tuples(st.sampled_from(names), PRIORITIES, st.integers(0, 7), st.integers(0, 1))
    return st.lists(one, min_size=20, max_size=80)


@dataclass
class Model:
    """Priority arithmetic by numbers: 32 levels of 8, binary points as steps."""

    mask: int = 0xF8
    point: list[int] = field(default_factory=lambda: [2, 3])
    common: bool = False
    enabled: list[bool] = field(default_factory=lambda: [True, True])
    active: list[tuple[int, int, int]] = field(default_factory=list)  # (priority, group, INTID)

    def step(self, group: int) -> int:
        """Priorities that are one group priority for this group: 2, 4, ... 256."""
        exponent = self.point[1] if group == 1 and not self.common else self.point[0] + 1
        return 1 << exponent

    def running(self) -> int:
        return min((priority for priority, _, _ in self.active), default=0xFF)

    def may_preempt(self, priority: int, group: int) -> bool:
        if not self.enabled[group] or priority >= self.mask:
            return False
        step = self.step(group)
        return not self.active or priority // step < self.running() // step

    def activate(self, priority: int, group: int, intid: int) -> None:
        step = self.step(group)
        assert not self.active or priority // step * step < self.running(), "IAR gave what would not preempt"
        self.active.append((priority // step * step // 8 * 8, group, intid))

    def set_control(self, name: str, number: int, priority: int, group: int) -> None:
        """Mask, binary points, CBPR and enables, as written by software."""
        if name == "pmr":
            self.mask = priority // 8 * 8
        elif name == "bpr" and not (group == 1 and self.common):
            self.point[group] = max(number, 2 + group)
        elif name == "cbpr":
            self.common = number % 2 == 1
        elif name == "enable":
            self.enabled[group] = number > 0


def apply_control(write: "Write", name: str, number: int, priority: int, group: int, ctlr: int = 0) -> None:
    """The register writes that correspond to ``Model.set_control``."""
    if name == "pmr":
        write("ICC_PMR_EL1", priority)
    elif name == "bpr":
        write(f"ICC_BPR{group}_EL1", number)
    elif name == "cbpr":
        write("ICC_CTLR_EL1", ctlr | number % 2)
    elif name == "enable":
        write(f"ICC_IGRPEN{group}_EL1", int(number > 0))


class Write:
    """Writes registers of one side of a bench."""

    def __init__(self, bench: Bench, side: Literal["host", "guest"]) -> None:
        self.access = bench.host if side == "host" else bench.guest

    def __call__(self, name: str, value: int) -> None:
        self.access(name, value)


@EXAMPLES
@given(
    operations(
        *["set"] * 8, *["iar"] * 8, *["eoi"] * 4, "wrong_eoi", "wrong_iar", "clear", "pmr", "bpr", "cbpr", "enable"
    )
)
def test_physical_interface_against_the_model(ops: list[Op]) -> None:
    """RPR is the minimum of what is active, IAR gives exactly what preempts, each Set has one end."""
    bench = Bench(two_security_states=False)
    write = Write(bench, "host")
    model = Model()
    for name, value in [("PMR_EL1", 0xF8), ("IGRPEN0_EL1", 1), ("IGRPEN1_EL1", 1)]:
        write(f"ICC_{name}", value)
    held: tuple[int, int, int] | None = None
    fates: dict[int, list[str]] = {}
    next_intid = 8192

    for name, priority, number, group in ops:
        if name == "set":
            next_intid += 1
            bench.cpu.set(next_intid, priority, group)
            held = (next_intid, priority // 8 * 8, group)
            fates[next_intid] = []
        elif name == "clear" and held is not None:
            bench.cpu.clear(held[0])
            held = None
        elif name in ("iar", "wrong_iar"):
            want = SPURIOUS
            register = held[2] if held is not None and name == "iar" else group
            if held is not None and held[2] == register and model.may_preempt(held[1], register):
                want = held[0]
                model.activate(held[1], register, want)
                held = None
            assert bench.host(f"ICC_IAR{register}_EL1") == want
        elif name in ("eoi", "wrong_eoi") and model.active:
            # Group 0 and 1 can't be active at the same priority: each acknowledge was above all others.
            top = min(model.active)
            ends = top[1] if name == "eoi" else 1 - top[1]
            bench.host(f"ICC_EOIR{ends}_EL1", 8192)
            if name == "eoi":
                model.active.remove(top)
        else:
            model.set_control(name, number, priority, group)
            apply_control(write, name, number, priority, group)
        signalled = held is not None and model.may_preempt(held[1], held[2])
        assert (bench.irq(), bench.fiq()) == (
            signalled and held is not None and held[2] == 1,
            signalled and held is not None and held[2] == 0,
        )
        assert bench.host("ICC_RPR_EL1") == model.running()
        for kind, *rest in bench.up():
            if kind in ("Activate", "Release"):
                assert isinstance(rest[0], int)
                fates[rest[0]].append(str(kind))
    for intid, fate in fates.items():
        assert len(fate) == (0 if held is not None and held[0] == intid else 1), (intid, fate)


@dataclass
class Entry:
    """What the model knows of one list register."""

    intid: int
    priority: int
    group: int
    state: str  # "pending" or "active"


class GuestModel(Model):
    """The guest's side: list registers, the offered interrupt, EOI counting."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[Entry | None] = [None] * 4
        self.offered: tuple[int, int, int] | None = None
        self.split = False
        self.eois = 0

    def best(self) -> tuple[int, int, int] | None:
        """(slot, priority, group) of the best candidate of an enabled group; slot 4 is the redistributor."""
        found = [
            (entry.priority, slot, entry.group)
            for slot, entry in enumerate(self.slots)
            if entry is not None and entry.state == "pending" and self.enabled[entry.group]
        ]
        if self.offered is not None and self.enabled[self.offered[2]]:
            found.append((self.offered[1], 4, self.offered[2]))
        if not found:
            return None
        priority, slot, group = sorted(found)[0]
        return slot, priority, group

    def acknowledge(self, register_group: int) -> int:
        best = self.best()
        if best is None or best[2] != register_group or not self.may_preempt(best[1], best[2]):
            return SPURIOUS
        slot, priority, group = best
        if slot == 4:
            assert self.offered is not None
            intid = self.offered[0]
            self.offered = None
        else:
            entry = self.slots[slot]
            assert entry is not None
            entry.state = "active"
            intid = entry.intid
        self.activate(priority, group, intid)
        return intid

    def end(self, register_group: int, intid: int) -> None:
        if not self.active:
            return
        top = min(self.active)
        self.active.remove(top)
        slot = self.slot_of(intid)
        if slot is None:
            if not self.split and intid < 8192:
                self.eois += 1
            return
        entry = self.slots[slot]
        assert entry is not None
        step = self.step(register_group)
        if entry.group == register_group and entry.priority // step * step == top[0]:
            if not self.split or intid >= 8192:
                self.slots[slot] = None

    def deactivate(self, intid: int) -> None:
        if self.split and intid < 8192:
            slot = self.slot_of(intid)
            if slot is None:
                self.eois += 1
            else:
                self.slots[slot] = None

    def slot_of(self, intid: int) -> int | None:
        for slot, entry in enumerate(self.slots):
            if entry is not None and entry.state == "active" and entry.intid == intid:
                return slot
        return None


def guest_operation(bench: Bench, model: GuestModel, op: Op, fresh: list[int]) -> None:
    """One operation on both; checks what the guest reads."""
    name, priority, number, group = op
    if name == "inject":
        slot = number % 4
        if model.slots[slot] is None:
            intid = (32 if number < 4 else 8192) + len(fresh)
            fresh.append(intid)
            model.slots[slot] = Entry(intid, priority // 8 * 8, group, "pending")
            bench.host(f"ICH_LR{slot}_EL2", lr(intid, priority, group=group))
    elif name == "vset":
        intid = 20000 + len(fresh)
        fresh.append(intid)
        model.offered = (intid, priority // 8 * 8, group)
        bench.cpu.vset(9, intid, priority, group)
    elif name == "vclear" and model.offered is not None:
        bench.cpu.vclear(9, model.offered[0])
        model.offered = None
    elif name in ("iar", "wrong_iar"):
        best = model.best()
        register = best[2] if best is not None and name == "iar" else group
        assert bench.guest(f"ICC_IAR{register}_EL1") == model.acknowledge(register)
    elif name == "eoi" and model.active:
        _, group, intid = min(model.active)
        bench.guest(f"ICC_EOIR{group}_EL1", intid)
        model.end(group, intid)
    elif name in ("wrong_eoi", "dir"):
        intid = fresh[-1 - number] if number < len(fresh) else 40 + number
        if name == "wrong_eoi":
            bench.guest(f"ICC_EOIR{group}_EL1", intid)
            model.end(group, intid)
        else:
            bench.guest("ICC_DIR_EL1", intid)
            model.deactivate(intid)
    elif name == "split":
        model.split = number % 2 == 1
        bench.guest("ICC_CTLR_EL1", model.split << 1 | model.common)
    else:
        model.set_control(name, number, priority, group)
        apply_control(Write(bench, "guest"), name, number, priority, group, ctlr=model.split << 1)


@EXAMPLES
@given(
    operations(
        *["inject"] * 8, *["vset"] * 5, *["iar"] * 10, *["eoi"] * 5, "wrong_iar", "wrong_eoi", "dir", "dir", "vclear",
        "pmr", "bpr", "cbpr", "enable", "split",
    )
)  # fmt: skip
def test_virtual_interface_against_the_model(ops: list[Op]) -> None:
    """The merge, preemption, list register states, EOIcount and VActivate agree with the model at each step."""
    bench = in_guest(vmcr=0xF8 << 24 | 0b11)
    model = GuestModel()
    fresh: list[int] = []
    fates: dict[int | str, list[str]] = {}
    for op in ops:
        guest_operation(bench, model, op, fresh)
        best = model.best()
        signalled = best is not None and model.may_preempt(best[1], best[2])
        assert (bench.virq(), bench.vfiq()) == (
            signalled and best is not None and best[2] == 1,
            signalled and best is not None and best[2] == 0,
        )
        assert bench.guest("ICC_RPR_EL1") == model.running()
        assert bench.host("ICH_HCR_EL2") >> 27 == model.eois % 32
        states = {None: 0, "pending": 1, "active": 2}
        for slot, entry in enumerate(model.slots):
            assert bench.host(f"ICH_LR{slot}_EL2") >> 62 == states[entry.state if entry else None]
        for kind, *rest in bench.up():
            if kind in ("VActivate", "VRelease"):
                assert rest[0] == 9
                fates.setdefault(rest[1], []).append(str(kind))
    offered = [intid for intid in fresh if intid >= 20000]
    for intid in offered:
        held = model.offered is not None and model.offered[0] == intid
        assert len(fates.get(intid, [])) == (0 if held else 1)


@given(st.lists(st.tuples(st.sampled_from(["ICH_HCR_EL2", "ICH_VMCR_EL2", "ICH_LR0_EL2", "ICH_LR2_EL2", "ICH_AP0R0_EL2",
                                           "ICH_AP1R0_EL2"]), st.integers(0, 2**64 - 1)), max_size=8))  # fmt: skip
def test_any_image_survives_a_world_switch(writes: list[tuple[str, int]]) -> None:
    """Whatever was written to the ICH registers, the image loaded elsewhere gives the same image and outputs."""
    bench, other = Bench(), Bench()
    for name, value in writes:
        bench.host(name, value)
    image = bench.cpu.ich_image()
    other.cpu.load_ich(image)
    assert other.cpu.ich_image() == image
    assert (other.virq(), other.vfiq(), other.maintenance()) == (bench.virq(), bench.vfiq(), bench.maintenance())
