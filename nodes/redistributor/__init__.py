"""The Redistributor of one PE."""
