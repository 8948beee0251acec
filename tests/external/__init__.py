"""Foreign nodes: examples, broken ones, bad ones, codecs, whole runs."""
