"""``cosim host``: one host of a run over several; engines start it."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("endpoint")
@click.argument("name")
@click.option(
    "--credential",
    metavar="FILE|-",
    help="This host's key: a file of mode 0600, or - for stdin (to its end). tcp:// needs it.",
)
@click.option(
    "--lease", default=10.0, show_default=True, metavar="SECONDS", help="End when the root is silent so long."
)
@click.option("--incarnation", default=0, help="Number that the root knows this host by; one joins once.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="For journals and logs of this host (default: a temporary one, kept when the run fails).",
)
def host(
    endpoint: str, name: str, credential: str | None, lease: float, incarnation: int, run_dir: Path | None
) -> None:
    """Be host NAME of the run whose root hub listens at ENDPOINT: start its workers, end with the run.

    `cosim up --hosts` has it started by an engine. Exit codes: 0 the run is over; 4 refused, or no root; 75 the root fell silent.

    \b
    Example:  cosim host tcp://10.0.0.1:7000 h1 --credential h1.credential --lease 10
    """
    from cosim.run.host_main import HostOrder, run_host

    sys.exit(run_host(HostOrder(endpoint, name, _read(credential), lease, incarnation, run_dir)))


def _read(source: str | None) -> bytes | None:
    """The credential's text; None without one. An engine that has none to give closes stdin at once."""
    if source is None:
        return None
    from cosim.errors import UsageError
    from cosim.link.keys import CREDENTIAL_MAX_BYTES, CredentialError, load_credential

    if source == "-":
        return sys.stdin.buffer.read(CREDENTIAL_MAX_BYTES + 1) or None
    try:
        return load_credential(source).to_json()
    except CredentialError as error:
        raise UsageError(str(error), code="credential", where=source) from None
