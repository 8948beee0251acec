"""Interrupt Translation Service (ITS): command queue, tables in memory, translation of MSIs and of GITS_SGIR."""
