"""docs/attach-rtl.md: the channel that it shows for a design with DMA makes a copy engine fit."""

from __future__ import annotations

from pathlib import Path

from cosim.run.conform import Kit, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.docs.test_attach_rtl import PAGE, write
from tests.support.simulators import needs

_DESIGN = """\
`timescale 1ps/1ps
// Words from SRC (0x0) to DST (0x4), as many as are written to LEN (0x8), which starts it; irq rises at the end.
module copier (
    input wire clk,
    input wire req_valid, input wire req_write, input wire [3:0] req_addr, input wire [31:0] req_wdata,
    output reg rsp_valid, output reg [31:0] rsp_rdata,
    output reg m_valid, output reg m_write, output reg [31:0] m_addr, output reg [31:0] m_wdata, input wire m_ready,
    input wire c_valid, input wire c_error, input wire [31:0] c_rdata,
    output reg irq_changed, output reg failed,
    output wire attention, output wire busy
);
    localparam IDLE = 0, READ = 1, READING = 2, WRITE = 3, WRITING = 4;
    reg [2:0] state;
    reg [31:0] src, dst, left;
    initial begin
        rsp_valid = 0; rsp_rdata = 0; m_valid = 0; m_write = 0; m_addr = 0; m_wdata = 0; irq_changed = 0; failed = 0;
        state = IDLE; src = 0; dst = 0; left = 0;
    end
    assign attention = rsp_valid | m_valid | irq_changed;
    assign busy = req_valid | c_valid | attention | state == READ | state == WRITE;
    always @(posedge clk) begin
        rsp_valid <= req_valid;
        rsp_rdata <= left;
        m_valid <= 0;
        irq_changed <= 0;
        if (req_valid && req_write && state == IDLE) begin
            if (req_addr == 0) src <= req_wdata;
            if (req_addr == 4) dst <= req_wdata;
            if (req_addr == 8) begin left <= req_wdata; state <= READ; failed <= 0; end
        end
        if (state == READ || state == WRITE) begin
            m_valid <= m_ready;
            m_write <= state == WRITE;
            m_addr <= state == READ ? src : dst;
            if (m_ready) state <= state == READ ? READING : WRITING;
        end
        if (c_valid && (c_error || (state == WRITING && left == 1))) begin
            state <= IDLE;
            failed <= c_error;
            irq_changed <= 1;
        end else if (c_valid && state == READING) begin
            m_wdata <= c_rdata;
            state <= WRITE;
        end else if (c_valid) begin
            src <= src + 4; dst <= dst + 4; left <= left - 1;
            state <= READ;
        end
    end
endmodule
"""

_BENCH = """\
import cocotb
from cosim.attach.client import AttachClient
from cosim.attach.cocotb import Access, Registers, RtlNode
from dma import dma_channel

PORTS = {"regs": "mmio_target", "dma": "mmio_initiator", "irq": "wire"}


class Line:
    def __init__(self, dut, client):
        self.dut, self.client = dut, client

    def step(self, edge):
        if self.dut.irq_changed.value:
            self.client.send("irq", "wire.Level", (int(self.dut.failed.value), 1), at=edge)
        return False


@cocotb.test()
async def bench(dut):
    with AttachClient.from_env(ports=PORTS) as client:
        registers = Registers(
            dut,
            {"valid": "req_valid", "write": "req_write", "addr": "req_addr", "wdata": "req_wdata"},
            {"valid": "rsp_valid", "rdata": "rsp_rdata"},
        )
        channel, completed = dma_channel(dut, client)

        def receive(message):
            if message.kind == "mmio.Completion":
                completed(message)
                node.wake()
                return
            write = message.kind != "mmio.Read"
            signals = {"write": write, "addr": message.addr, "wdata": message.data if write else 0}
            registers.submit(Access(signals, lambda response, at: client.reply(message, data=response["rdata"], at=at)))
            node.wake()

        node = RtlNode(dut, client, receive, period_ps=1000, channels=(registers, Line(dut, client), channel))
        await node.serve()
"""

_STIMULUS = {
    "clock": "1ns",
    "latency": "10ns",
    "service": "7ns",
    "resets": [],
    "inputs": [
        {"at": "100ns", "port": "regs", "write": 0, "size": 4, "data": 0x1000},
        {"at": "110ns", "port": "regs", "write": 4, "size": 4, "data": 0x2000},
        {"at": "120ns", "port": "regs", "write": 8, "size": 4, "data": 3},
        {"at": "150ns", "port": "regs", "read": 8, "size": 4},
    ],
    "horizon": "1us",
}


@needs("icarus")
def test_the_page_s_dma_channel_is_fit(tmp_path: Path) -> None:
    """Three words are six requests, four completions and an interrupt in each partition; errors, second completions are borne."""
    write(PAGE, "dma.py", tmp_path)
    start = write(PAGE, "start.py", tmp_path)
    start.write_text(start.read_text().replace("timer", "copier"))
    (tmp_path / "copier.v").write_text(_DESIGN)
    (tmp_path / "bench.py").write_text(_BENCH)
    stimulus, setup = stimulus_from(_STIMULUS, Setup(["python", str(start)], wait_s=60.0))
    kit = Kit(setup, stimulus)
    names = ("one event", "SLVERR", "twice")
    verdicts = list(examine(kit, lambda case: any(name in case for name in names)))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert len(verdicts) == 1 + len(names)
    assert kit.reference is not None and len(kit.reference.records) == 6 + 4 + 1
