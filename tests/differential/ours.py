"""Our machine: the real nodes in one bench, driven step by step, looked at between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cosim.api import Bank, Channel, Node, Wire
from cosim.testing import Bench
from nodes.arch.msi import MSI
from nodes.distributor.model import Distributor
from nodes.its.entries import CTE_BYTES, DTE_BYTES, VTE_BYTES, Cte, Dte, Vte
from nodes.its.model import Its
from nodes.memory.model import Memory
from nodes.pe.cpu_interface import CpuInterface
from nodes.pe.model import Pe
from nodes.redistributor.model import Redistributor
from tests.differential import layout
from tests.differential.layout import CPUS, EL1_REGISTERS, EL2_REGISTERS, REGISTERS
from tests.differential.observe import event_name, register_places
from tests.differential.oracle import Observed
from tests.differential.steps import Action, Command, Line, Mrs, Msi, Msr, Program, Step, Store, Write

HCR = 1 << 4 | 1 << 3
QUEUE_SLOT = 32


class _Pe(Pe):
    """With the CPU interface of QEMU's Cortex-A57: 24-bit INTIDs, no DVIM, no extended INTIDs."""

    def setup(self) -> None:
        super().setup()
        version = str(self.params["gic_version"])
        self.interface = CpuInterface(
            mpidr=self.mpidr, id_bits=24, nv4=version == "3", vsgi_eoicount=False, two_security_states=False,
            dvim=False, ext_range=False,
        )  # fmt: skip
        self.interface.set_state(2, False)


class _Board(Node):
    """Devices around the GIC."""

    kind = "board"
    msi = Channel(MSI)
    spi = Wire()


