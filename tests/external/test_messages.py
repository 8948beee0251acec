"""What somebody who attaches a first node is told when something is wrong: port, cause, message in words, next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.run.conform import Kit, Verdict, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import ROOT, build
from tests.external.test_bad_nodes import run, small
from tests.support.runs import cosim
from tests.support.simulators import needs

_IN_C = """\
#define CSA_IMPLEMENTATION
#include "csa.h"
static csa node;
int main(void) {
    static const csa_port ports[] = {{"regs", "mmio_target"}, {"dma", "mmio_initiator"}, {"irq", "wire"}};
    if (csa_open_env(&node, ports, 3, 0, 0, "wrong 1.0")) return csa_complain(&node);
    csa_ready(&node, CSA_NEVER, CSA_NEVER);
    while (csa_wait(&node) > 0) {
        while (csa_peek(&node) < node.stop) {
            const csa_msg *m = csa_take(&node);
            if (!m) continue;
            WRONG;
            csa_reply(&node, m, CSA_OKAY, 0, node.now);
        }
        csa_done(&node, CSA_NEVER, CSA_NEVER, node.stop);
    }
    if (csa_error(&node)[0]) return csa_complain(&node);
    return csa_close(&node);
}
"""

_IN_PYTHON = """\
from cosim.attach.client import SLVERR, AttachClient

with AttachClient.from_env(ports={"regs": "mmio_target", "dma": "mmio_initiator", "irq": "wire"}) as node:
    for grant in node:
        for message in grant:
            WRONG
        node.done()
"""

_WRONG_PORTS = {
    "initiator": (
        'node.read("dmx", 0, 4)',
        'csa_read(&node, "dmx", 0, 4, 0, node.now, NULL)',
        "port dmx must be an mmio_init",
    ),
    "line": (
        'node.send("irk", "wire.Level", (0, 1))',
        'csa_level(&node, "irk", NULL, 0, 1, node.now)',
        "port irk must lead to one peer",
    ),
}

_ONE_WRITE = {
    "clock": "1ns",
    "latency": "10ns",
    "inputs": [
        {"at": "100ns", "port": "regs", "write": 8, "size": 4, "data": 7},
        {"at": "200ns", "port": "regs", "read": 8, "size": 4},
    ],
    "horizon": "1us",
}


def first(argv: list[str]) -> tuple[Kit, Verdict]:
    """The kit's first verdict on a node that gets one write and one read."""
    stimulus, setup = stimulus_from(_ONE_WRITE, Setup(argv, wall_s=10.0))
    kit = Kit(setup, stimulus)
    return kit, next(examine(kit))


def in_python(folder: Path, text: str) -> list[str]:
    """A node in Python that does `text` with each message."""
    path = folder / "node.py"
    path.write_text(_IN_PYTHON.replace("WRONG", text))
    return ["python", str(path)]


@pytest.mark.parametrize("what", _WRONG_PORTS)
def test_a_port_that_is_not_there_in_python(tmp_path: Path, what: str) -> None:
    """A misspelt port ends the node with its name; it is no hole in the address map."""
    text, _, told = _WRONG_PORTS[what]
    _kit, verdict = first(in_python(tmp_path, text))
    assert verdict.rule == "node-lost"
    assert f"bad-link: {told}" in verdict.text


@pytest.mark.parametrize("what", _WRONG_PORTS)
def test_a_port_that_is_not_there_in_c(tmp_path: Path, what: str) -> None:
    """The same in C, where the loop of docs/attach.md ends at once: it does not go round with an input that it can't take."""
    _, text, told = _WRONG_PORTS[what]
    source = tmp_path / "node.c"
    source.write_text(_IN_C.replace("WRONG", text))
    _kit, verdict = first([str(build(source, tmp_path / "node"))])
    assert verdict.rule == "node-lost"
    assert f"bad-link: {told}" in verdict.text


def test_messages_are_told_in_words(tmp_path: Path) -> None:
    """A verdict has the message that broke the rule, and what the last frames said, by the names of kinds, ports and fields."""
    _kit, verdict = first(in_python(tmp_path, "node.reply(message, at=node.now - 5000)"))
    assert verdict.rule == "promise"
    assert verdict.text.endswith(
        "message #0 from regs to kit.regs, sent at 95000 ps: mmio.Completion tag=0 status=0 data=0"
    )
    grant, done = verdict.frames[-2:]
    assert grant.startswith("to node:   GRANT 1 below ")
    assert "arriving at 100000 ps at regs: mmio.Write tag=0, addr=8, size=4, data=7, attr=3; arriving at" in grant
    assert done.startswith(
        "from node: DONE 1 at 125000 ps, next_event 200000 ps, next_out 200000 ps: #0 sent at 95000 ps by regs: "
    )
    assert ", frame 43534131" in grant and ", frame 43534131" in done


