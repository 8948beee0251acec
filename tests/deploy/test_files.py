"""The files of deploy/: each is checked by what reads such files, where that is installed, and against what cosim really has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from cosim.cli.main import group
from cosim.cli.up import up as up_command
from cosim.run import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    full = {**os.environ, **environment}
    return subprocess.run([*map(str, command)], env=full, text=True, capture_output=True, timeout=60, check=False)


def load(path: Path) -> Any:
    """A YAML file."""
    return YAML(typ="safe", pure=True).load(path.read_text())


def parse(words: list[str]) -> dict[str, Any]:
    """What the command line takes `cosim WORDS` for; fails for an option or command that does not exist."""
    command = group.get_command(click.Context(group), words[0])
    assert command is not None, words
    return command.make_context(words[0], words[1:]).params


def test_the_compose_file_fits_its_schema() -> None:
    """compose.yaml is valid by the Compose specification's schema, and a key that does not exist would not be."""
    pytest.importorskip("check_jsonschema", reason="needs the package check-jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = run(*check, DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_the_compose_file_refuses_a_key_that_does_not_exist(tmp_path: Path) -> None:
    """The check above can fail."""
    pytest.importorskip("check_jsonschema", reason="needs the package check-jsonschema")
    (tmp_path / "compose.yaml").write_text((DEPLOY / "compose.yaml").read_text().replace("cap_drop", "cap_drops"))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert run(*check, tmp_path / "compose.yaml").returncode == 1


def test_the_compose_file_runs_a_command_that_exists() -> None:
    """The service's words are taken by `cosim up`, as the image's user; what it mounts exists."""
    compose = load(DEPLOY / "compose.yaml")
    service = compose["services"]["cosim"]
    given = parse([re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in service["command"]])
    assert (given["topology"], given["metrics"]) == ("rdn2cfg1", "0.0.0.0:9464")
    assert service["user"] == "10001:10001"
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for other in ("prometheus", "grafana"):
        for volume in compose["services"][other]["volumes"]:
            assert (DEPLOY / volume.split(":")[0]).is_file(), volume


def exposed() -> set[str]:
    """The names of all metrics that a run can expose."""
    source = Path(metrics.__file__).read_text()
    names = set(re.findall(r'"(cosim_[a-z_]+)"', source))
    counters = {f"cosim_{name}" for name in re.findall(r'^ +\("([a-z]+)", "[A-Z]', source, re.M)}
    found = re.findall(r'CounterMetricFamily\(\s*"(cosim_[a-z_]+)"', source)
    return (names - set(found)) | {f"{name}_total" for name in (*counters, *found)} | {"cosim_run_info"}


@pytest.mark.parametrize("file", ["grafana/cosim.json", "prometheus/rules.yaml"])
def test_dashboard_and_rules_use_metrics_that_exist(file: str) -> None:
    """Every metric that the dashboard shows, or a rule watches, is one that a run exposes."""
    used = set(re.findall(r"\bcosim_[a-z_]+", (DEPLOY / file).read_text()))
    assert len(used) >= 3
    assert used <= exposed()


def test_the_dashboard_is_whole() -> None:
    """Panels have numbers of their own, expressions, and places that do not overlap."""
    board = json.loads((DEPLOY / "grafana" / "cosim.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 8
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert all(target["expr"] for target in panel["targets"])


def test_prometheus_takes_its_files() -> None:
    """promtool, where it is installed, finds no fault; the rules' file is the one that is mounted."""
    config = load(DEPLOY / "prometheus" / "prometheus.yaml")
    assert config["rule_files"] == ["rules.yaml"]
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == [f"cosim:{metrics.DEFAULT_PORT}"]
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    done = run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """systemd-analyze has nothing to say on the unit, but for the program, which is not installed here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian package systemd)")
    text = (DEPLOY / "systemd" / "cosim@.service").read_text()
    unit = tmp_path / "cosim@.service"
    unit.write_text(text.replace("/opt/cosim/bin/cosim", "/bin/true"))
    done = run("systemd-analyze", "verify", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(text.replace("/opt/cosim/bin/cosim", "/bin/true").replace("UMask=", "UMaks="))
    assert "UMaks" in run("systemd-analyze", "verify", unit).stderr


_FAKE = """\
#!/bin/bash
printf '%s\\n' "$@" >"$OUT"
[ "${WAIT:-}" = "" ] || { trap 'exit 143' TERM; kill -TERM "$PPID"; for _ in {1..200}; do sleep 0.05; done; }
exit "${STATUS:-0}"
"""


@pytest.fixture
def sbatch(tmp_path: Path) -> Any:
    """Run the batch script as Slurm's batch shell would, with a program in place of cosim; gives status and its words."""
    fake = tmp_path / "cosim"
    fake.write_text(_FAKE)
    fake.chmod(0o755)

    def call(*arguments: str, **environment: str) -> tuple[int, list[str]]:
        out = tmp_path / "words"
        own = {"COSIM": str(fake), "OUT": str(out), "SLURM_JOB_NUM_NODES": "3", "SLURMD_NODENAME": "192.0.2.7"}
        done = run("bash", DEPLOY / "slurm" / "cosim.sbatch", *arguments, **own, **environment)
        return done.returncode, out.read_text().splitlines() if out.exists() else []

    return call


def test_the_batch_script_starts_a_run_over_the_jobs_nodes(sbatch: Any) -> None:
    """It names as many hosts as the job has nodes, listens at its own address only, and passes options on."""
    status, words = sbatch("rdn2cfg1", "--set", "vcpus=4")
    assert status == 0
    given = parse(words)
    assert (given["topology"], given["hosts"], given["engine"]) == ("rdn2cfg1", "3", "slurm")
    assert given["listen"] == "192.0.2.7:0" and given["sets"] == ("vcpus=4",)


def test_the_batch_script_ends_with_the_runs_exit_code(sbatch: Any) -> None:
    """A failed run is a failed job, with the exit code that tells why; a missing topology is a usage error."""
    assert sbatch("rdn2cfg1", STATUS="4")[0] == 4
    assert sbatch()[0] not in (0, 4)


def test_the_batch_script_hands_on_slurms_warning(sbatch: Any) -> None:
    """SIGTERM to the batch shell, shortly before the time limit, ends the run, whose exit code the script waits for."""
    assert sbatch("rdn2cfg1", WAIT="1")[0] == 143


def test_the_image_is_built_in_two_stages_from_any_base() -> None:
    """The base is an argument of both stages, no host is named, and the entry point is a user's without rights."""
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^FROM (.*)$", text, re.M) == ["${BASE} AS build", "${BASE}"]
    assert not re.search(r"https?://|[a-z0-9-]+\.(io|com|org)\b", text)
    last = text.rpartition("FROM ")[2]
    assert last.index("USER 10001") < last.index("ENTRYPOINT")
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in source.split()), source


def test_the_metrics_port_is_one() -> None:
    """`--metrics` alone is the port that compose, Prometheus and the documentation name."""
    option = next(parameter for parameter in up_command.params if parameter.name == "metrics")
    assert isinstance(option, click.Option) and option.flag_value == metrics.DEFAULT_ADDRESS
    assert str(metrics.DEFAULT_PORT) in (ROOT / "docs" / "deploy.md").read_text()
