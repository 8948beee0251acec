"""deploy/slurm/cosim.sbatch on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.services import ROOT, Slurm
from tests.support.runs import result

SCRIPT = ROOT / "deploy" / "slurm" / "cosim.sbatch"

pytestmark = pytest.mark.hosts


def submit(slurm: Slurm, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Submit the script from h0 and wait for the job; its exit status, and what it wrote in `folder`/job.out."""
    options = [word for name, value in slurm.options.items() for word in ("--engine-option", f"{name}={value}")]
    sbatch = ["sbatch", "--wait", "--nodes=2", f"--output={folder / 'job.out'}", f"--chdir={folder}", str(SCRIPT)]
    own = {"COSIM": f"{sys.executable} -m cosim", "PYTHONPATH": str(ROOT), **slurm.variables}
    argv = slurm.network.inside("h0", *sbatch, *words, "--run-dir", str(folder / "run"), *options)
    return subprocess.run(argv, env={**os.environ, **own}, text=True, capture_output=True, timeout=110, check=False)


def test_a_submitted_run_passes(slurm: Slurm, reference: dict[str, Any], tmp_path: Path) -> None:
    """The script as submitted runs the main job over the nodes of its job, with the digest of a run on one machine."""
    done = submit(slurm, tmp_path, "rdn2cfg1")
    assert done.returncode == 0, done.stderr + (tmp_path / "job.out").read_text()
    got = result(tmp_path / "run")
    assert (got["status"], got["digest"]) == ("passed", reference["digest"])
    assert len({host["machine"] for host in got["over_hosts"]["hosts"]}) == 2
