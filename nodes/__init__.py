"""Hardware blocks and system software: one folder per block, none of which imports another."""
