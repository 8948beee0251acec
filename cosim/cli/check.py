"""``cosim check``: validate a topology and print the machine that it describes."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cosim.cli.common import entries, parse_sets


@click.command()
@click.argument("topology")
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the topology; may be repeated."
)
@click.option("--workers", help="As in `cosim up`.")
@click.option("--hosts", metavar="N|ADDRESS,...", help="As in `cosim up`: shows which host has which nodes.")
@click.option("--test", "tests", multiple=True, metavar="NAME", help="Only this test; may be repeated.")
@click.option("--allow-models", multiple=True, metavar="PREFIX", help="Let the topology load models from this package.")
@click.option("--json", "as_json", is_flag=True, help="Print the resolved plan, or the errors, as JSON.")
def check(topology: str, sets: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Validate TOPOLOGY and print the resolved machine: nodes, address maps, links. Starts no process.

    \b
    Example:  cosim check topologies/rdn2cfg1.yaml --set pes=4
    """
    from cosim.errors import CosimError
    from cosim.topo.find import find_topology
    from cosim.topo.load import load
    from cosim.topo.resolve import describe, resolve

    try:
        options["hosts"] = "" if options["hosts"] == "0" else options["hosts"]
        resolved = resolve(load(find_topology(topology)), sets=parse_sets(sets), **options)
    except CosimError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"status": "error", "errors": entries(error)}, indent=1))
        sys.exit(error.exit_code)
    click.echo(json.dumps(resolved.plan.to_dict(), indent=1) if as_json else describe(resolved))
