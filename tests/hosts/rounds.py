"""Many rounds of the two worst ends, with figures: ``python -m tests.hosts.rounds [ROUNDS] [ENGINE,...] [HOSTS]``. Needs root.

In each round a long run over hosts is started; then a host is cut off, or the driver killed by SIGKILL, a moment later in
each round. Printed: the exit status, the seconds until the driver's end, and until nothing of cosim was alive on any host.
Exit status 1 if any round was not as it should be.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts import runs
from tests.hosts.network import Network, missing
from tests.hosts.services import Dask, Services, Slurm, Sshd

LEASE_S = 5.0
NOTICED_S = 5.0
MARGIN_S = 5.0
SPREAD_S = 0.15
"""How much later each round strikes than the one before."""
SERVICES: dict[str, Callable[[Network, Path], Services]] = {"ssh": Sshd, "dask": Dask, "slurm": Slurm}


class Round(NamedTuple):
    """What happened: status and seconds are None for a driver that was killed."""

    good: bool
    status: int | None
    ended_s: float | None
    gone_s: float
    said: str


def strike(service: Any, engine: str, hosts: str, run_dir: Path, after_s: float, cut: bool) -> Round:
    """One round; returns what happened."""
    network: Network = service.network
    victim = hosts.split(",")[-1]
    process = runs.up(service, engine, run_dir, hosts, "--set", "smmute_transactions=1000", "--lease", f"{LEASE_S:g}")
    status, ended, said = None, None, ""
    try:
        runs.wait_simulating(process, run_dir)
        time.sleep(after_s)
        start = time.monotonic()
        if cut:
            network.cut(victim)
            status, result = runs.finish(process, run_dir)
            ended = time.monotonic() - start
            said = result["errors"][0]["what"] if result["errors"] else "no error"
        else:
            process.kill()
            process.wait()
        try:
            runs.until_none(network, LEASE_S + MARGIN_S - (ended or 0))
            gone = True
        except AssertionError as error:
            said, gone = str(error), False
        gone_s = time.monotonic() - start
    finally:
        if cut:
            network.heal(victim)
        process.kill()
        process.wait()
    good = gone and (not cut or (status == 4 and ended is not None and ended < NOTICED_S and f"({victim})" in said))
    return Round(good, status, ended, gone_s, said)


def report(engine: str, what: str, done: list[Round]) -> None:
    """One line, and one for each round that was not as it should be."""
    ends = sorted(one.ended_s for one in done if one.ended_s is not None)
    gone = sorted(one.gone_s for one in done)
    text = f", driver ended after {ends[len(ends) // 2]:.1f} s (most {ends[-1]:.1f})" if ends else ""
    print(
        f"{engine}: {what}: {sum(one.good for one in done)} of {len(done)} good{text}, "
        f"nothing alive after {gone[len(gone) // 2]:.1f} s (most {gone[-1]:.1f})",
        flush=True,
    )
    for number, one in enumerate(done):
        if not one.good:
            print(f"  round {number}: status {one.status}, ended {one.ended_s}, gone {one.gone_s:.1f}: {one.said}")


def main(rounds: int = 20, engines: str = "ssh,dask,slurm", hosts: str = "h1,h2") -> int:
    """All rounds of all engines."""
    if lacking := missing():
        print(f"rounds need {', '.join(lacking)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="cosim-hosts-"))
    good = True
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = Network("r", 4)
        stack.callback(network.close)
        for engine in engines.split(","):
            (folder / engine).mkdir()
            service = SERVICES[engine](network, folder / engine)
            stack.callback(service.close)
            if isinstance(service, Slurm):
                service.wait()
            for cut in (True, False):
                done = []
                for number in range(rounds):
                    run_dir = folder / f"{engine}-{cut}-{number}"
                    done.append(strike(service, engine, hosts, run_dir, number * SPREAD_S, cut))
                    shutil.rmtree(run_dir, ignore_errors=True)
                report(engine, "host cut off" if cut else "driver killed", done)
                good = good and all(one.good for one in done)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*(int(word) if word.isdigit() else word for word in sys.argv[1:])))  # type: ignore[arg-type]
