"""Figures of a run for Prometheus: what a scrape gets, while the run lasts and at its end."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cosim.errors import UsageError
from cosim.run.metrics import DEFAULT_ADDRESS, parse_address
from tests.support.runs import result, ring, start, up, wait_running

client = pytest.importorskip("prometheus_client", reason="needs the extra `metrics` (prometheus_client)")

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def samples(text: str) -> Samples:
    """Metric name -> labels -> value, by the library's own parser."""
    from prometheus_client.parser import text_string_to_metric_families

    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return found[name][tuple(sorted(labels.items()))]


def scrape(run_dir: Path) -> Samples:
    """What Prometheus would get from the run in `run_dir`."""
    with urllib.request.urlopen((run_dir / "metrics.url").read_text().strip(), timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return samples(answer.read().decode())


def test_a_run_is_scraped_while_it_goes_on(tmp_path: Path) -> None:
    """Two scrapes of one run see its state, its workers, and counters that grow; the last figures are those of the result."""
    run = tmp_path / "run"
    process = start(ring(tmp_path), run, "--set", "rounds=100000", "--workers", "2", "--metrics", "0", "--quiet")
    try:
        wait_running(run, process)
        first = scrape(run)
        deadline = time.monotonic() + 30
        while value(later := scrape(run), "cosim_events_total") <= value(first, "cosim_events_total"):
            assert time.monotonic() < deadline, "the counters must grow"
            time.sleep(0.1)
        assert value(later, "cosim_run_state", state="running") == 1
        assert sum(later["cosim_run_state"].values()) == 1
        assert (value(later, "cosim_nodes"), value(later, "cosim_workers"), value(later, "cosim_workers_joined")) == (
            4,
            2,
            2,
        )
        for name in ("cosim_grants_total", "cosim_frames_total", "cosim_sim_time_seconds"):
            assert value(later, name) > value(first, name), name
        assert value(later, "cosim_workers_lost_total") == value(later, "cosim_refused_peers_total") == 0
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    end, got = samples((run / "metrics.prom").read_text()), result(run)
    assert value(end, "cosim_run_state", state="interrupted") == 1
    assert value(end, "cosim_events_total") == got["events"] > 0
    assert value(end, "cosim_sim_time_seconds") == pytest.approx(got["sim_time_ps"] / 1e12)


def test_the_figures_of_the_end_are_the_results(tmp_path: Path) -> None:
    """A run that passes leaves a file with the figures of its result, and the same digest as one without metrics."""
    done = up(ring(tmp_path), tmp_path / "run", "--workers", "0", "--json", "--metrics", "127.0.0.1:0")
    got = json.loads(done.stdout)
    plain = json.loads(up(ring(tmp_path), tmp_path / "plain", "--workers", "0", "--json").stdout)
    assert (got["status"], got["digest"]) == ("passed", plain["digest"])
    end = samples((tmp_path / "run" / "metrics.prom").read_text())
    for name in ("events", "grants", "messages"):
        assert value(end, f"cosim_{name}_total") == got[name], name
    info = dict(next(iter(end["cosim_run_info"])))
    assert (info["topology"], info["run"], info["seed"]) == ("ring", "run", "1")
    assert not (tmp_path / "plain" / "metrics.prom").exists(), "off by default"


def test_a_failed_run_counts_its_errors(tmp_path: Path) -> None:
    """The errors of a run are counted by their code."""
    done = up(ring(tmp_path, "Raises"), tmp_path / "run", "--metrics", "0")
    assert done.returncode == 3, done.stderr
    end = samples((tmp_path / "run" / "metrics.prom").read_text())
    code = result(tmp_path / "run")["errors"][0]["code"]
    assert value(end, "cosim_errors_total", code=code) == 1
    assert value(end, "cosim_run_state", state="error") == 1


def test_a_port_in_use_ends_the_run_with_a_usage_error(tmp_path: Path) -> None:
    """A port that somebody has is named, with exit code 2; nothing else of the run is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = up(ring(tmp_path), tmp_path / "run", "--metrics", str(port))
    assert done.returncode == 2
    assert f"the metrics address 127.0.0.1:{port} must be free" in done.stderr


@pytest.mark.parametrize(
    ("text", "address"),
    {
        "9464": ("127.0.0.1", 9464),
        ":9000": ("127.0.0.1", 9000),
        "10.1.2.3:0": ("10.1.2.3", 0),
        "[::1]:9464": ("::1", 9464),
        DEFAULT_ADDRESS: ("127.0.0.1", 9464),
    }.items(),
)
def test_an_address_is_loopback_unless_it_says_otherwise(text: str, address: tuple[str, int]) -> None:
    """A port alone is on loopback; numeric addresses are taken as they are."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", "localhost:9464", "*:9464", "127.0.0.1:", "127.0.0.1:65536", "rdn2cfg1", "1:2:3", "²"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Names, wildcards and ports out of range are errors that show what is wanted."""
    with pytest.raises(UsageError, match="must be ADDRESS:PORT") as caught:
        parse_address(text)
    assert caught.value.exit_code == 2


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When prometheus_client is missing, --metrics is refused before a run directory is made."""
    import sys

    import cosim

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    options: dict[str, Any] = {
        "run_dir": tmp_path / "run",
        "metrics": "0",
        "workers": 0,
        "allow_models": ["tests.support"],
    }
    with pytest.raises(UsageError, match="prometheus_client") as caught:
        cosim.run(ring(tmp_path), **options)
    assert "cosim[metrics]" in caught.value.next_step
    assert not (tmp_path / "run").exists()
