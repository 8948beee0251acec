"""Sparse DRAM."""
