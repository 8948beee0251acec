"""Floor 2: what runs inside a worker."""
