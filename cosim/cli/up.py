"""``cosim up``: run a topology to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click

from cosim.cli.common import entries, parse_sets


@click.command()
@click.argument("topology")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="New or empty directory for the run (default runs/NAME/TIMESTAMP).",
)
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the topology; may be repeated."
)
@click.option(
    "--workers",
    help="per-node, auto, or a number of processes; 0: all in this process (default: the topology's, else per-node).",
)
@click.option("--profile", metavar="RUN", help="Place nodes by the traffic that this earlier run measured.")
@click.option(
    "--start",
    type=click.Choice(["fork", "exec"]),
    default="fork",
    show_default=True,
    help="How workers start: forked from a process that has imported their code, or each from nothing.",
)
@click.option(
    "--hosts",
    metavar="N|ADDRESS,...",
    help="Run over hosts, each with a hub of its own: how many, or which; 0: none (default: the topology's). See docs/hosts.md.",
)
@click.option(
    "--engine", help="What starts the host hubs: local, ssh, dask or slurm (default: the topology's, else local)."
)
@click.option(
    "--engine-option",
    "engine_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the engine; may be repeated.",
)
@click.option("--until", metavar="TIME", help="End of the run in simulated time, e.g. 5ms (exclusive).")
@click.option("--seed", type=int, help="Seed of every node's random numbers (default: the topology's, else 1).")
@click.option("--test", "tests", multiple=True, metavar="NAME", help="Only this test; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.option("-d", "--detach", is_flag=True, help="Return once the run has started; see ps, logs, why, down.")
@click.option(
    "--wave", is_flag=True, help="Every external node writes waveforms: waves/NODE.vcd or .fst in the run directory."
)
@click.option("--wave-of", multiple=True, metavar="NODE", help="Only this external node does; may be repeated.")
@click.option(
    "--metrics",
    is_flag=False,
    flag_value="127.0.0.1:9464",
    metavar="[ADDR:PORT]",
    help="Serve figures of the run to Prometheus, on loopback unless ADDR says otherwise; --metrics alone: 127.0.0.1:9464.",
)
@click.option("--allow-models", multiple=True, metavar="PREFIX", help="Let the topology load models from this package.")
@click.option(
    "--stall-limit", default=30.0, show_default=True, metavar="SECONDS", help="Wall-clock limit of one grant; 0 is off."
)
@click.option(
    "--no-limit",
    multiple=True,
    metavar="NODE",
    help="No such limit for this node, which stands in a debugger; may be repeated.",
)
@click.option(
    "--join-limit",
    default=0.0,
    metavar="SECONDS",
    help="Wall-clock limit for start-up (default: by the number of workers).",
)
@click.option(
    "--listen", metavar="ADDRESS:PORT", help="The hub listens here by TCP with CURVE (port 0: any); docs/security.md."
)
@click.option(
    "--lease", default=10.0, show_default=True, metavar="SECONDS", help="A host ends when the run is silent so long."
)
@click.option(
    "--host-limit",
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="The run ends when a host is silent so long.",
)
@click.option("--link", type=click.Choice(["fast", "zmq", "tcp"]), default="fast", hidden=True)
@click.option("--started-fd", type=int, hidden=True)
@click.option("--parent", type=int, hidden=True)  # a sweep's pid: this run dies with it
def up(**options: Any) -> None:
    """Run TOPOLOGY (a file, or the name of one that comes with cosim) to its end.

    Exit codes: 0 all tests passed; 1 a test failed or is unfinished; 2 topology or usage; 3 a model failed, deadlock;
    4 a process or foreign node failed; 5 a fault of cosim; 130, 143 interrupted.

    \b
    Examples:  cosim up topologies/rdn2cfg1.yaml
               cosim up topologies/rdn2cfg1.yaml --workers 0 --set vcpus=4 --json
    """
    if options.pop("detach"):
        sys.exit(_detach())
    parent = options.pop("parent")
    if parent is not None:
        from cosim.node.death import die_with

        die_with(parent)
    import anyio

    from cosim.errors import CosimError

    try:
        code = anyio.run(_up, options)
    except CosimError as error:
        if not options["as_json"]:
            raise
        click.echo(json.dumps({"status": "error", "errors": entries(error)}, indent=1))
        sys.exit(error.exit_code)
    except BaseExceptionGroup as errors:
        if not isinstance(only := _only(errors), BrokenPipeError):
            raise only from None
        # Nobody reads: nothing more may be written, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    sys.exit(code)


def _only(error: BaseException) -> BaseException:
    """The one exception that task groups have wrapped, or what was given."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _up(options: dict[str, Any]) -> int:
    import anyio

    from cosim.run.api import launch

    screen = Screen(quiet=options["quiet"] or options["as_json"])
    arguments = {
        name: options[name]
        for name in (
            "run_dir",
            "workers",
            "engine",
            "hosts",
            "until",
            "seed",
            "tests",
            "allow_models",
            "link",
            "listen",
            "profile",
            "start",
            "metrics",
            "no_limit",
        )
    }
    # From before there is a run: a signal that comes while it is started waits for it.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with launch(
            options["topology"],
            set=parse_sets(options["sets"]),
            engine_options=parse_sets(options["engine_options"], "--engine-option", "user=me"),
            stall_limit_s=options["stall_limit"],
            join_limit_s=options["join_limit"],
            lease_s=options["lease"],
            host_limit_s=options["host_limit"],
            wave=options["wave_of"] or options["wave"],
            **arguments,
        ) as run:
            async with anyio.create_task_group() as group:
                group.start_soon(_obey, signals, run)
                with screen:
                    async for event in run.events():
                        screen.show(event.kind, event.data)
                        if event.kind == "started" and options["started_fd"] is not None:
                            os.write(options["started_fd"], json.dumps({"directory": str(run.directory)}).encode())
                            os.close(options["started_fd"])
                result = await run.result()
                group.cancel_scope.cancel()
            if options["as_json"]:
                click.echo(json.dumps(result, indent=1))
            screen.result(result, run.directory)
            return run.exit_code


