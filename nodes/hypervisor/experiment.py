"""The host's shell: boots the host, runs the selected tests one after the other, judges them, switches the machine off.

The commands are those of Arm's page "Virtual Interrupts And VGIC"; what they print is on console "host".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cosim.api import ModelError, us
from nodes.hypervisor.host.access import together
from nodes.hypervisor.host.host import Host
from nodes.hypervisor.kvm.irq import Hw
from nodes.hypervisor.kvm.kvm import DEFAULT_SLICE, Kvm
from nodes.hypervisor.verdict import Verdict, judge_ipi, judge_report, judge_smmute
from nodes.hypervisor.vmm.lkvm import GuestSpec, Lkvm

if TYPE_CHECKING:
    from nodes.hypervisor.host.node import HostNode

VSGI: Final = "vsgi.ipi"
VLPI: Final = "vlpi.smmute"
TWO_GUESTS: Final = "vlpi.two_guests"
COMMANDS: Final = "vlpi.commands"
TESTS: Final = (VSGI, VLPI)
"""Run by default."""
ALL_TESTS: Final = (*TESTS, TWO_GUESTS, COMMANDS)
BREAKS: Final = ("", "discard", "vsgi")
BROKEN_VCPU: Final = 2
BROKEN_EVENT: Final = 0

LKVM: Final = "./lkvm run -m {megabytes}"
VSGI_COMMAND: Final = LKVM + ' -f arm/gic.flat --irqchip gicv3-its -p "ipi"'
COMMANDS_COMMAND: Final = LKVM + " -f arm/its.flat --irqchip gicv3-its --vfio-pci {endpoint}"
VLPI_COMMAND: Final = (
    'screen -md -S "virt0" sudo ' + LKVM + " -k Image -i ramdisk-buildroot.img --irqchip gicv3-its "
    '--9p $(pwd),hostshare --console serial -p "console=ttyS0 --earlycon=uart,mmio,0x1000000 ip=dhcp" '
    "--vfio-pci {endpoint} --disable-mte; screen -r virt0;"
)


class Settings:
    """The hypervisor node's parameters that concern tests and guests; times in ps.

    Raises:
        ModelError: a value that is not allowed.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.tests: list[str] = list(params.get("tests", TESTS))
        self.vcpus: int = params.get("vcpus", params.get("pes", 8))
        self.vgic_v4_enable = bool(params.get("vgic_v4_enable", True))
        self.nassgireq = bool(params.get("nassgireq", True))
        self.guest_wait: str = params.get("guest_wait", "wfi")
        self.smmute_size: int = params.get("smmute_size", 0x100)
        self.smmute_transactions: int = params.get("smmute_transactions", 10)
        self.smmute_fault: str = params.get("smmute_fault", "")
        self.smmute_fault_at: int = params.get("smmute_fault_at", 1)
        self.plant: str = params.get("break", "")
        self.endpoint: str = params.get("endpoint", "0000:08:00.1")
        self.wfi_trap_policy: str = params.get("wfi_trap_policy", "")
        self.t_slice: int = params.get("t_slice", DEFAULT_SLICE)
        self.t_migrate: int = params.get("t_migrate", 0)
        self.frequency: int = params.get("cntfrq", 1_000_000_000)
        self.times: tuple[int, int, int] = (
            params.get("t_exit_kernel", us(1)),
            params.get("t_exit_vmm", us(4)),
            params.get("t_wakeup", us(3)),
        )
        unknown = [name for name in self.tests if name not in ALL_TESTS]
        if unknown:
            raise ModelError(f"tests must be among {', '.join(ALL_TESTS)}, not {', '.join(unknown)}")
        if self.plant not in BREAKS:
            raise ModelError(f"break must be one of {BREAKS}, not {self.plant!r}")
        if self.smmute_fault not in ("", "read", "write"):
            raise ModelError(f"smmute_fault must be '', 'read' or 'write', not {self.smmute_fault!r}")
        if self.guest_wait not in ("wfi", "spin"):
            raise ModelError(f"guest_wait must be 'wfi' or 'spin', not {self.guest_wait!r}")


