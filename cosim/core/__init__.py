"""Floor 0: pure functions and small classes; no I/O, no clock, no randomness."""
