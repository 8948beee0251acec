"""Measurements of whole runs and of the hot paths."""
