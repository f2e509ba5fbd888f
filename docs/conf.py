"""Sphinx configuration: Markdown through MyST, no theme from outside, nothing loaded from a network."""

project = "stanch"
author = "The stanch developers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Stops leaks of private data from tuned language models."}
myst_heading_anchors = 3