async def _obey(signals: AsyncIterator[signal.Signals], run: Any) -> None:
    import anyio

    async with anyio.create_task_group() as group:
        async for number in signals:
            group.start_soon(run.stop, int(number))


class Screen:
    """Console text on stdout; on a terminal, one progress line below it."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._live: Any = None
        self._test = ""
        self._shown: tuple[str, int] | None = None
        self._shown_file = ""
        self._last = (time.monotonic(), 0, 0.0)
        self._out: Callable[[str], None] = lambda text: click.echo(text, nl=False)

    def __enter__(self) -> Screen:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=not sys.stdout.isatty())
            self._live = Live("starting", console=console, transient=True, refresh_per_second=10)
            self._live.start()
            if sys.stdout.isatty():
                self._out = lambda text: console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, kind: str, data: dict[str, Any]) -> None:
        """Show one event of the run."""
        from cosim.view.text import progress_line

        if self.quiet:
            return
        if kind == "console":
            self._console(data)
        elif kind == "waiting":
            click.echo(data["text"], err=True)
        elif kind == "test":
            self._test = data["name"] if data["status"] == "running" else ""
        elif kind == "progress" and self._live is not None:
            now, events, rate = self._last
            elapsed = time.monotonic() - now
            if elapsed > 0.3:
                rate = (data["events"] - events) / elapsed
                self._last = (now + elapsed, data["events"], rate)
            self._live.update(progress_line(data, rate, self._test))

    def _console(self, data: dict[str, Any]) -> None:
        """Console text; a line that two consoles show at once (kvmtool's own, on a shared terminal) is shown once."""
        from cosim.view.text import clean

        same = self._shown is not None and self._shown == (data["text"], data["sim_time_ps"])
        if not same or self._shown_file == data["file"]:
            self._out(clean(data["text"]))
        self._shown, self._shown_file = (data["text"], data["sim_time_ps"]), data["file"]

    def result(self, result: dict[str, Any], directory: Path) -> None:
        """The summary table and the errors."""
        from rich.console import Console

        from cosim.view.text import closing_line, error_text, summary

        if not self.quiet:
            console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
            if result["tests"]:
                console.print()
                console.print(summary(result))
            console.print(closing_line(result), markup=False, soft_wrap=True)
            console.print(f"run directory: {directory}", markup=False, soft_wrap=True)
        for test in result["tests"]:
            if test["status"] not in ("passed", "skipped") and result["status"] == "failed":
                click.echo(f"test {test['name']} {test['status']}: {test['detail']}", err=True)
        for entry in result["errors"]:
            click.echo(error_text(entry), err=True)


def _detach() -> int:
    """Start the same command without -d in a session of its own; return when it has started, or failed to."""
    read, write = os.pipe()
    arguments = [a for a in sys.argv[1:] if a not in ("-d", "--detach")]
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "cosim", *arguments, "--quiet", "--started-fd", str(write)],
            stdin=subprocess.DEVNULL,
            stdout=output if "--json" in arguments else subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            pass_fds=(write,),
        )
        os.close(write)
        with os.fdopen(read) as pipe:
            data = pipe.read()
        if data:
            click.echo(json.loads(data)["directory"])
            return 0
        status = child.wait()
        errors.seek(0)
        click.echo(errors.read().decode(errors="replace"), err=True, nl=False)
        output.seek(0)
        click.echo(output.read().decode(errors="replace"), nl=False)
        return status or 5
