"""``cosim conform``: is a foreign node fit to be trusted in a run?"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@click.option(
    "--stimulus", type=click.Path(path_type=Path), help="YAML file: what is done to the node (docs/attach.md)."
)
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="Parameter for the node; VALUE is JSON or text."
)
@click.option("--clock", metavar="TIME", default="1ns", show_default=True, help="Period that partitions are made of.")
@click.option("--size", default="0x1000", show_default=True, help="Bytes of each target port that are tried.")
@click.option("--seed", default=1, show_default=True, help="Of the stimulus and of the node.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only cases whose name has this text; may be repeated.")
@click.option(
    "--protocol", "protocols", multiple=True, metavar="MODULE:NAME", help="Import a protocol for channel ports."
)
@click.option(
    "--wait", default=60.0, show_default=True, metavar="SECONDS", help="Wall-clock limit until it has joined."
)
@click.option("--wall-limit", default=10.0, show_default=True, metavar="SECONDS", help="Wall-clock limit of one grant.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def conform(**options: Any) -> None:
    """Run the program COMMAND as a node and check that it keeps the rules of docs/protocol.md.

    One stimulus under many partitions of time into grants must give one stream of messages; promises are checked; nonsense must be
    refused. Of a rule that is broken it says which, at which simulated time, with the frames. Exit code 0: it is fit; 1: it is not.

    \b
    Examples:  cosim conform -- ./memory
               cosim conform --stimulus dma.yaml --only partition -- python engine.py
    """
    from cosim.errors import UsageError
    from cosim.run.conform import Kit, examine

    try:
        setup, stimulus, names = _prepare(options)
        size = int(options["size"], 0)
        if size < 1:
            raise ValueError(f"--size must be at least 1, not {size}")
    except (ValueError, OSError) as error:
        raise UsageError(f"{error}", code="conform", next_step="see cosim conform --help") from None
    kit = Kit(setup, stimulus, size=size, protocols=names)
    verdicts = []
    for verdict in examine(kit, lambda name: not options["only"] or any(text in name for text in options["only"])):
        verdicts.append(verdict)
        if not options["as_json"]:
            _show(verdict)
    broken = sorted({v.rule for v in verdicts if v.rule})
    silent = kit.reference is not None and not kit.reference.records
    if options["as_json"]:
        click.echo(json.dumps([v._asdict() for v in verdicts], indent=1))
    elif broken:
        click.echo(
            f"not fit: {', '.join(broken)} broken, in {sum(bool(v.rule) for v in verdicts)} of {len(verdicts)} cases"
        )
    elif silent:
        click.echo("the node sent nothing: nothing is proved. Give a --stimulus that makes it work", err=True)
    else:
        assert kit.reference is not None
        click.echo(
            f"fit: {len(verdicts)} case{'s' * (len(verdicts) > 1)}, {len(kit.reference.records)} messages in each partition"
        )
        for accesses in kit.reference.unserved:
            click.echo(
                f"note: none of {accesses} was completed with OKAY; a --stimulus with what this node serves proves more"
            )
    sys.exit(1 if broken or silent else 0)


def _prepare(options: dict[str, Any]) -> tuple[Any, Any, list[str]]:
    """Setup, stimulus (or None) and names of protocols."""
    from cosim.core.time import parse_span
    from cosim.run.conform import stimulus_from
    from cosim.run.conform_kit import Setup

    names = []
    for path in options["protocols"]:
        module, _, name = path.partition(":")
        try:
            names.append(getattr(import_module(module), name).name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"--protocol must name a Protocol as MODULE:NAME, not {path!r}: {error}") from None
    clock = parse_span(options["clock"])
    if clock < 1:
        raise ValueError(f"--clock must be at least 1ps, not {options['clock']}")
    params = {}
    for pair in options["params"]:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--param must be NAME=VALUE, not {pair!r}")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    setup = Setup(
        list(options["command"]),
        params=params,
        clock=clock,
        latency=20 * clock,
        service=10 * clock,
        seed=options["seed"],
        wait_s=options["wait"],
        wall_s=options["wall_limit"],
    )
    if options["stimulus"] is None:
        return setup, None, names
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(options["stimulus"])
    except YAMLError as error:
        raise ValueError(f"{options['stimulus']} must be YAML: {error}") from None
    stimulus, setup = stimulus_from(data, setup)
    return setup, stimulus, names


def _show(verdict: Any) -> None:
    from cosim.core.time import fmt

    if not verdict.rule:
        figures = f"   {verdict.messages} messages, {verdict.grants} grants" if verdict.grants else ""
        click.echo(f"pass  {verdict.case}{figures}")
        return
    click.echo(f"FAIL  {verdict.case}: rule {verdict.rule} at {fmt(verdict.time_ps)} ({verdict.time_ps} ps)")
    click.echo(f"      {verdict.text}")
    for frame in verdict.frames:
        click.echo(f"      {frame}")
