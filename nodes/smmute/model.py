"""The SMMUv3 test engine as a PCI Express endpoint of two functions (TF-A-Tests, SMMUv3TestEngine.h; sysarch-acs, PCIe
hierarchy of the FVP).

Configuration comes by ECAM, register accesses at absolute PCI addresses that the functions decode by their BARs; each function
masters the bus by a port of its own, so that its requester ID follows from the plan.
"""

from __future__ import annotations

from cosim.api import DECERR, SLVERR, BusError, MmioInitiator, MmioTarget, ModelError, Node, Request, us
from nodes.arch.pci_config import SIZE
from nodes.arch.pcie import bdf, requester_id
from nodes.smmute.function import PAIR, Function


class Smmute(Node):
    """Parameters: `bus`, `device` (PCI numbers), `functions` (1 or 2), `engine_latency` (ps), `engine_bytes_per_ns`,
    `bar0_size` (bytes, power of two, 128 KiB a page pair), `pasid` (whether functions have the PASID capability).

    Counters: `transactions` (commands started), `msis` (MSI-X writes sent), `errors`, `misconfigured`, `msis_aborted`,
    `master_aborts`, `pasid_refused` (without PASID Enable), `rate_ignored` (uctrl.RATE's unit is not public: the engine keeps
    to the parameters), `ignored_writes`, `unclaimed_accesses`, `bus_errors`.
    """

    kind = "smmute"
    parameters = {
        "bus": range(256),
        "device": range(32),
        "functions": (1, 2),
        "engine_latency": int,
        "engine_bytes_per_ns": range(1, 1 << 31),
        "bar0_size": int,
        "pasid": bool,
    }
    counters = ("transactions", "msis")
    ecam = MmioTarget("configuration space; offset = requester ID << 12 | register")
    mmio = MmioTarget("memory space; absolute PCI addresses")
    dma0 = MmioInitiator("function 0's transactions")
    dma1 = MmioInitiator("function 1's transactions")

    def setup(self) -> None:
        params = self.params
        bus, device = params.get("bus", 8), params.get("device", 0)
        number = params.get("functions", 2)
        bar0_size = params.get("bar0_size", 0x4_0000)
        rate = params.get("engine_bytes_per_ns", 8)
        if number not in (1, 2):
            raise ModelError(f"functions must be 1 or 2, not {number!r}")
        if bar0_size < PAIR or bar0_size & bar0_size - 1:
            raise ModelError(f"bar0_size must be a power of two of at least {PAIR:#x} bytes, not {bar0_size!r}")
        if rate < 1:
            raise ModelError(f"engine_bytes_per_ns must be at least 1, not {rate!r}")
        self.functions = {
            requester_id(bus, device, n): Function(
                self,
                n,
                self.dma1 if n else self.dma0,
                functions=number,
                bar0_size=bar0_size,
                pasid=bool(params.get("pasid", False)),
                latency=params.get("engine_latency", us(1)),
                bytes_per_ns=rate,
            )
            for n in range(number)
        }
        self.ecam.serve(self._read_config, self._write_config)
        self.mmio.serve(self._read_memory, self._write_memory)

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Per function and page pair that was touched: ``SMMUTE@08:00.1/0``."""
        return {
            f"SMMUTE@{bdf(rid).partition(':')[2]}/{pair}": bank.snapshot()
            for rid, function in self.functions.items()
            for pair, bank in function.banks()
        }

    # -- configuration -------------------------------------------------------------------------------------------------

    def _read_config(self, request: Request) -> int:
        function = self._configured(request)
        if function is None:
            return (1 << 8 * request.size) - 1
        return function.config.read(request.addr % SIZE, request.size)

    def _write_config(self, request: Request) -> None:
        function = self._configured(request)
        if function is not None:
            assert isinstance(request.data, int)
            function.write_config(request.addr % SIZE, request.size, request.data)

    def _configured(self, request: Request) -> Function | None:
        if request.size not in (1, 2, 4) or request.addr % request.size:
            raise BusError(
                SLVERR,
                f"a configuration access must be 1, 2 or 4 bytes, aligned, not {request.size} bytes at {request.addr:#x}",
            )
        return self.functions.get(request.addr // SIZE)

    # -- memory space --------------------------------------------------------------------------------------------------

    def _read_memory(self, request: Request) -> int | bytes:
        function, bar, offset = self._claim(request)
        return function.read_bar(bar, offset, request)

    def _write_memory(self, request: Request) -> None:
        function, bar, offset = self._claim(request)
        function.write_bar(bar, offset, request)

    def _claim(self, request: Request) -> tuple[Function, int, int]:
        for function in self.functions.values():
            hit = function.config.decode(request.addr, request.size)
            if hit is not None:
                return function, *hit
        self.count["unclaimed_accesses"] += 1
        raise BusError(DECERR, f"no BAR with memory space enabled claims {request.size} bytes at {request.addr:#x}")
