"""Floor 1: bytes move between workers and hub."""
