"""A PCI Express root complex: configuration and memory requests down a hierarchy of ports and endpoints."""
