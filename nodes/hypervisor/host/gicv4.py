"""Direct injection (Linux irq-gic-v4.c and the GICv4 part of irq-gic-v3-its.c): vPEs, vLPIs and vSGIs.

Differences from Linux, on purpose: commands of one operation go out in one run (a VM's VMAPPs, a vCPU's 16 SGIs); GITS_SGIR is
used on the ITS with the lowest address; a mapped vLPI's configuration is invalidated in the run that maps it; GICv4.0's
doorbells are masked by INVLPIR where GICR_TYPER.DirectLPI allows it, else by INVALL of the home collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cosim.api import Lock, ModelError
from nodes.arch.intid import NO_DOORBELL
from nodes.arch.lpi import config_address, config_byte, config_size, pending_position, pending_size
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import poll, together
from nodes.hypervisor.host.its import ItsDevice, ItsDriver
from nodes.hypervisor.host.lpi import LPI_ALIGN, LPI_PRIORITY
from nodes.hypervisor.host.residency import Residency
from nodes.hypervisor.host.vpe import SGIS, VSGI_OFF, VmTables, Vpe, VsgiConfig

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.host import Host

__all__ = ["Gicv4", "Vpe", "VsgiConfig"]

Run = list[tuple[str, dict[str, Any]]]


class Gicv4(Residency):
    """The GICv4 driver of a host whose Redistributors all have VLPIS and of which an ITS is Virtual; `version` "4.0" or "4.1"."""

    def __init__(self, host: Host, version: str) -> None:
        super().__init__(host, version)
        self.itses = [its for its in host.its if its.is_v4]
        self.id_bits = host.lpis.id_bits
        self._vpeids: set[int] = set()
        self._inv_locks = {cpu.index: Lock(f"INV registers of cpu{cpu.index}") for cpu in host.cpus}
        self._vsgir_locks = {cpu.index: Lock(f"GICR_VSGIR of cpu{cpu.index}") for cpu in host.cpus}

    @property
    def first(self) -> ItsDriver:
        """The ITS that takes VSGI, INVDB and GITS_SGIR: the one with the lowest address."""
        return min(self.itses, key=lambda its: its.base)

    # -- vPEs ----------------------------------------------------------------------------------------------------------

    async def alloc_vpes(self, n: int, homes: Sequence[int]) -> list[Vpe]:
        """vPEs of a new VM, mapped on every ITS; `homes[i]` is the CPU index of vPE i's first home.

        Allocates the VM's configuration table, a pending table and a doorbell LPI for each; VMAPP goes to the first ITS
        (Alloc = 1 on GICv4.1) and is complete there before the others get theirs.
        """
        host = self.host
        vprop = host.memory.alloc(config_size(self.id_bits), LPI_ALIGN, "vm")
        host.bus.post_block(vprop, bytes([config_byte(LPI_PRIORITY, False)]) * config_size(self.id_bits))
        vm = VmTables(vprop, host.lpis.alloc(n), n)
        for i in range(n):
            vpt = host.memory.alloc(pending_size(self.id_bits), LPI_ALIGN, "vm")
            vpe = Vpe(vm, self._new_vpeid(), vpt, vm.doorbells + i, host.cpus[homes[i]])
            vm.vpes.append(vpe)
            host.request_irq(vpe.doorbell_lpi, self._doorbell_handler(vpe), counter="doorbell_irqs")
            for its in self.itses:
                its.tables[regs.BASER_TYPE_VPES].ensure(vpe.vpeid)
        host.lpis.configure_run(vm.doorbells, n, enable=self.v4_1)
        await host.bus.dsb()
        first, *others = sorted(self.itses, key=lambda its: its.base)
        await self._map_vpes(first, vm.vpes, alloc=1)
        await together(host.node, [self._map_vpes(its, vm.vpes, alloc=0) for its in others], "vmapp")
        return list(vm.vpes)

    def _new_vpeid(self) -> int:
        vpeid = next(i for i in range(len(self._vpeids) + 1) if i not in self._vpeids)
        if vpeid >> self.host.vpe_bits:
            raise ModelError(f"vPEIDs have {self.host.vpe_bits} bits; all are in use")
        self._vpeids.add(vpeid)
        return vpeid

    def _doorbell_handler(self, vpe: Vpe) -> Any:
        async def doorbell(cpu: HostCpu, _intid: int) -> None:
            vpe.pending_last = True
            if not self.v4_1:
                await self.mask_doorbell(vpe, True)
            if vpe.on_doorbell is not None:
                vpe.on_doorbell(cpu)

        return doorbell

    async def _map_vpes(self, its: ItsDriver, vpes: Sequence[Vpe], *, alloc: int) -> None:
        run: Run = [("VMAPP", self._vmapp(its, vpe, alloc)) for vpe in vpes]
        run += [("VINVALL", {"vpeid": vpe.vpeid}) for vpe in vpes]
        if self.v4_1 and its is self.first:
            run += [("INVDB", {"vpeid": vpe.vpeid}) for vpe in vpes]
        await its.run(run, vsync=[vpe.vpeid for vpe in vpes])

    def _vmapp(self, its: ItsDriver, vpe: Vpe, alloc: int) -> dict[str, int]:
        fields = {"vpeid": vpe.vpeid, "rdbase": its.rdbase(vpe.home), "valid": 1}
        fields |= {"vpt": vpe.vpt, "vpt_size": self.id_bits - 1}
        if self.v4_1:
            fields |= {"alloc": alloc, "ptz": 0, "vconf": vpe.vm.vprop, "default_doorbell": vpe.doorbell_lpi}
        return fields

    async def free_vpes(self, vpes: Sequence[Vpe]) -> None:
        """Unmap the vPEs of a VM from every ITS (Alloc = 1 on the last), and free their tables and doorbells.

        Raises:
            ModelError: one of them is resident or still has vLPIs.
        """
        for vpe in vpes:
            if vpe.resident is not None or vpe.vlpi_count:
                raise ModelError(f"{vpe} must be non-resident ({vpe.resident}) and have no vLPIs ({vpe.vlpi_count})")
        for vpe in vpes:
            await self.settle(vpe.home)
        first, *others = sorted(self.itses, key=lambda its: its.base)
        await together(self.host.node, [self._unmap_vpes(its, vpes, alloc=0) for its in others], "vmapp")
        await self._unmap_vpes(first, vpes, alloc=1)
        for vm in dict.fromkeys(vpe.vm for vpe in vpes):
            self._free_vm(vm)

    async def _unmap_vpes(self, its: ItsDriver, vpes: Sequence[Vpe], *, alloc: int) -> None:
        run: Run = []
        for vpe in vpes:
            run.append(("VMAPP", {"vpeid": vpe.vpeid, "valid": 0} | ({"alloc": alloc} if self.v4_1 else {})))
        # No VSYNC: the vPE does not exist any more. On GICv4.1 unmapping synchronises by itself; before, a SYNC does it.
        await its.run(run, sync=[] if self.v4_1 else [its.rdbase(vpe.home) for vpe in vpes])

    def _free_vm(self, vm: VmTables) -> None:
        host = self.host
        for vpe in vm.vpes:
            host.free_irq(vpe.doorbell_lpi)
            host.memory.free(vpe.vpt)
            self._vpeids.discard(vpe.vpeid)
        host.lpis.configure_run(vm.doorbells, vm.count, enable=False)
        host.lpis.free(vm.doorbells, vm.count)
        host.memory.free(vm.vprop)

    # -- vLPIs ---------------------------------------------------------------------------------------------------------

    async def map_vlpi(
        self, device: ItsDevice, event: int, vpe: Vpe, vintid: int, priority: int, enabled: bool
    ) -> None:
        """Turn a host LPI into vLPI `vintid` of a vPE: property byte, DISCARD, VMAPTI, INV, SYNC and VSYNC."""
        await self.map_vlpis(device, [(event, vpe, vintid, priority, enabled)])

    async def map_vlpis(self, device: ItsDevice, maps: Iterable[tuple[int, Vpe, int, int, bool]]) -> None:
        """`map_vlpi` of several (event, vPE, vINTID, priority, enabled) in one run."""
        maps = list(maps)
        discards, mapping, invs = Run(), Run(), Run()
        sync: list[int] = []
        for event, vpe, vintid, priority, enabled in maps:
            route = device.routes[event]
            where = {"device_id": device.device_id, "event_id": event}
            doorbell = NO_DOORBELL if self.v4_1 else vpe.doorbell_lpi
            self._post_property(vpe, vintid, priority, enabled)
            discards.append(("DISCARD", where))
            mapping.append(("VMAPTI", {**where, "vpeid": vpe.vpeid, "vintid": vintid, "doorbell": doorbell}))
            invs.append(("INV", where))
            if route.vpe is None:
                sync.append(device.its.rdbase(route.cpu))
            else:
                route.vpe.vlpi_count -= 1
            route.vpe, route.vintid = vpe, vintid
            vpe.vlpi_count += 1
        await device.its.run(discards + mapping + invs, sync=sync, vsync=[m[1].vpeid for m in maps])

    async def unmap_vlpi(self, device: ItsDevice, event: int) -> bool:
        """Give the event back to its host LPI: DISCARD, MAPTI, INV.

        Returns:
            Whether the vLPI was pending, as far as software can know: on GICv4.0 from the pending table of a vPE that is
            not resident; on GICv4.1 memory says nothing while the vPE is mapped, so False.
        """
        route = device.routes[event]
        vpe = route.vpe
        if vpe is None:
            return False
        pending = await self._pending_in_memory(vpe, route.vintid)
        where = {"device_id": device.device_id, "event_id": event}
        self.host.lpis.configure(route.lpi, enable=True)
        run: Run = [("DISCARD", where), ("MAPTI", {**where, "pintid": route.lpi, "icid": route.cpu.index})]
        run.append(("INV", where))
        route.vpe, route.vintid = None, 0
        vpe.vlpi_count -= 1
        await device.its.run(run, sync=[device.its.rdbase(route.cpu)], vsync=[vpe.vpeid])
        return pending

    async def _pending_in_memory(self, vpe: Vpe, vintid: int) -> bool:
        if self.v4_1 or vpe.resident is not None:
            return False
        offset, mask = pending_position(vintid)
        return bool(await self.host.bus.read(vpe.vpt + offset, 1) & mask)

    async def move_vlpi(self, device: ItsDevice, event: int, vpe: Vpe) -> None:
        """VMOVI: the vLPI goes to another vPE of the same VM; its pending state moves along."""
        route = device.routes[event]
        old = route.vpe
        if old is None:
            raise ModelError(f"event {event} of {device.device_id:#x} must be a vLPI to be moved")
        d, doorbell = (0, 0) if self.v4_1 else (1, vpe.doorbell_lpi)
        fields = {"device_id": device.device_id, "event_id": event, "vpeid": vpe.vpeid, "d": d, "doorbell": doorbell}
        route.vpe = vpe
        old.vlpi_count -= 1
        vpe.vlpi_count += 1
        await device.its.run([("VMOVI", fields)], vsync=[old.vpeid, vpe.vpeid])

    async def set_property(self, device: ItsDevice, event: int, priority: int, enabled: bool) -> None:
        """New priority and enable of a vLPI: property byte, then GICR_INVLPIR of the home (GICv4.1) or INV."""
        route = device.routes[event]
        vpe = route.vpe
        if vpe is None:
            raise ModelError(f"event {event} of {device.device_id:#x} must be a vLPI to have virtual properties")
        self._post_property(vpe, route.vintid, priority, enabled)
        if self.v4_1:
            await self._invalidate(vpe, regs.GICR_INVLPIR, regs.INV_V | vpe.vpeid << 32 | route.vintid)
        else:
            where = {"device_id": device.device_id, "event_id": event}
            await device.its.run([("INV", where)], vsync=[vpe.vpeid])

    async def invalidate_all(self, vpe: Vpe) -> None:
        """Re-read the configuration of every vLPI of a vPE (GICR_INVALLR, or VINVALL on GICv4.0)."""
        if self.v4_1:
            await self._invalidate(vpe, regs.GICR_INVALLR, regs.INV_V | vpe.vpeid << 32)
        else:
            await self.first.run([("VINVALL", {"vpeid": vpe.vpeid})], vsync=[vpe.vpeid])

    def _post_property(self, vpe: Vpe, vintid: int, priority: int, enabled: bool) -> None:
        self.host.bus.post(config_address(vpe.vm.vprop, vintid), config_byte(priority, enabled), 1)

    async def _invalidate(self, vpe: Vpe, register: int, value: int) -> None:
        bus = self.host.bus
        async with vpe.lock, self._inv_locks[vpe.home.index]:
            cpu = vpe.home
            await bus.dsb()
            bus.post64(cpu.rd_base + register, value)
            what = f"end of the invalidation on {cpu!r}"
            await poll(self.host.node, bus, cpu.rd_base + regs.GICR_SYNCR, 4, lambda busy: not busy & 1, what)

    async def _inv_doorbell(self, vpe: Vpe) -> None:
        if self.v4_1:
            await self.first.run([("INVDB", {"vpeid": vpe.vpeid})], vsync=[vpe.vpeid])
        elif self.host.gic.direct_lpi:
            await self._invalidate(vpe, regs.GICR_INVLPIR, vpe.doorbell_lpi)
        else:
            its = self.first
            await its.run([("INVALL", {"icid": vpe.home.index})], sync=[its.rdbase(vpe.home)])

    async def mask_doorbell(self, vpe: Vpe, masked: bool) -> None:
        """Mask or unmask the doorbell LPI at the host."""
        self.host.lpis.configure(vpe.doorbell_lpi, enable=not masked)
        await self._inv_doorbell(vpe)

    # -- vSGIs (GICv4.1) -----------------------------------------------------------------------------------------------

    async def config_vsgis(self, vpe: Vpe, config: Sequence[VsgiConfig]) -> None:
        """Set (enabled, group, priority) of the 16 vSGIs of a vPE: one run of VSGI commands and one VSYNC; none if unchanged."""
        await self.config_vsgis_of([(vpe, config)])

    async def config_vsgis_of(self, configs: Iterable[tuple[Vpe, Sequence[VsgiConfig]]]) -> None:
        """`config_vsgis` of several vPEs in one run."""
        run: Run = []
        vsync = []
        for vpe, wanted in configs:
            if len(wanted) != SGIS:
                raise ModelError(f"the configuration of {vpe} must have {SGIS} vSGIs, not {len(wanted)}")
            config = [(bool(e), int(g), p & 0xF0) for e, g, p in wanted]
            if config == vpe.vsgis:
                continue
            vpe.vsgis = config
            run += [("VSGI", self._vsgi(vpe, sgi, setting)) for sgi, setting in enumerate(config)]
            vsync.append(vpe.vpeid)
        if run:
            await self.first.run(run, vsync=vsync)

    @staticmethod
    def _vsgi(vpe: Vpe, sgi: int, config: VsgiConfig) -> dict[str, int]:
        enabled, group, priority = config
        return {"vpeid": vpe.vpeid, "sgi": sgi, "enable": int(enabled), "group": group, "priority": priority}

    async def clear_vsgi(self, vpe: Vpe, sgi: int) -> None:
        """Clear the pending state of a vSGI (C = 1); its configuration stays."""
        await self.first.run([("VSGI", {"vpeid": vpe.vpeid, "sgi": sgi, "clear": 1})], vsync=[vpe.vpeid])

    async def clear_vsgis(self, vpes: Iterable[Vpe]) -> None:
        """Deactivate all vSGIs of vPEs: disable, then clear (two commands each, as E and C exclude each other)."""
        vpes = list(vpes)
        run: Run = []
        for vpe in vpes:
            run += [("VSGI", self._vsgi(vpe, sgi, VSGI_OFF)) for sgi in range(SGIS)]
            run += [("VSGI", {"vpeid": vpe.vpeid, "sgi": sgi, "clear": 1}) for sgi in range(SGIS)]
            vpe.vsgis = [VSGI_OFF] * SGIS
        if run:
            await self.first.run(run, vsync=[vpe.vpeid for vpe in vpes])

    def send_vsgi(self, vpe: Vpe, sgi: int) -> None:
        """Make a vSGI pending by a posted write of GITS_SGIR; the caller's ``bus.dsb()`` waits for it."""
        self.host.bus.post64(self.first.base + regs.GITS_SGIR, vpe.vpeid << 32 | sgi)

    async def vsgi_pending(self, vpe: Vpe) -> int:
        """Mask of pending vSGIs, by GICR_VSGIR and VSGIPENDR of the home Redistributor."""
        bus = self.host.bus
        async with vpe.lock, self._vsgir_locks[vpe.home.index]:
            cpu = vpe.home
            bus.post32(cpu.rd_base + regs.GICR_VSGIR, vpe.vpeid)
            value = await poll(
                self.host.node,
                bus,
                cpu.rd_base + regs.GICR_VSGIPENDR,
                4,
                lambda state: not state & regs.VSGIPENDR_BUSY,
                f"answer to the vSGI query of {vpe}",
            )
        return value & 0xFFFF

    # -- planted faults ------------------------------------------------------------------------------------------------

    async def discard_behind(self, device: ItsDevice, event: int) -> None:
        """A bare DISCARD that no driver hears of (parameter ``break=discard``)."""
        await device.discard(event)

    async def break_vsgi(self, vpe: Vpe) -> None:
        """VSGI with E = 0 for all 16 vSGIs of a vPE, behind KVM's back (parameter ``break=vsgi``)."""
        run: Run = [("VSGI", self._vsgi(vpe, sgi, (False, *vpe.vsgis[sgi][1:]))) for sgi in range(SGIS)]
        await self.first.run(run, vsync=[vpe.vpeid])
