"""One run of kvmtool: set the VM up, emulate its devices, run it, take it down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nodes.hypervisor.host.vfio import GroupNotViable
from nodes.hypervisor.kvm.vm import Vm
from nodes.hypervisor.vmm import memory_map as at
from nodes.hypervisor.vmm.passthrough import PassThrough
from nodes.hypervisor.vmm.uart import Uart

if TYPE_CHECKING:
    from nodes.hypervisor.kvm.exits import Access
    from nodes.hypervisor.kvm.kvm import Kvm
    from nodes.hypervisor.kvm.vcpu import Vcpu

ENDED = "  # KVM session ended normally."
Hook = Callable[["Lkvm"], Awaitable[None]]


class GuestSpec(NamedTuple):
    """What to run: console file, guest number, program and arguments of nodes/software, parameters, image as typed in the
    command, function to pass through ("" for none)."""

    console: str
    number: int
    program: str
    args: str
    params: Mapping[str, Any]
    image: str
    endpoint: str = ""


class Lkvm:
    """A kvmtool process. `text` collects what the guest printed."""

    def __init__(self, kvm: Kvm, spec: GuestSpec, *, vcpus: int, times: tuple[int, int, int], frequency: int) -> None:
        self.kvm = kvm
        self.spec = spec
        self.host = kvm.host
        self.node = kvm.node
        self.text = ""
        self.reason = ""
        pa, size = self.host.guest_ram(spec.number)
        self.ram = (at.RAM, size, pa)
        self.vm = Vm(
            kvm,
            f"guest{spec.number}",
            vcpus=vcpus,
            program=spec.program,
            args=spec.args,
            params=spec.params,
            ram=self.ram,
            gic=at.gic_map(vcpus),
            times=times,
            frequency=frequency,
        )
        self.uarts = [Uart(self._print)] + [Uart(lambda text: None) for _ in range(at.UARTS - 1)]
        self.device: PassThrough | None = None
        self.vm.on_mmio(self._mmio)

    def _print(self, text: str) -> None:
        self.text += text
        self.node.console(self.spec.console, text)

    def _say(self, line: str) -> None:
        """A line of kvmtool's own, on the terminal that the guest's console shares with the host's shell."""
        self.node.console(self.spec.console, line + "\n")
        self.host.print(line)

    async def run(self, prepare: Hook | None = None) -> str:
        """Run the guest to its end; `prepare(self)` is called when everything is set up. Returns why it stopped."""
        spec = self.spec
        megabytes = self.ram[1] >> 20
        self._say(f"  # lkvm run {spec.image} -m {megabytes} -c {len(self.vm.vcpus)} --name guest-{spec.number}")
        await self.vm.create()
        try:
            if spec.endpoint:
                await self._attach(spec.endpoint)
        except GroupNotViable as error:
            return await self._give_up(error)
        if prepare is not None:
            await prepare(self)
        self.reason = await self.vm.run(at.RAM + at.TWO_MIB)
        await self.node.sleep(self.vm.t_exit_vmm)
        if self.device is not None:
            await self.device.close()
        await self.vm.destroy()
        if self.reason == "system_off":
            self._say(ENDED)
        else:
            self._say(f"  # KVM session ended: {self.reason}")
        return self.reason

    async def _give_up(self, error: GroupNotViable) -> str:
        """VFIO refuses the device: kvmtool ends before any vCPU runs."""
        self._say(f"  Error: {error}")
        self._say("  Warning: Failed init: vfio__init")
        self._say("  Fatal: Initialisation failed")
        self.reason = str(error)
        await self.vm.destroy()
        return self.reason

    async def _attach(self, name: str) -> None:
        device = await self.host.vfio.open_device(name, [self.ram])
        self.device = PassThrough(self.vm, device, at.FIRST_DEVICE, at.PCI_MMIO)
        self.host.print(f"  # vfio-pci {name}: assigned to device number {self.device.slot:#x}")
        self.vm.windows = self.device.windows()

    # -- devices ---------------------------------------------------------------------------------------------------

    async def _mmio(self, vcpu: Vcpu, access: Access) -> int:
        ipa = access.ipa
        if at.UART <= ipa < at.UART + at.UARTS * at.UART_STRIDE:
            return self._uart(access)
        if at.ECAM <= ipa < at.ECAM + at.ECAM_SIZE:
            return await self._config(access)
        hit = self.device.config.locate(ipa, access.size) if self.device is not None else None
        if self.device is not None and hit is not None:
            if access.data is None:
                return self.device.read_bar(*hit, access.size)
            if isinstance(access.data, int):
                await self.device.write_bar(*hit, access.size, access.data)
                return 0
        return self._nowhere(access)

    def _uart(self, access: Access) -> int:
        number, offset = divmod(access.ipa - at.UART, at.UART_STRIDE)
        uart = self.uarts[number]
        if access.data is None:
            return uart.read(offset)
        data = access.data if isinstance(access.data, bytes) else access.data.to_bytes(access.size, "little")
        uart.write(offset, data)
        return 0

    async def _config(self, access: Access) -> int:
        rid, offset = divmod(access.ipa - at.ECAM, 4096)
        device = self.device if self.device is not None and self.device.rid == rid else None
        ones = (1 << 8 * access.size) - 1
        if access.data is None:
            return device.read_config(offset, access.size) if device is not None else ones
        if device is not None and isinstance(access.data, int):
            await device.write_config(offset, access.size, access.data)
        return 0

    def _nowhere(self, access: Access) -> int:
        """kvmtool warns and goes on; a read gives 0."""
        self.node.count["vmm_unknown_accesses"] += 1
        what = "read" if access.data is None else "write"
        self.node.log("MMIO to no device of the VMM", guest=self.vm.name, access=what, ipa=f"{access.ipa:#x}")
        return 0
