"""The test engine in Verilog as the node `smmute`: run by cocotb in a simulator, which run.py starts.

Here is what a PCI Express controller would do: configuration space, BAR decode, ports for the two functions' requests. Frames,
engine and MSI-X are in smmute.v. docs/attach-rtl.md has the tutorial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import cocotb

from cosim.attach.client import DECERR, OKAY, SLVERR
from cosim.attach.cocotb import Access, AttachClient, Dma, Message, Registers, RtlNode, Signals
from nodes.arch.pcie import requester_id, with_pasid
from nodes.smmute.config_space import ConfigSpace

PERIOD_PS = 1000
PORTS = {"ecam": "mmio_target", "mmio": "mmio_target", "dma0": "mmio_initiator", "dma1": "mmio_initiator"}
FUNCTIONS, VECTORS, BAR0_SIZE, TABLE_SIZE, PBA_SIZE = 2, 2048, 0x4_0000, 0x8000, 0x1000
CONFIG_SIZE, PAGE_OF_FRAMES, COMMAND_STRIDE = 4096, 0x1_0000, 128
NS = 2
EVENTS = {
    "ev_started": "transactions",
    "ev_misconfigured": "misconfigured",
    "ev_error": "errors",
    "ev_msi": "msis",
    "ev_msi_aborted": "msis_aborted",
}
REQUEST = {name: f"reg_{name}" for name in ("valid", "write", "secure", "fn", "space", "addr", "wdata")}
RESPONSE = {name: f"rsp_{name}" for name in ("valid", "rdata", "ignored")}
DMA = ("valid", "write", "fn", "addr", "size", "wdata", "attr", "pasid_valid", "pasid", "tag")
COMPLETION = {name: f"cpl_{name}" for name in ("valid", "tag", "error", "data")}


class Controller:
    """The design's side bands: what configuration space says to it, and the events that it counts."""

    def __init__(self, dut: Any, client: AttachClient, functions: list[ConfigSpace]) -> None:
        self._dut = dut
        self._client = client
        self._functions = functions
        self._driven: dict[str, int] = {}
        params = client.params
        dut.cfg_latency.value = params.get("engine_latency", 1_000_000) // PERIOD_PS
        dut.cfg_rate.value = params.get("engine_bytes_per_ns", 8) * PERIOD_PS // 1000
        self._drive()

    def step(self, _edge: int) -> bool:
        """See `Channel`."""
        for signal, counter in EVENTS.items():
            self._client.count[counter] += int(getattr(self._dut, signal).value)
        return self._drive()

    def _drive(self) -> bool:
        wanted = {
            "cfg_master": _bits(config.bus_master for config in self._functions),
            "cfg_msix_enable": _bits(config.msix_enabled for config in self._functions),
            "cfg_msix_mask": _bits(config.msix_masked for config in self._functions),
            "cfg_pasid": _bits(config.pasid_enabled for config in self._functions),
        }
        if wanted == self._driven:
            return False
        for name, value in wanted.items():
            getattr(self._dut, name).value = value
        self._driven = wanted
        return True


def _bits(flags: Iterable[bool]) -> int:
    return sum(int(flag) << n for n, flag in enumerate(flags))


def _is_command(offset: int) -> bool:
    return offset & PAGE_OF_FRAMES == 0 and offset % COMMAND_STRIDE == 0


