"""Many connections at once, each with a text of its own; STANCH_CONNECTIONS says how many (10,000: the drill's)."""

import os
import sys
from pathlib import Path

import pytest

for part in ("httptools", "uvicorn"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway]'")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from drill_connections import drill  # noqa: E402 - after the path is set

COUNT = int(os.environ.get("STANCH_CONNECTIONS", "200"))


def test_each_is_answered_with_its_own_text_or_refused_and_nothing_unrecorded_is_answered():
    found = drill(COUNT)
    outcomes, recorded = found["outcomes"], found["recorded"]
    assert sum(outcomes.values()) == COUNT
    assert outcomes.keys() <= {"answered", "refused 503"}
    answered = outcomes.get("answered", 0)
    assert recorded.get("intent", 0) >= answered
    assert recorded.get("outcome", 0) == recorded.get("intent", 0)
    assert COUNT > 1000 or answered > 0
