"""Figures of a run for Prometheus: ``cosim up --metrics [ADDR:PORT]``, with the extra `metrics` (prometheus_client).

Nothing is counted here. A scrape reads what the supervisor knows at that moment, so that a run without scrapes pays nothing,
and one with scrapes pays in the supervisor's process alone: the hub, its loop and the workers know nothing of metrics (but with
``--workers 0``, where all are threads of one process).

What a scrape is given follows the text exposition format and its naming rules: base units, so seconds; counters end in
``_total`` (prometheus.io/docs, "Metric and label naming").
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cosim
from cosim.errors import UsageError

if TYPE_CHECKING:
    from cosim.run.supervisor import Supervisor

DEFAULT_PORT = 9464
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
METRICS_FILE = "metrics.prom"
"""In the run directory: the figures of the end, which the last scrape has mostly missed."""
URL_FILE = "metrics.url"
"""In the run directory while the run lasts and after it: where the figures are served; with port 0, which port it is."""
PS_PER_S = 1_000_000_000_000
STATES = ("starting", "running", "passed", "failed", "error", "interrupted")
LOST = ("worker-lost", "host-lost")
"""Codes of the errors that tell of processes or hosts that are gone."""


def parse_address(text: str) -> tuple[str, int]:
    """``ADDR:PORT``, ``:PORT``, ``PORT`` or ``[IPv6]:PORT`` as address and port; without an address it is loopback. Port 0 is any.

    Raises:
        UsageError: anything else; names are not looked up, so that nothing listens on more than was asked for.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        number = int(port)
        if not port.isascii() or not 0 <= number <= 65_535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"the metrics address must be ADDRESS:PORT with a numeric address and a port up to 65535, not {text!r}",
            code="metrics-address",
            where="--metrics",
            next_step=f"for example --metrics {DEFAULT_ADDRESS}, or --metrics alone for that very address",
        ) from None
    return host, number


def library() -> Any:
    """The package prometheus_client; UsageError when it is not installed."""
    try:
        import prometheus_client
    except ImportError:
        raise UsageError(
            "--metrics must find the package prometheus_client, and it is not installed",
            code="metrics-missing",
            where="--metrics",
            next_step="install the extra: pip install 'cosim[metrics]'",
        ) from None
    return prometheus_client


class Metrics:
    """A run's figures, as a collector of prometheus_client: `collect` is called at each scrape, in the server's thread.

    What it reads is replaced as a whole by the supervisor, or only grows: no lock is needed.

    Args:
        address: where to listen; see `parse_address`.
        supervisor: the run.

    Raises:
        UsageError: prometheus_client is missing, or the address can't be bound.
    """

    def __init__(self, address: tuple[str, int], supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._library = library()
        self._registry = self._library.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        host, port = address
        try:
            self._server, self._thread = self._library.start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise UsageError(
                f"the metrics address {host}:{port} must be free and one of this machine's: {os.strerror(error.errno or 0)}",
                code="metrics-address",
                where="--metrics",
                next_step="name another port, or port 0 for any that is free",
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"
        (supervisor.directory.path / URL_FILE).write_text(f"{self.url}\n")
        supervisor.log.own("metrics are served", url=self.url)

    def collect(self) -> Iterator[Any]:
        """The metric families of this moment."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        run = self._supervisor
        yield InfoMetricFamily(
            "cosim_run",
            "The run that is watched.",
            {
                "topology": run.plan.name,
                "run": run.directory.path.name,
                "seed": str(run.plan.seed),
                "version": cosim.__version__,
            },
        )
        state = GaugeMetricFamily("cosim_run_state", "1 for the state that the run is in.", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(run.state == name))
        yield state
        for name, text, value in self._gauges():
            yield GaugeMetricFamily(name, text, value)
        yield from self._counters()
        tests = GaugeMetricFamily("cosim_tests", "Tests of the run by status.", labels=["status"])
        statuses = Counter(test.status for test in list(run.outcome.tests.values()))
        for status in ("passed", "failed", "unfinished", "skipped"):
            tests.add_metric([status], statuses[status])
        yield tests

    def _gauges(self) -> list[tuple[str, str, float]]:
        run = self._supervisor
        wall = run.result["wall_s"] if run.result is not None else time.monotonic() - run.started
        return [
            (
                "cosim_sim_time_seconds",
                "Simulated time that the run has reached.",
                self._figure("sim_time_ps") / PS_PER_S,
            ),
            ("cosim_wall_seconds", "Wall-clock time since the start.", wall),
            ("cosim_nodes", "Nodes of the machine.", len(run.plan.nodes)),
            ("cosim_workers", "Processes that host nodes.", run.outcome.workers),
            *self._joined(),
        ]

    def _joined(self) -> list[tuple[str, str, float]]:
        """In a run over hosts it is hosts that join, workers are its own business."""
        run = self._supervisor
        if not run.plan.hosts:
            return [("cosim_workers_joined", "Of these, those that have joined the hub.", run.joined)]
        return [
            ("cosim_hosts", "Hosts of the run.", len(run.plan.hosts)),
            ("cosim_hosts_joined", "Of these, those that have joined the root hub.", run.joined),
        ]

    def _figure(self, name: str) -> int:
        """A figure of the result, or as last heard from the hub while there is none."""
        run = self._supervisor
        found: int = run.progress[name] if run.result is None else run.result.get(name, run.progress[name])
        return found

    def _counters(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        run = self._supervisor
        codes = Counter(error.code for error in list(run.outcome.errors))
        for name, text in (
            ("events", "Events executed by all nodes."),
            ("grants", "Grants given by the hub."),
            ("frames", "Frames that the hub has received, as last heard."),
        ):
            yield CounterMetricFamily(f"cosim_{name}", text, self._figure(name))
        if run.result is not None:  # the hub passes them on unopened: only the final reports tell their number
            yield CounterMetricFamily("cosim_messages", "Messages between nodes.", self._figure("messages"))
        yield CounterMetricFamily("cosim_workers_lost", "Workers and hosts that are gone.", sum(codes[c] for c in LOST))
        yield CounterMetricFamily("cosim_stall_checks", "Grants found to take longer than the stall limit.", run.stalls)
        yield CounterMetricFamily(
            "cosim_refused_peers", "Connections that were refused.", run.outcome.refused_peers.total()
        )
        errors = CounterMetricFamily("cosim_errors", "Errors of the run by their code.", labels=["code"])
        for code, count in sorted(codes.items()):
            errors.add_metric([code], count)
        yield errors

    def close(self) -> None:
        """Listen no more, and write the figures of the end to the run directory."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        (self._supervisor.directory.path / METRICS_FILE).write_bytes(self._library.generate_latest(self._registry))
