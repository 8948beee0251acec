"""`cosim conform` passes the shipped examples in every case, and tells by its exit code what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosim.run.conform import Kit, default_stimulus, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import ENGINE_STIMULUS, EXAMPLES, HERE, build, plain_yaml
from tests.support.runs import cosim

ENGINE = ["python", str(EXAMPLES / "python_node" / "engine.py")]


def test_the_engine_is_fit() -> None:
    """All cases, resets and error completions among them; every partition gives as many messages."""
    stimulus, setup = stimulus_from(plain_yaml(ENGINE_STIMULUS), Setup(ENGINE))
    verdicts = list(examine(Kit(setup, stimulus)))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert {"reset (reset) in mid-transfer", "completions with DECERR", "HELLO refused"} <= {v.case for v in verdicts}
    assert len({v.messages for v in verdicts if v.case.startswith("partition: ")}) == 1
    assert len({v.grants for v in verdicts if v.case.startswith("partition: ")}) > 4


def test_a_reset_by_an_access() -> None:
    """`resets` may be an access; one that resets nothing is caught, since what completes afterwards still matters."""
    data = plain_yaml(ENGINE_STIMULUS)
    data["resets"] = [{"port": "regs", "post": 0x18, "size": 8, "data": 2}]
    stimulus, setup = stimulus_from(data, Setup(ENGINE))
    verdicts = list(examine(Kit(setup, stimulus), lambda name: "reset" in name))
    assert [(v.case, v.rule) for v in verdicts[1:]] == [("reset (regs mmio.WritePosted) in mid-transfer", "reset")]
    assert "OKAY or SLVERR in 1 of them" in verdicts[1].text


def test_the_memory_in_c_is_fit(tmp_path: Path) -> None:
    """All cases, under the sanitizers."""
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = build(EXAMPLES / "c_node" / "memory.c", tmp_path / "memory", *flags)
    verdicts = list(examine(Kit(Setup([str(program)]))))
    assert [(v.case, v.rule, v.text) for v in verdicts if v.rule] == []
    assert len(verdicts) > 15


def test_exit_codes_and_json() -> None:
    """0 and verdicts for a fit node; 1 with the rule, the simulated time and the frames for another; 2 for wrong use."""
    good = cosim("conform", "--only", "seeds", "--json", "--", "python", str(EXAMPLES / "python_node" / "memory.py"))
    assert good.returncode == 0, good.stderr
    assert [v["case"] for v in json.loads(good.stdout)] == ["partition: far", "equal seeds"]
    node = HERE / "broken" / "message_sequence.py"
    bad = cosim("conform", "--stimulus", ENGINE_STIMULUS, "--", "python", str(node))
    assert bad.returncode == 1
    assert "FAIL  partition: far: rule message-sequence at " in bad.stdout
    assert "from node: DONE " in bad.stdout and ", frame 4353413105" in bad.stdout
    assert "not fit: message-sequence broken" in bad.stdout
    wrong = cosim("conform", "--clock", "soon", "--", "true")
    assert wrong.returncode == 2 and "soon" in wrong.stderr


def test_a_program_that_is_no_node() -> None:
    """It is named as lost, with what it printed."""
    done = cosim("conform", "--", "sh", "-c", "echo not a simulator; exit 5")
    assert done.returncode == 1
    assert "rule node-lost" in done.stdout and "exit status 5: not a simulator" in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"inptus": []},
        {"inputs": [{"at": "1ns"}]},
        {"inputs": [{"at": "1ns", "port": "x", "kind": "gic_net.Nothing"}]},
        {"inputs": [], "resets": [{"port": "x"}]},
        {"inputs": [{"at": "1ns", "port": "x", "kind": "mmio.Read", "fields": [1]}]},
        {"inputs": [{"at": -1, "port": "x", "read": 0}]},
        {"inputs": [{"at": 1, "port": "x", "read": -8}]},
        {"inputs": [{"at": 1, "port": "x", "read": 0, "size": "4KiB"}]},
        {"inputs": [{"at": 1, "port": "x", "write": 0, "size": 1, "data": 256}]},
        {"inputs": [{"at": 1, "port": "x", "write": 0, "size": 16, "data": 5}]},
        {"inputs": [{"at": 1, "port": "x", "post": 0, "size": 4, "data": "001122"}]},
        {"inputs": {"at": 1}},
        {"inputs": [1]},
        {"inputs": [], "params": [1]},
        {"inputs": [], "resets": 5},
        {"inputs": [], "clock": "0ns"},
        {"inputs": [], "latency": 0},
    ],
)
def test_a_wrong_stimulus_is_refused(wrong: object) -> None:
    """A stimulus file that is malformed is a ValueError, which the command reports as wrong use."""
    with pytest.raises(ValueError):
        stimulus_from(wrong, Setup(["true"]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--size", "many"], "invalid literal"),
        (["--size", "0"], "--size must be at least 1"),
        (["--clock", "0ns"], "--clock must be at least 1ps"),
        (["--stimulus", "FILE"], "must be YAML"),
    ],
)
def test_wrong_options_are_wrong_use(options: list[str], text: str, tmp_path: Path) -> None:
    """Exit code 2 and what is wrong, not a fault of cosim's own."""
    (tmp_path / "broken.yaml").write_text("inputs: [ {at: 1\n")
    given = [str(tmp_path / "broken.yaml") if option == "FILE" else option for option in options]
    done = cosim("conform", *given, "--", "true")
    assert done.returncode == 2 and text in done.stderr


def test_data_in_hex_digits() -> None:
    """Bytes of 1, 2, 4 and 8 are the number that they are in memory; other sizes stay bytes."""
    inputs = [
        {"at": 1, "port": "x", "write": 0, "size": 4, "data": "01020304"},
        {"at": 1, "port": "x", "post": 0, "size": 3, "data": "010203"},
    ]
    stimulus, _setup = stimulus_from({"inputs": inputs}, Setup(["true"]))
    assert [item.fields for item in stimulus.inputs] == [(0, 0, 4, 0x04030201, 3), (0, 3, b"\1\2\3", 3)]


def test_the_default_stimulus_is_drawn_from_the_seed() -> None:
    """Equal seeds give equal stimuli, another seed another; every target port gets its share."""
    ports = {"a": "mmio_target", "b": "mmio_target", "c": "wire"}
    first = default_stimulus(ports, 1000, 1, 0x100)
    assert first == default_stimulus(ports, 1000, 1, 0x100) != default_stimulus(ports, 1000, 2, 0x100)
    assert {item.port for item in first.inputs} == {"a", "b"}
