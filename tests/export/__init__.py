"""A model as a device of a virtual machine: codec, device, server and command, with a client of our own."""
