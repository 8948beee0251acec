"""Topology files: YAML in, resolved plan out."""
