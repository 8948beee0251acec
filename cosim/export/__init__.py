"""A model outside of a run: `cosim export` serves one PCI function to a virtual machine monitor over vfio-user; see docs/export.md.

`vfio_user` is the codec (no I/O), `dma` the client's memory, `function` the model with its kernel, `session` one client,
`server` the socket.
"""
