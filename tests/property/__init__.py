"""Property tests of the time kernel: barrier, bounds and workers against a sequential reference."""
