"""``cosim replay``: drive one node of a run again, from its journal alone."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("run")
@click.argument("node")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--until", metavar="TIME", help="Stop before what was executed at this simulated time, e.g. 5ms.")
@click.option("--messages", is_flag=True, help="Print each message that goes in and out, with its times.")
@click.option("--pdb", "debug", is_flag=True, help="Stop in pdb where a Python model raises.")
@click.option("--wave", metavar="PATH", default="", help="An external node writes waveforms to PATH.vcd or .fst.")
@click.option(
    "--allow-models", multiple=True, metavar="PREFIX", help="Let the run's plan load models from this package."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def replay(**options: Any) -> None:
    """Drive NODE of RUN (a directory, or a topology's name) again from its journal, and compare its messages with the run's.

    Nothing else is started and no wall-clock limit holds: a node can stand in a debugger as long as you like. An external node is
    started as in the run, or by COMMAND, which has the terminal to itself. A Python node runs in this process, with its worker's
    others. Exit codes: 0 all as in the run; 1 something differs; 2 it can't be replayed; 3 a model raised; 4 the program is gone.

    \b
    Examples:  cosim replay rdn2cfg1 its0
               cosim replay rdn2cfg1 its0 --until 2ms --messages
               cosim replay runs/rtl/latest smmute -- gdb --args ./endpoint
               python -m pdb -m cosim replay rdn2cfg1 pe0
    """
    from cosim.core.time import fmt
    from cosim.run.replay import Difference

    try:
        done = _replay(options)
    except Difference as found:
        if options["as_json"]:
            entry = {"same": False, "sim_time_ps": found.time_ps, "what": found.what, "sides": found.sides}
            click.echo(json.dumps(entry, indent=1))
        else:
            click.echo(
                f"{options['node']} differs from the run at {fmt(found.time_ps)} ({found.time_ps} ps): {found.what}"
            )
            for side in found.sides:
                click.echo(f"  {side}")
        sys.exit(1)
    if options["as_json"]:
        click.echo(json.dumps({"same": True, **done._asdict()}, indent=1))
        return
    nodes = done.nodes[0] if len(done.nodes) == 1 else f"{options['node']} and {len(done.nodes) - 1} more of its worker"
    digests = f", {done.digests} digest{'s' * (done.digests != 1)}" if done.digests else ""
    click.echo(
        f"{nodes}: as in the run up to {fmt(done.sim_time_ps)} ({done.ending}): {done.grants:,} grant{'s' * (done.grants != 1)}, "
        f"{done.messages:,} message{'s' * (done.messages != 1)}{digests}"
    )


def _replay(options: dict[str, Any]) -> Any:
    from cosim.core.time import parse_span
    from cosim.errors import UsageError
    from cosim.run.replay import PythonReplay, Script
    from cosim.run.rundir import find_run

    try:
        until = None if options["until"] is None else parse_span(options["until"])
    except ValueError as error:
        raise UsageError(str(error), code="until", where="--until", next_step="for example --until 5ms") from None
    script = Script(find_run(options["run"]), options["node"], until)
    # With --json stdout is for the outcome alone.
    tell = (lambda text: click.echo(text, err=options["as_json"])) if options["messages"] else None
    if script.node.external is None:
        for name, given in (("COMMAND", options["command"]), ("--wave", options["wave"])):
            if given:
                raise UsageError(
                    f"{name} must be for an external node; {script.node.name} is a Python model",
                    code="replay",
                    next_step="leave it out: the model runs in this process (--pdb, or python -m pdb -m cosim replay ...)",
                )
        return PythonReplay(script, tell=tell, debug=options["debug"], allow_models=options["allow_models"]).run()
    from cosim.run.replay_foreign import ForeignReplay

    def say(text: str) -> None:
        click.echo(text, err=True)

    return ForeignReplay(script, options["command"], wave=options["wave"], tell=tell, say=say).run()
