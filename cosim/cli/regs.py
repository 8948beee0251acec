"""``cosim regs``: a block's register table, and the registers of a node in a run, decoded by name."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

WAIT_S, PAUSE_S = 20.0, 0.1
"""How long a node at work is asked again and again: a grant ends after some ten thousand events."""


@click.command()
@click.argument("name", metavar="[BLOCK|NODE]", required=False)
@click.argument("registers", metavar="[REGISTER]...", nargs=-1)
@click.option("--run", help="Values of NODE in this run: a run directory or topology name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: rows of the table, or {block: registers}.")
def regs(name: str | None, registers: tuple[str, ...], run: str | None, as_json: bool) -> None:
    """Print the register table of BLOCK; or with --run, the registers of NODE as they stand there, decoded by name.

    A run is asked while it runs, between two grants and without any effect on it; of a run that is over, the values are those
    of its end. Without arguments: the blocks that there are. REGISTER may leave out the block's prefix.

    \b
    Examples:  cosim regs GITS
               cosim regs GICD CTLR TYPER
               cosim regs its0 --run rdn2cfg1
               cosim regs redistributor2 VPENDBASER --run rdn2cfg1
    """
    from cosim.topo.catalogue import Catalogue
    from cosim.view.registers import blocks_table, find_blocks

    blocks = find_blocks(Catalogue.installed().models)
    if name is None:
        if as_json:
            click.echo(
                json.dumps([{"block": n, "size": b.size, "source": b.source} for n, b in blocks.items()], indent=1)
            )
        else:
            _print(blocks_table(blocks))
    elif run is None and name.upper() in blocks:
        _table(blocks[name.upper()], registers, as_json)
    else:
        _values(blocks, name, registers, run, as_json)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _table(block: Any, registers: tuple[str, ...], as_json: bool) -> None:
    from cosim.view.registers import block_table, find_register, row_dict

    chosen = {find_register(block, register)[0].name for register in registers}
    rows = [row for row in block.describe() if not chosen or row.name in chosen]
    if as_json:
        click.echo(json.dumps([row_dict(row) for row in rows], indent=1))
        return
    if block.source:
        click.echo(f"{block.name}, {block.size:#x} bytes; {block.source}\n")
    _print(block_table(block, rows))


def _values(blocks: Any, node: str, registers: tuple[str, ...], run: str | None, as_json: bool) -> None:
    from cosim.errors import UsageError
    from cosim.view.registers import table_of, values_of, values_table

    try:
        banks = snapshot(run, node)
    except UsageError as error:
        if run is not None or error.code != "no-run":
            raise
        raise UsageError(
            f"block must be one of {', '.join(blocks)}, not {node!r}; and no run was found that has such a node",
            code="no-block",
            next_step="`cosim regs` lists the blocks; --run RUN names a run",
        ) from None
    shown = {key: values_of(table_of(blocks, key), values, registers) for key, values in banks.items()}
    if as_json:
        click.echo(json.dumps(shown, indent=1))
        return
    for number, (key, entries) in enumerate(shown.items()):
        click.echo(("\n" if number else "") + f"{node}: {key}")
        _print(values_table(entries, every_field=bool(registers)))


def snapshot(run: str | None, node: str) -> dict[str, dict[str, int]]:
    """{block: {register: value}} of a node, from the run while it runs, else from its registers.json.

    Raises:
        UsageError: no such run or node, a node without registers, or one whose worker is busy all the time.
    """
    from cosim.errors import UsageError
    from cosim.run.rundir import find_run

    directory = find_run(run)
    nodes = [entry["name"] for entry in json.loads((directory / "plan.json").read_text())["nodes"]]
    if node not in nodes:
        raise UsageError(
            f"node must be one of the run in {directory} ({', '.join(nodes)}), not {node!r}",
            code="no-node",
            next_step="`cosim regs` lists blocks, `cosim ps` nodes",
        )
    banks = _live(directory, node)
    if banks is None:
        path = directory / "registers.json"
        if not path.exists() and (directory / "digests.json").exists():
            banks = {}  # a run to its end, of nodes without registers
        elif not path.exists():
            raise UsageError(f"{directory} has no registers.json: the run did not come to an orderly end", code="no-registers",
                             next_step="look at log.jsonl there, or at the journal")  # fmt: skip
        else:
            banks = json.loads(path.read_text()).get(node, {})
    if not banks:
        raise UsageError(f"{node} has no registers to show", code="no-registers",
                         next_step="a model shows its banks by Node.snapshot; see docs/writing-a-node.md")  # fmt: skip
    return banks


def _live(directory: Path, node: str) -> dict[str, dict[str, int]] | None:
    """The node's registers in a run under way; None when it is over."""
    from cosim.errors import NodeError, UsageError
    from cosim.run.control import ask

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = ask(directory, {"ask": "registers"})
        if answer is None:
            return None
        for name, blocks, fault in answer.get("registers", []):
            if name == node:
                if fault:
                    raise NodeError(
                        f"snapshot() of {node} failed: {fault}", code="snapshot", node=node, sim_time_ps=None
                    )
                return {str(block): dict(values) for block, values in blocks.items()}
        if any(name == node for name, _now in answer.get("clocks", [])):
            return {}
        time.sleep(PAUSE_S)  # its worker was at work: ask again when it has answered
    raise UsageError(f"{node} must answer between two grants, and was at work for {WAIT_S:.0f} s", code="busy",
                     next_step="try again, or pack fewer nodes into its worker")  # fmt: skip