class Endpoint:
    """The node."""

    def __init__(self, dut: Any, client: AttachClient) -> None:
        params = client.params
        if params.get("functions", 2) != FUNCTIONS or params.get("bar0_size", BAR0_SIZE) != BAR0_SIZE:
            raise ValueError(f"smmute.v has {FUNCTIONS} functions and a BAR 0 of {BAR0_SIZE:#x} bytes, not {params}")
        sizes = (BAR0_SIZE, TABLE_SIZE, PBA_SIZE)
        pasid = bool(params.get("pasid", False))
        functions = [ConfigSpace(sizes, VECTORS, multi_function=True, pasid=pasid) for _ in range(FUNCTIONS)]
        self.client = client
        self.functions = {
            requester_id(params.get("bus", 8), params.get("device", 0), n): (n, config)
            for n, config in enumerate(functions)
        }
        self.registers = Registers(dut, REQUEST, RESPONSE)
        self.dma = Dma(dut, {name: f"dma_{name}" for name in DMA}, "dma_ready", COMPLETION, self._issue)
        self._tags: dict[int, int] = {}  # of the bus -> of the design
        self.node = RtlNode(
            dut,
            client,
            self._receive,
            period_ps=PERIOD_PS,
            channels=(Controller(dut, client, functions), self.dma, self.registers),
            ahead="ahead",
        )

    def _receive(self, message: Message) -> None:
        if message.port == "ecam":
            self._configuration(message)
        elif message.port == "mmio":
            self._memory(message)
        else:
            data = message.data if isinstance(message.data, int) else int.from_bytes(message.data, "little")
            self._complete(self._tags.pop(message.tag), message.status, data)

    # -- configuration: answered at once -------------------------------------------------------------------------------

    def _configuration(self, message: Message) -> None:
        if message.size not in (1, 2, 4) or message.addr % message.size:
            self.client.count["bus_errors"] += 1
            self.client.reply(message, SLVERR)
            return
        _, config = self.functions.get(message.addr // CONFIG_SIZE, (0, None))
        register = message.addr % CONFIG_SIZE
        if message.kind == "mmio.Read":
            ones = (1 << 8 * message.size) - 1
            self.client.reply(message, data=ones if config is None else config.read(register, message.size))
            return
        if config is not None:
            config.write(register, message.size, message.data)
            self.node.wake()
        self.client.reply(message)

    # -- memory: words for the design ----------------------------------------------------------------------------------

    def _memory(self, message: Message) -> None:
        for n, config in self.functions.values():
            hit = config.decode(message.addr, message.size)
            if hit is not None:
                self._access(message, n, *hit)
                return
        self.client.count["unclaimed_accesses"] += 1
        self.client.reply(message, DECERR)

    def _access(self, message: Message, function: int, bar: int, offset: int) -> None:
        size = message.size
        pages = bar or PAGE_OF_FRAMES
        if offset % 4 or size % 4 or (bar == 0 and offset // pages != (offset + size - 1) // pages):
            self.client.count["bus_errors"] += 1
            self.client.reply(message, SLVERR)
            return
        write = message.kind != "mmio.Read"
        data = b""
        if write:
            data = message.data.to_bytes(size, "little") if isinstance(message.data, int) else message.data
        order = sorted(range(0, size, 4), key=lambda at: bar == 0 and _is_command(offset + at))  # commands last
        words: dict[int, int] = {}
        for at in order:
            signals = {
                "write": int(write),
                "secure": int(not message.attr & NS),
                "fn": function,
                "space": bar // 2,
                "addr": offset + at,
                "wdata": int.from_bytes(data[at : at + 4], "little"),
            }
            self.registers.submit(Access(signals, self._collect(message, at, words)))
        self.node.wake()

    def _collect(self, message: Message, at: int, words: dict[int, int]) -> Callable[[Signals | None, int], None]:
        def done(response: Signals | None, time: int) -> None:
            words[at] = -1 if response is None else response["rdata"]
            self.client.count["ignored_writes"] += 0 if response is None else response["ignored"]
            if len(words) * 4 < message.size:
                return
            if -1 in words.values():
                self.client.count["bus_errors"] += 1
                self.client.reply(message, SLVERR, at=time)
                return
            value = b"".join(words[n].to_bytes(4, "little") for n in sorted(words))
            whole = message.size in (4, 8)
            self.client.reply(message, data=int.from_bytes(value, "little") if whole else value, at=time)

        return done

    # -- DMA -----------------------------------------------------------------------------------------------------------

    def _issue(self, request: Signals, time: int) -> None:
        port, size, attr = f"dma{request['fn']}", request["size"], request["attr"]
        if request["pasid_valid"]:
            attr = with_pasid(attr, request["pasid"])
        if request["write"]:
            value = request["wdata"] & (1 << 8 * size) - 1
            data = value if size in (1, 2, 4, 8) else value.to_bytes(size, "little")
            tag = self.client.write(port, request["addr"], size, data, attr=attr, at=time)
        else:
            tag = self.client.read(port, request["addr"], size, attr=attr, at=time)
        if tag is None:
            self._complete(request["tag"], DECERR, 0)
        else:
            self._tags[tag] = request["tag"]

    def _complete(self, tag: int, status: int, data: int) -> None:
        self.dma.complete({"tag": tag, "error": int(status != OKAY), "data": data})
        self.node.wake()


@cocotb.test()
async def endpoint(dut: Any) -> None:
    """The node's life."""
    model = {"rtl": "smmute.v", "simulator": f"{cocotb.SIM_NAME} {cocotb.SIM_VERSION}", "cocotb": cocotb.__version__}
    with AttachClient.from_env(ports=PORTS, quantum_ps=0, model=model, caps=("wave",), kind="rtl") as client:
        node = Endpoint(dut, client).node
        await node.serve()
        dut._log.info("end at %d ps after %d grants, %d of them idle", client.now, node.grants, node.idle_grants)
