"""Where csa.h is, for a compiler: ``cc node.c $(python -m cosim.attach) -lzmq``."""

import sys
from pathlib import Path

sys.stdout.write(f"-I{Path(__file__).resolve().parent}\n")
