"""Reads the ledger and raises alerts whose false-alarm rate is stated and checked.

Detectors are pure: saved state and new entries in, alarms out. An alarm becomes an alert with a life of its own, and
alerts that belong together become an incident with its clock. Nothing here decides who may act; the workspace does.
"""

from stanch.watch.alarm import Alarm, Containment, Severity

__all__ = ["Alarm", "Containment", "Severity"]
