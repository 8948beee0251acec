"""Python and C read and write the same bytes, and both survive bytes that are wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cosim.attach.client import AttachClient, AttachError
from cosim.attach.plan import AttachPlan, PlanError
from cosim.core.message import Record
from tests.external.fuzz_codec import VECTORS, fuzz, seeds
from tests.external.nodes import HERE, build
from tests.vectors import make_attach

FRAMES = json.loads((VECTORS / "frames.json").read_text())
ATTACH = json.loads((VECTORS / "attach.json").read_text())
CI_INPUTS = 200_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs csa.h without a socket."""
    return build(HERE / "csa_driver.c", tmp_path_factory.mktemp("csa") / "driver", "-std=c99", "-pedantic", "-O1")


def ask(driver: Path, commands: list[str]) -> list[str]:
    """Run the driver's commands; its lines. It must say nothing on stderr."""
    done = subprocess.run([driver], input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_vectors_are_current() -> None:
    """attach.json is what the Python codec writes today: a change of the wire shows here."""
    assert make_attach.vectors() == ATTACH


def test_python_reads_the_plan() -> None:
    """The plan comes back as it was; every wrong one is refused with a PlanError."""
    assert AttachPlan.from_msgpack(bytes.fromhex(ATTACH["plan"])) == make_attach.PLAN
    for why, text in ATTACH["refused_plans"].items():
        with pytest.raises(PlanError):
            AttachPlan.from_msgpack(bytes.fromhex(text))
            pytest.fail(f"a plan must be refused: {why}")


def test_c_accepts_and_refuses_as_python(driver: Path) -> None:
    """Every frame and blob of the vectors is accepted by csa.h, every wrong one refused."""
    good = [f"frame {f['hex']}" for f in FRAMES["frames"]] + [f"blob {b['hex']}" for b in FRAMES["blobs"]]
    good += [f"frame {ATTACH[name]}" for name in ("hello", "welcome")]
    bad = [f"frame {r['hex']}" for r in FRAMES["refused"]]
    bad += [f"plan {text}" for text in ATTACH["refused_plans"].values()]
    answers = ask(driver, good + bad)
    assert answers[: len(good)] == ["ok"] * len(good)
    assert all(a.startswith("refused: ") for a in answers[len(good) :]), answers[len(good) :]


def test_c_writes_the_same_hello(driver: Path) -> None:
    """HELLO is the same, byte for byte, but for the order of ports, which both give."""
    assert ask(driver, ["hello", "sent"]) == [ATTACH["hello"]]


def test_c_plays_the_session(driver: Path) -> None:
    """The same grants give the same inputs in the same order and the same answers: early return, epochs, power off."""
    commands = [f"plan {ATTACH['plan']}"]
    expected = ["ok dut 6 1 7 16384 -5"]
    for step in ATTACH["session"][:3]:
        if "deliver" in step:  # ahead of the grant: more inputs than one frame takes
            commands.append(f"take {step['deliver']}")
            expected.append("2")
        commands.append(f"take {step['grant']}")
        expected.append("1")
        if "take" in step:
            commands.append("inputs")
            expected += [*step["take"], "end"]
        commands += [f"reply {tag} {value}" for tag, value in step.get("replies", [])]
        if "dma_read" in step:
            address, size = step["dma_read"]
            commands += [f"dma {address} {size} {step['at']}", f"level {step['level_at']}"]
        event = 170_000 if step is ATTACH["session"][0] else 2**63 - 1
        commands += [f"done {event}", "sent"]
        expected.append(step["done"])
    last: dict[str, Any] = ATTACH["session"][3]
    assert ask(driver, [*commands, f"take {last['bye']}", "sent"]) == [*expected, "0", last["report"]]


def test_inputs_must_be_taken_before_the_clock_passes_them(driver: Path) -> None:
    """An answer that leaves an input behind the clock is refused by csa.h and by the Python client, with the input's time."""
    grant = ATTACH["session"][0]["grant"]
    said = ask(driver, [f"plan {ATTACH['plan']}", f"take {grant}", "skip", "error"])
    assert said[2] == "kept-input: the input for 90000 ps must be taken before the clock goes on to 150000 ps"
    client = AttachClient.__new__(AttachClient)
    client.plan, client.stop, client._open_grant = make_attach.PLAN, 150_000, True
    client._kept = [(90_000, 30, 8, 4, Record(90_000, 4, 2, 65, ()))]
    with pytest.raises(AttachError, match="kept-input: the input for 90000 ps must be taken before 150000 ps"):
        client.done()


def test_a_grant_must_be_answered_before_the_next(driver: Path) -> None:
    """Both clients say that the answer is missing, instead of waiting for a grant that can't come."""
    grant = ATTACH["session"][0]["grant"]
    said = ask(driver, [f"plan {ATTACH['plan']}", f"take {grant}", "wait", "error"])
    assert said[2:] == ["-1", "order: csa_done must answer the grant before csa_wait waits for the next one"]
    client = AttachClient.__new__(AttachClient)
    client._open_grant = True
    with pytest.raises(AttachError, match=r"order: done\(\) must answer the grant"):
        client.wait()


def test_c_refuses_bus_kinds_of_another_form(driver: Path) -> None:
    """A plan whose Read has no fields is refused: csa.h reads them by position."""
    plan = make_attach.PLAN
    odd = plan._replace(kinds=tuple(row._replace(fields=()) if row.name == "mmio.Read" else row for row in plan.kinds))
    assert ask(driver, [f"plan {odd.to_msgpack().hex()}"]) == [
        "refused: plan: bus, wire and power kinds must have their fields"
    ]


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++"])
def test_the_header_is_clean(tmp_path: Path, compiler: str) -> None:
    """csa.h compiles without a warning as C99 and C++11."""
    source = tmp_path / f"node.{'cpp' if compiler == 'g++' else 'c'}"
    source.write_text('#define CSA_IMPLEMENTATION\n#include "csa.h"\nint main(void) { return 0; }\n')
    standard = "-std=c++11" if compiler == "g++" else "-std=c99"
    build(source, tmp_path / "node", standard, "-pedantic", "-O2", compiler=compiler)


def test_c_survives_malformed_input(tmp_path: Path) -> None:
    """csa.h under the address and undefined-behaviour sanitizers (`make fuzz` runs fifty times as many)."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = build(HERE / "csa_fuzz.c", tmp_path / "fuzz", *flags)
    corpus = "\n".join(seed.hex() for seed in seeds()) + "\n"
    done = subprocess.run([program, str(CI_INPUTS), "1"], input=corpus, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{CI_INPUTS} inputs\n", "")


def test_python_survives_malformed_input() -> None:
    """Any bytes give a result or a WireError; both happen often, so the inputs are neither all right nor all wrong."""
    accepted, refused = fuzz(CI_INPUTS, 1)
    assert accepted > CI_INPUTS // 50 and refused > CI_INPUTS // 4
