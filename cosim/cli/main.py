"""``cosim``: the command group. Commands are loaded on use, so that help is quick."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import click

import cosim

COMMANDS = {
    "up": "cosim.cli.up:up",
    "check": "cosim.cli.check:check",
    "ps": "cosim.cli.live:ps",
    "why": "cosim.cli.live:why",
    "logs": "cosim.cli.live:logs",
    "down": "cosim.cli.live:down",
    "sweep": "cosim.cli.sweep:sweep",
    "bench": "cosim.cli.bench:bench",
    "regs": "cosim.cli.regs:regs",
    "lspci": "cosim.cli.lspci:lspci",
    "conform": "cosim.cli.conform:conform",
    "replay": "cosim.cli.replay:replay",
    "render": "cosim.cli.render:render",
    "host": "cosim.cli.host:host",
    "export": "cosim.cli.export:export",
}


class LazyGroup(click.Group):
    """Finds commands in `COMMANDS` and imports them when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None when there is none of that name."""
        path = COMMANDS.get(cmd_name)
        if path is None:
            return None
        module, _, name = path.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click's, with a suggestion for a misspelt name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(cosim.__version__, prog_name="cosim")
def group() -> None:
    """Co-simulate Arm interrupt hardware and its software as separate, deterministic nodes.

    \b
    Example:  cosim up topologies/rdn2cfg1.yaml
    """


def main() -> None:
    """Entry point: runs a command; CosimErrors end with their exit code and text, without a traceback (--debug shows it)."""
    from cosim.errors import CosimError

    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        group(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _usage(error)
        sys.exit(2)
    except CosimError as error:
        if debug:
            raise
        report(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        report(_unexpected(error))
        sys.exit(5)


def _unexpected(error: Exception) -> Exception:
    """What no command expects is a fault of cosim."""
    from cosim.errors import InternalError

    return InternalError(
        f"{type(error).__name__}: {error}",
        next_step="this is a fault of cosim: please report it with what --debug shows",
    )


def _usage(error: click.ClickException) -> None:
    """A wrong command line: text on stderr, and with --json the object that every exit code 2 gives."""
    error.show()
    if "--json" in sys.argv:
        from cosim.errors import UsageError

        entry = UsageError(error.format_message(), where="command line").as_dict()
        click.echo(json.dumps({"status": "error", "errors": [entry]}, indent=1))


def report(error: Exception) -> None:
    """Write an error, and those that it gathers, to stderr."""
    from cosim.cli.common import entries
    from cosim.view.text import error_text

    for entry in entries(error):
        click.echo(error_text(entry), err=True)
