"""Build smmute.v and run it under cocotb: ``python run.py [icarus|verilator]``. Started by cosim; see docs/attach.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner
except ImportError as error:
    sys.exit(f"cocotb 2 is needed ({error}); install the extra `rtl`: pip install 'cosim[rtl]', and iverilog")

HERE = Path(__file__).resolve().parent
BUILD_ARGS = {"icarus": ["-g2012"], "verilator": ["-Wno-fatal"]}


def main(simulator: str = "icarus") -> int:
    """Build into the run directory, then join the run; the exit status is 0 when the test bench passed."""
    folder = Path(os.environ.get("COSIM_RUN_DIR", "."), "rtl", os.environ.get("COSIM_NAME", "smmute")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    os.environ.setdefault("COCOTB_RANDOM_SEED", "1")  # no chance: cocotb takes the time of day without it
    runner = get_runner(simulator)
    runner.build(
        sources=[HERE / "smmute.v"],
        hdl_toplevel="smmute",
        build_dir=folder,
        timescale=("1ps", "1ps"),
        build_args=BUILD_ARGS[simulator],
    )
    results = runner.test(
        hdl_toplevel="smmute",
        test_module="endpoint",
        test_dir=folder,
        build_dir=folder,
        results_xml=str(folder / "results.xml"),
        timescale=("1ps", "1ps"),
    )
    tests, failed = get_results(results)
    return int(failed or not tests)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
