"""A PCI Express root complex with its hierarchy: ECAM and memory windows above, endpoints of other nodes below.

Ports are real type 1 functions: software numbers the buses and opens the windows, and what it has not opened is not reached.
Endpoints of the `hierarchy` that no link leads to have a configuration space and BARs and nothing behind them: an access to one
of their BARs is refused and counted.

Requests upwards take a link of their own from each endpoint to its SMMU, so that the requester ID is the plan's: bus numbers that
software gives must be those of the plan (depth first, as firmware and Linux number), and Bus Master Enable of ports is kept but
not looked at.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from cosim.api import (
    DECERR,
    OKAY,
    SLVERR,
    BusError,
    Future,
    MmioInitiator,
    MmioTarget,
    ModelError,
    Node,
    Request,
)
from nodes.arch.pci_config import SIZE
from nodes.pcie.config_space import FunctionConfig
from nodes.pcie.hierarchy import Bus

LINKS = 31
"""As many as bus 0 has room for beside its host bridge."""


def root_ports(number: int) -> list[dict[str, Any]]:
    """A hierarchy of a host bridge and `number` root ports, whose links are 0 and up.

    Raises:
        ModelError: they don't fit.
    """
    if not 0 <= number <= LINKS:
        raise ModelError(f"ports must be in 0..{LINKS}, not {number!r}")
    ports = [{"device": 1 + n, "type": "root_port", "link": n} for n in range(number)]
    return [{"device": 0, "type": "host_bridge"}, *ports]


class Pcie(Node):
    """Parameter `hierarchy`: functions of bus 0, each {device, function (0), type, below: [...] or link: 0..30 for a port};
    types are those of `IDENTITIES`. Or `ports`: so many root ports, devices 1 and up, each with the link of its place.

    Counters: `config_requests`, `memory_requests`; `unsupported_requests` (configuration requests for nobody, as enumeration
    makes them), `unclaimed_accesses` (memory requests for nobody), `unmodelled_accesses` (BARs with nothing behind them),
    `bus_errors`.
    """

    kind = "pcie"
    parameters = {
        "hierarchy": list,
        "ports": range(LINKS + 1),
    }
    counters = ("config_requests", "memory_requests")
    ecam = MmioTarget("configuration space; offset = requester ID << 12 | register")
    mmio = MmioTarget("memory space; absolute PCI addresses")
    for _number in range(LINKS):  # a class body's locals are the class's attributes: ports link0, link1 and so on
        locals()[f"link{_number}"] = MmioInitiator(
            "below the port with this link: ECAM offsets, absolute PCI addresses"
        )
    del _number

    def setup(self) -> None:
        self.root = Bus(self.params.get("hierarchy") or root_ports(self.params.get("ports", 0)))
        self._links: dict[int, MmioInitiator] = {n: getattr(self, f"link{n}") for n in range(LINKS)}
        used = list(self.root.links())
        if len(set(used)) < len(used) or not set(used) <= set(self._links):
            raise ModelError(f"links of ports must be different and in 0..{len(self._links) - 1}, not {used}")
        self.ecam.serve(self._config, self._config)
        self.mmio.serve(self._memory, self._memory)

    def _config(self, request: Request) -> Any:
        if request.size not in (1, 2, 4) or request.addr % request.size:
            what = f"{request.size} bytes at {request.addr:#x}"
            raise BusError(SLVERR, f"a configuration access must be 1, 2 or 4 bytes, aligned, not {what}")
        self.count["config_requests"] += 1
        rid, offset = divmod(request.addr, SIZE)
        if rid >> 8:
            target = self.root.find(rid >> 8, rid & 0xFF)
        else:
            function = self.root.functions.get(rid)
            target = function.config if function is not None else None
        if target is None:
            self.count["unsupported_requests"] += 1
            return (1 << 8 * request.size) - 1
        if isinstance(target, int):
            return self._forward(target, request)
        if request.data is None:
            return target.read(offset, request.size)
        assert isinstance(request.data, int)
        target.write(offset, request.size, request.data)
        return None

    def _memory(self, request: Request) -> Any:
        self.count["memory_requests"] += 1
        target = self.root.route(request.addr, request.size)
        if isinstance(target, int):
            return self._forward(target, request)
        what = f"{request.size} bytes at {request.addr:#x}"
        if isinstance(target, FunctionConfig):
            self.count["unmodelled_accesses"] += 1
            identity = target.identity
            raise BusError(SLVERR, f"{identity.vendor:04x}:{identity.device:04x} is configuration space only: {what}")
        self.count["unclaimed_accesses"] += 1
        raise BusError(DECERR, f"no window or BAR with memory space enabled claims {what}")

    def _forward(self, link: int, request: Request) -> Coroutine[Any, Any, int | bytes]:
        """Send a request on at once, in the order of arrival; its completion comes back when it is there."""
        return self._complete(self._links[link].issue(request.addr, request.size, request.data, request.attr), request)

    @staticmethod
    async def _complete(completion: Future[tuple[int, Any]], request: Request) -> int | bytes:
        status, data = await completion
        if status != OKAY:
            raise BusError(status, f"{request.size} bytes at {request.addr:#x} were refused below")
        result: int | bytes = data
        return result
