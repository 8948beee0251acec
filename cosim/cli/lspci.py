"""``cosim lspci``: the PCI functions that the simulated host found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

EVENT = "pci device"
_ADDRESS = re.compile(r"(?:([0-9a-f]{1,4}):)?(?:([0-9a-f]{1,2}):)?([0-9a-f]{1,2})(?:\.([0-7]))?\Z", re.IGNORECASE)


@click.command()
@click.argument("run", required=False)
@click.option("-v", "verbose", count=True, help="Show flags, BARs and capabilities; -vv shows more of them.")
@click.option("-s", "address", metavar="[[[DOMAIN:]BUS:]DEVICE][.FUNC]", help="Only functions of this address.")
@click.option("-D", "domain", is_flag=True, help="Show the domain (segment) number, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the records that the host left, as JSON.")
def lspci(run: str | None, verbose: int, address: str | None, domain: bool, as_json: bool) -> None:
    """List the PCI functions that the host of RUN found (default: the latest run), as lspci there would.

    The host records each function when it enumerates it and when its driver changes; this shows the last record.

    \b
    Examples:  cosim lspci rdn2cfg1
               cosim lspci rdn2cfg1 -vv -s 08:00.1
    """
    from cosim.errors import UsageError
    from cosim.run.rundir import find_run
    from cosim.view.lspci import functions, lines

    directory = find_run(run)
    records = pci_records(directory)
    if not records:
        raise UsageError(
            f"the host of {directory} must have enumerated PCI before it can be shown; its log has no {EVENT!r}",
            code="no-pci",
            next_step="a run that has just begun may not be there yet; a machine without a hypervisor has no host",
        )
    wanted = _matcher(address)
    chosen = [function for function in functions(records) if wanted(function.name)]
    if as_json:
        latest = {record["bdf"]: record for record in records}
        click.echo(json.dumps([latest[function.name] for function in chosen], indent=1))
        return
    several = len({function.name.partition(":")[0] for function in functions(records)}) > 1
    for function in chosen:
        click.echo("\n".join(lines(function, min(verbose, 2), domain or several)))


def pci_records(directory: Path) -> list[dict[str, Any]]:
    """The host's records in the run's log: {bdf, config, bars, driver, iommu_group}, in the order of simulated time."""
    found = []
    with (directory / "log.jsonl").open() as file:
        for line in file:
            if EVENT in line and line.endswith("\n"):
                entry = json.loads(line)
                if entry.get("event") == EVENT:
                    keys = ("bdf", "config", "bars", "driver", "iommu_group")
                    found.append({key: entry.get(key) for key in keys} | {"bars": entry.get("bars") or []})
    return found


def _matcher(address: str | None) -> Any:
    from cosim.errors import UsageError

    if address is None:
        return lambda _name: True
    match = _ADDRESS.match(address)
    if match is None:
        raise UsageError(f"-s must look like 0000:08:00.1, 08:00.1 or 08:00, not {address!r}", code="address",
                         next_step="`cosim lspci` lists the functions")  # fmt: skip
    # Two numbers without a function are bus and device, as are three with their domain: the rightmost is the device.
    parts = [None if part is None else int(part, 16) for part in match.groups()]
    if match[2] is None and match[1] is not None:
        parts[0], parts[1] = None, parts[0]

    def matches(name: str) -> bool:
        segment, bus, rest = name.split(":")
        device, _, function = rest.partition(".")
        have = [int(part, 16) for part in (segment, bus, device, function)]
        return all(want is None or want == value for want, value in zip(parts, have, strict=True))

    return matches
