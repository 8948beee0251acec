"""Models whose module does to a fork server what models must not do; elsewhere it is harmless."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tests.support.models import Ring

IN_A_FORK_SERVER = b"cosim.run.forkserver" in Path("/proc/self/cmdline").read_bytes()

if IN_A_FORK_SERVER and "COSIM_TEST_SLOW_IMPORT" in os.environ:
    time.sleep(60)
elif IN_A_FORK_SERVER:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


class Threaded(Ring):
    """A ring's node; importing its module has started a thread."""