@pytest.mark.parametrize(
    ("text", "unserved"),
    [
        ("node.reply(message, SLVERR)", ("1 read", "1 write")),
        ("node.reply(message, 0 if message.kind == 'mmio.Read' else SLVERR)", ("1 write",)),
        ("node.reply(message)", ()),
    ],
)
def test_accesses_that_only_fail_prove_little(tmp_path: Path, text: str, unserved: tuple[str, ...]) -> None:
    """The reference knows the kinds of access of which the node completed none with OKAY."""
    kit, verdict = first(in_python(tmp_path, text))
    assert verdict.rule == "" and kit.reference is not None
    assert kit.reference.unserved == unserved


def test_the_kit_says_that_accesses_only_failed(tmp_path: Path) -> None:
    """`fit` comes with a note then: a stimulus would prove more."""
    done = cosim("conform", "--only", "far", "--", *in_python(tmp_path, "node.reply(message, SLVERR)"))
    assert done.returncode == 0, done.stdout
    assert "fit: 1 case, " in done.stdout
    assert " writes was completed with OKAY; a --stimulus" in done.stdout


def test_a_node_that_dies_has_its_output_named(tmp_path: Path) -> None:
    """The next step of a lost foreign node is its own output, and to replay it."""
    _code, err, got = run(small(tmp_path, "dies"), tmp_path / "run")
    step = got["errors"][0]["next_step"]
    assert "its output is workers/memory.log of the run directory; `cosim replay RUN memory` drives it" in step
    assert "nobody" not in err


def test_a_node_without_waveforms(tmp_path: Path) -> None:
    """The next step of a node that --wave finds unable is to ask only others."""
    code, _err, got = run(small(tmp_path, "none"), tmp_path / "run", "--wave")
    assert (code, got["errors"][0]["code"]) == (4, "wave")
    assert "--wave-of NODE in place of --wave" in got["errors"][0]["next_step"]


def test_looking_at_a_foreign_node(tmp_path: Path) -> None:
    """It has no registers and no log: `regs` says so of an orderly run, `logs` where its output is."""
    topology = small(tmp_path, "none")
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text("from tests.external.bad_memory import serve\nprint('hello', flush=True)\nserve('none')\n")
    argv = f'["python", "{wrapper}"]\n      env: {{PYTHONPATH: "{ROOT}"}}'
    lines = topology.read_text().splitlines()
    topology.write_text("\n".join(f"      argv: {argv}" if "argv:" in line else line for line in lines) + "\n")
    code, err, _got = run(topology, tmp_path / "run")
    assert (code, err) == (0, "")
    registers = cosim("regs", "memory", "--run", tmp_path / "run")
    assert registers.returncode == 2
    assert "memory has no registers to show" in registers.stderr
    logs = cosim("logs", "memory", "--run", tmp_path / "run")
    assert (logs.returncode, logs.stdout) == (0, "")
    assert f"memory logged nothing; what it printed is in {tmp_path}/run/workers/memory.log" in logs.stderr


_ENDS = """\
module ends (input wire clk, output wire attention, output wire busy);
    reg [3:0] count = 0;
    assign attention = 0;
    assign busy = 1;
    always @(posedge clk) begin
        count <= count + 1;
        if (count == 5) $finish;
    end
endmodule
"""

_ENDS_BENCH = """\
import cocotb
from cosim.attach.client import AttachClient
from cosim.attach.cocotb import RtlNode


@cocotb.test()
async def bench(dut):
    with AttachClient.from_env(ports={"regs": "mmio_target"}) as client:
        node = RtlNode(dut, client, lambda message: (client.reply(message), node.wake()), period_ps=1000, channels=())
        await node.serve()
"""

_ENDS_START = """\
import os, sys
from cocotb_tools.runner import get_runner

here = os.path.dirname(os.path.abspath(__file__))
os.environ["PYTHONPATH"] = os.pathsep.join([here, *sys.path])
runner = get_runner("icarus")
where = {"build_dir": here + "/build", "timescale": ("1ps", "1ps")}
runner.build(sources=[here + "/ends.v"], hdl_toplevel="ends", **where)
runner.test(hdl_toplevel="ends", test_module="ends_bench", test_dir=here, results_xml=here + "/results.xml", **where)
"""


def test_a_node_that_fails_before_it_is_ready(tmp_path: Path) -> None:
    """What a node says of its failure is its failure, not a frame out of order."""
    path = tmp_path / "node.py"
    path.write_text(
        "from cosim.attach.client import AttachClient\n"
        "with AttachClient.from_env(ports={'regs': 'mmio_target'}):\n    raise ValueError('no memory of that size')\n"
    )
    _kit, verdict = first(["python", str(path)])
    assert verdict.rule == "node-failed"
    assert "ValueError: no memory of that size" in verdict.text


@needs("icarus")
def test_a_simulator_that_ends_by_itself(tmp_path: Path) -> None:
    """$finish in a design is told as the simulator's end, not as a cancelled task."""
    for name, text in (("ends.v", _ENDS), ("ends_bench.py", _ENDS_BENCH), ("start.py", _ENDS_START)):
        (tmp_path / name).write_text(text)
    stimulus, setup = stimulus_from(_ONE_WRITE, Setup(["python", str(tmp_path / "start.py")], wait_s=60.0))
    verdict = next(examine(Kit(setup, stimulus)))
    assert verdict.rule == "node-failed"
    assert "the simulator ended before the run ($finish, $fatal" in verdict.text