class Ours:
    """One machine from reset; `run` one program on it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.bench = bench = Bench()
        common: dict[str, Any] = {
            "gic_version": version, "two_security_states": False, "priority_bits": 8, "lpi_cache": True,
        }  # fmt: skip
        self.distributor = bench.add(
            "distributor", Distributor, {"affinities": list(range(CPUS)), "spis": 256 - 32, **common}
        )
        self.its = bench.add("its0", Its, {"gic_version": version, "device_bits": 16})
        self.memory = bench.add("memory", Memory)
        bench.probe("hypervisor")
        self.board = bench.add("board", _Board)
        bench.link("board.msi", "its0.msi", device_ids=[[0, 0xFFFF_FFFF]])
        bench.link("board.spi", "distributor.spi")
        ram = [(0, 1 << 40, "memory.bus", 0)]
        bench.map("its0.bus", ram)
        self.redistributors: list[Redistributor] = []
        self.pes: list[_Pe] = []
        for cpu in range(CPUS):
            own = {"index": cpu, "affinity": cpu, "last": cpu == CPUS - 1, **common}
            self.redistributors.append(bench.add(f"redistributor{cpu}", Redistributor, own))
            self.pes.append(bench.add(f"pe{cpu}", _Pe, {"index": cpu, "mpidr": 1 << 31 | cpu, **common}))
            bench.link(f"redistributor{cpu}.net", "distributor.net", both=True)
            bench.link(f"redistributor{cpu}.net", "its0.net", both=True)
            bench.map(f"redistributor{cpu}.bus", ram)
            bench.link(f"pe{cpu}.gic", f"redistributor{cpu}.cpu", both=True)
            bench.link(f"pe{cpu}.ppi", f"redistributor{cpu}.ppi")
            bench.link(f"pe{cpu}.trap", "hypervisor.trap", both=True)
        self._queue = 0
        bench.run()
        self._banks: dict[str, tuple[Bank, int, int]] = {}
        for place in register_places(version):
            name, _, cpu_text = place.name.partition(".")
            block, offset, size = REGISTERS[name]
            self._banks[place.name] = self._bank(block, int(cpu_text or 0)), offset, size

    def _bank(self, block: str, cpu: int) -> Bank:
        if block == "gicd":
            return self.distributor.bank
        return self.its.bank if block == "gits" else self.redistributors[cpu].registers.bank

    # -- doing ---------------------------------------------------------------------------------------------------------

    def run(self, program: Program) -> list[Observed]:
        """Execute a program; one entry per step."""
        self.do(program.setup)
        return [(self.do(step), self.look()) for step in program.steps]

    def do(self, step: Step) -> int:
        """Carry out a step, each action until everything is quiet; the last one's result."""
        result = 0
        for action in step:
            result = self._act(action)
        return result

    def _act(self, step: Action) -> int:
        if isinstance(step, Write):
            self._write(step)
        elif isinstance(step, Store):
            self.memory.poke(step.address, step.value.to_bytes(step.size, "little"))
        elif isinstance(step, Command):
            self.memory.poke(layout.QUEUE + self._queue, step.data)
            self._queue = (self._queue + QUEUE_SLOT) % layout.QUEUE_BYTES
            self._write(Write("GITS_CWRITER", self._queue))
        elif isinstance(step, Msi):
            self._event("board", lambda: self.board.msi.send("its0", MSI.Msi, step.device_id, step.event_id))
        elif isinstance(step, Line):
            self._event("board", lambda: self.board.spi.drive(layout.LINE, step.level))
        else:
            return self._sysreg(step)
        return 0

    def _write(self, step: Write) -> None:
        block, offset, size = REGISTERS[step.register]
        node: Any = (
            self.distributor if block == "gicd" else self.its if block == "gits" else self.redistributors[step.cpu]
        )
        bank = self._bank(block, step.cpu)

        def write() -> None:
            # As the nodes' own bus handlers do: set and clear registers look at what was written.
            if block == "gicr":
                node.registers._written = step.value
            elif block == "gicd":
                node._written = step.value
            bank.write(offset, size, step.value, secure=True)

        if step.register == "GITS_CWRITER":
            self._queue = step.value
        self._event(node.name, write)

    def _sysreg(self, step: Mrs | Msr) -> int:
        pe = self.pes[step.cpu]
        result: list[int] = [0]

        def access() -> None:
            hcr = HCR if step.el == 1 else 0
            if isinstance(step, Msr) and step.register.startswith("CNTV"):
                pe.timer.write(step.register, step.value, pe.now)
                pe.update_timer()
                return
            if isinstance(step, Mrs):
                result[0] = pe.interface.read(step.register, el=step.el, hcr=hcr)
            else:
                pe.interface.write(step.register, step.value, el=step.el, hcr=hcr)
            pe.settle_gic()

        self._event(pe.name, access)
        return result[0]

    def _event(self, node: str, function: Callable[[], None]) -> None:
        async def body() -> None:
            function()

        self.bench.call(node, body())

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self) -> dict[str, object]:
        """Everything that is compared, by the same names as the oracle's."""
        seen: dict[str, object] = {}
        for name, (bank, offset, size) in self._banks.items():
            seen[name] = bank.read(offset, size, secure=True)
        for cpu in range(CPUS):
            self._look_at_cpu(cpu, seen)
        self._look_at_tables(seen)
        return seen

    def _look_at_cpu(self, cpu: int, seen: dict[str, object]) -> None:
        interface = self.pes[cpu].interface
        for name in EL2_REGISTERS:
            if name != "ISR_EL1":
                seen[f"{name}.{cpu}"] = interface.read(name, el=2)
        for name in EL1_REGISTERS:
            if name != "ISR_EL1":
                seen[f"{name}.{cpu}@EL1"] = interface.read(name, el=1, hcr=HCR)
        seen[f"ISR_EL1.{cpu}"] = int(interface.irq) << 7 | int(interface.fiq) << 6
        seen[f"ISR_EL1.{cpu}@EL1"] = int(interface.virq) << 7 | int(interface.vfiq) << 6
        lpis = self.redistributors[cpu].lpis
        window = layout.LPI_BASE + layout.LPIS
        if lpis.enabled:
            pending = sorted(intid for intid in lpis.pending if intid < window)
        else:
            pending = self._table(layout.PENDING + cpu * layout.STEP_64K)
        seen[f"pending lpi.{cpu}"] = tuple(pending)

    def _table(self, base: int) -> list[int]:
        word = self._word(base + layout.LPI_BASE // 8, 8)
        return [layout.LPI_BASE + n for n in range(64) if word >> n & 1]

    def _word(self, address: int, size: int) -> int:
        return int.from_bytes(self.memory.peek(address, size), "little")

    def _look_at_tables(self, seen: dict[str, object]) -> None:
        devices: dict[int, Dte] = {}
        for device in layout.DEVICES:
            dte = devices[device] = Dte.unpack(self._word(layout.DEVICE_TABLE + DTE_BYTES * device, DTE_BYTES))
            seen[f"device {device}"] = (dte.size, dte.itt) if dte.valid else None
        for icid in range(layout.COLLECTIONS):
            cte = Cte.unpack(self._word(layout.COLLECTION_TABLE + CTE_BYTES * icid, CTE_BYTES))
            seen[f"collection {icid}"] = cte.rd if cte.valid else None
        form = self.its.config.ite
        for device, dte in devices.items():
            for event in range(layout.EVENTS):
                mapped = dte.valid and event >> dte.size + 1 == 0 and dte.itt == layout.itt(device)
                value: object = None
                if mapped:
                    ite = form.unpack(self._word(dte.itt + form.size * event, form.size))
                    if ite.valid and ite.physical:
                        value = ("LPI", ite.intid, "ICID", ite.target)
                    elif ite.valid:
                        value = ("vLPI", ite.intid, "vPE", ite.target, "doorbell", ite.doorbell)
                seen[event_name(device, event)] = value
        if self.version != "3":
            self._look_at_vpes(seen)

    def _look_at_vpes(self, seen: dict[str, object]) -> None:
        for vpe in range(layout.VPES):
            vte = Vte.unpack(self._word(layout.VPE_TABLE + VTE_BYTES * vpe, VTE_BYTES))
            seen[f"vPE {vpe}"] = (vte.vpt_size, vte.rd) if vte.valid else None
            owners = [rd.vpes.table[vpe] for rd in self.redistributors if vpe in rd.vpes.table]
            if owners:
                window = layout.LPI_BASE + layout.LPIS
                seen[f"pending vlpi.{vpe}"] = tuple(sorted(intid for intid in owners[0].pending if intid < window))
            else:
                seen[f"pending vlpi.{vpe}"] = tuple(self._table(layout.VPENDING + vpe * layout.STEP_64K))
