"""Reads the ledger and raises alerts whose false-alarm rate is stated and checked.

Detectors are pure: saved state and new entries in, alarms out. An alarm becomes an alert with a life of its own, and
alerts that belong together become an incident with its clock. Nothing here decides who may act; the workspace does.

Example:
    >>> from stanch.watch.runner import run                                                   # doctest: +SKIP
    >>> run(reader, reader.tables, detectors(), deliver=alerts.take, wait=stop.wait)          # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
