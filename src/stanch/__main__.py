"""Run the command line as ``python -m stanch``."""

from stanch.cli import main

main()
