"""The command line: one small module per group of commands, imported only when its command runs.

Exit codes: 0 done · 1 the check failed (leak, gate, verification) · 2 usage or input · 3 not permitted · 4 a missing
part or environment · 5 inconclusive · 70 a bug of ours · 130 interrupted.
"""

from stanch.cli.frame import main

__all__ = ["main"]
