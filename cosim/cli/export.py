"""``cosim export``: a model as a device of a virtual machine monitor."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import Any

import click


@click.command()
@click.argument("kind", metavar="MODEL")
@click.option(
    "--vfio-user", "path", required=True, metavar="PATH", help="Unix socket to make and to serve the device at."
)
@click.option("--once", is_flag=True, help="End when the first client has gone, instead of waiting for the next.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def export(kind: str, path: str, once: bool, quiet: bool) -> None:
    """Serve MODEL (smmute) as a PCI device over vfio-user, to QEMU 10.1 or later.

    The same model that runs in a machine, with a kernel of its own. Its time runs freely, as fast as events need, and the client's
    requests come when they come: class best_effort, without a digest and without replay. Ctrl-C ends it.

    \b
    Example:  cosim export smmute --vfio-user /tmp/smmute.sock
    """
    from cosim.export.server import Server, qemu_device

    def note(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    path = os.path.abspath(path)
    server = Server(kind, _model(kind), path, note)
    signals: list[int] = []

    def stop(signum: int, _frame: Any) -> None:
        signals.append(signum)
        server.stop()

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not quiet:
            click.echo(f"{kind} at {path} (best_effort: its time runs freely). QEMU 10.1 or later, with shared memory:")
            click.echo("  -object memory-backend-memfd,id=ram,size=1G,share=on -machine virt,memory-backend=ram \\")
            click.echo(f"  -device {shlex.quote(qemu_device(path))}")
            sys.stdout.flush()
        server.serve(once=once)
    finally:
        server.close()
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if signals:
        note(f"ended by {signal.Signals(signals[0]).name}")
        sys.exit(128 + signals[0])


def _model(kind: str) -> Any:
    """The class of a model by its kind; raises UsageError."""
    from cosim.errors import UsageError
    from cosim.node.worker import load_model
    from cosim.topo.catalogue import NOT_INSTALLED, Catalogue

    models = Catalogue.installed().models
    if kind not in models:
        raise UsageError(
            f"MODEL must be the kind of an installed model, not {kind!r}; there are: {', '.join(models) or 'none'}",
            code="export",
            next_step="cosim export smmute" if models else NOT_INSTALLED,
        )
    return load_model(models[kind])
