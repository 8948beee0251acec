"""Formats and protocols that the architecture fixes or that blocks share: INTIDs, ITS commands, LPI tables, BDF, gic_net."""
