"""Foreign processes as nodes: the Python client, the C header, the SystemC bridge, the conformance kit."""