class Experiment:
    """The whole run of the hypervisor node."""

    def __init__(self, node: HostNode) -> None:
        self.node = node
        self.settings = Settings(node.params)
        self.host = Host(node)
        self.kvm = Kvm(
            self.host,
            vgic_v4_enable=self.settings.vgic_v4_enable,
            wfi_trap_policy=self.settings.wfi_trap_policy,
            t_slice=self.settings.t_slice,
            t_migrate=self.settings.t_migrate,
        )
        self._guests = 0
        self._tests: dict[str, Callable[[], Any]] = {
            VSGI: self._vsgi,
            VLPI: self._vlpi,
            TWO_GUESTS: self._two_guests,
            COMMANDS: self._commands,
        }

    async def run(self) -> None:
        """From reset to power-off."""
        await self.host.boot()
        await self.kvm.init()
        for name in self.settings.tests:
            await self._test(name)
        self.kvm.exit()
        self.host.print("# poweroff")
        await self.host.shutdown()
        self.node.power_off()

    async def _test(self, name: str) -> None:
        node = self.node
        node.report_test(name, "running")
        before = Counter(node.count)
        verdict: Verdict = await self._tests[name]()
        counters = {key: value - before[key] for key, value in sorted(node.count.items()) if value != before[key]}
        node.report_test(name, verdict.status, verdict.detail, counters=counters)

    def _guest(self, console: str, program: str, args: str, image: str, endpoint: str = "") -> Lkvm:
        settings = self.settings
        params = {
            "vcpus": settings.vcpus,
            "nassgireq": settings.nassgireq,
            "guest_wait": settings.guest_wait,
            "smmute_fault_at": settings.smmute_fault_at,
        }
        spec = GuestSpec(console, self._guests, program, args, params, image, endpoint)
        self._guests += 1
        return Lkvm(self.kvm, spec, vcpus=settings.vcpus, times=settings.times, frequency=settings.frequency)

    @property
    def _smmute_args(self) -> str:
        settings = self.settings
        fault = f" -f {settings.smmute_fault}" if settings.smmute_fault else ""
        return f"-s {settings.smmute_size:#x} -n {settings.smmute_transactions}{fault}"

    @property
    def _megabytes(self) -> int:
        size: int = self.host.guest_ram_size
        return size >> 20

    # -- the two tests ---------------------------------------------------------------------------------------------

    async def _vsgi(self) -> Verdict:
        self.host.print("# " + VSGI_COMMAND.format(megabytes=self._megabytes))
        guest = self._guest(VSGI, "ipi", "ipi", "--firmware arm/gic.flat")
        ended = await guest.run(self._break_vsgi if self.settings.plant == "vsgi" else None)
        return judge_ipi(guest.text, ended)

    async def _vlpi(self) -> Verdict:
        settings = self.settings
        await self.host.vfio.bind(settings.endpoint)
        self.host.print("# " + VLPI_COMMAND.format(megabytes=self._megabytes, endpoint=settings.endpoint))
        guest = self._guest(VLPI, "smmute", self._smmute_args, "-k Image", settings.endpoint)
        ended = await guest.run(self._break_discard if settings.plant == "discard" else None)
        if guest.device is None:  # VFIO refused the function: what was bound for the guest goes back
            await self.host.vfio.unbind(settings.endpoint)
        return judge_smmute(guest.text, settings.smmute_transactions, ended)

    async def _two_guests(self) -> Verdict:
        """Both functions of the endpoint, each in a guest of its own, at the same time; the guests' virtual DeviceIDs,
        EventIDs and INTIDs are the same."""
        settings = self.settings
        device = settings.endpoint.rpartition(".")[0]
        names = [f"{device}.{function}" for function in range(2)]
        guests = []
        for n, name in enumerate(names):
            await self.host.vfio.bind(name)
            self.host.print("# " + VLPI_COMMAND.format(megabytes=self._megabytes, endpoint=name))
            guests.append(self._guest(f"{TWO_GUESTS}.{n}", "smmute", self._smmute_args, "-k Image", name))
        ended = await together(self.node, [guest.run() for guest in guests], "lkvm")
        verdicts = [
            judge_smmute(guest.text, settings.smmute_transactions, how)
            for guest, how in zip(guests, ended, strict=True)
        ]
        return Verdict(
            all(verdict.passed for verdict in verdicts),
            "; ".join(f"guest {n}: {verdict.detail}" for n, verdict in enumerate(verdicts)),
        )

    async def _commands(self) -> Verdict:
        """ITS commands of a guest on the interrupts of its device."""
        settings = self.settings
        await self.host.vfio.bind(settings.endpoint)
        self.host.print("# " + COMMANDS_COMMAND.format(megabytes=self._megabytes, endpoint=settings.endpoint))
        guest = self._guest(COMMANDS, "its-commands", "", "--firmware arm/its.flat", settings.endpoint)
        ended = await guest.run()
        return judge_report(guest.text, ended)

    # -- planted faults --------------------------------------------------------------------------------------------

    async def _break_vsgi(self, guest: Lkvm) -> None:
        """Before the guest's first SGI, disable vCPU 2's vSGIs behind KVM's back."""
        vm = guest.vm

        async def plant() -> None:
            if vm.v4 is None or len(vm.vcpus) <= BROKEN_VCPU or vm.vcpus[BROKEN_VCPU].vgic.private[0].hw is not Hw.SGI:
                self.node.log("break=vsgi has no effect: SGIs are not in hardware, or there is no vCPU 2")
                return
            await vm.v4.driver.break_vsgi(vm.vcpus[BROKEN_VCPU].vgic.vpe)

        vm.on_sgi(plant)

    async def _break_discard(self, guest: Lkvm) -> None:
        """Once the guest's MSI-X vectors are wired, DISCARD event 0 behind the driver's back."""
        device = guest.device
        assert device is not None

        async def plant() -> None:
            await device.device.its_device.discard(BROKEN_EVENT)

        device.after_enable = plant
