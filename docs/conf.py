"""Sphinx configuration: MyST Markdown and the furo theme."""

import cosim

project = "cosim"
author = "the cosim authors"
project_copyright = author
version = release = cosim.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
nitpicky = True
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"cosim {release}"
