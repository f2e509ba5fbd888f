"""How often the rules for secrets cry wolf over code that holds none: the library of the Python that runs the test."""

import random
import sysconfig
from pathlib import Path

from stanch.scan import Location, load_pack
from stanch.terms import Severity

SIZE, LARGEST, PER = 2_500_000, 400_000, 10_000_000


def library():
    """Yield files of the standard library in a seeded order, up to a total size; those about ``.netrc`` come first."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts and p.stat().st_size < LARGEST)
    random.Random(7).shuffle(files)
    size = 0
    for path in sorted(files, key=lambda p: "netrc" not in p.name):
        data = path.read_bytes()
        yield Location(str(path)), data
        size += len(data)
        if size > SIZE:
            return


def test_the_standard_library_holds_no_secret_of_high_severity(scanner):
    secret = {rule.kind for rule in load_pack() if rule.family == "secret"}
    results = list(scanner.scan_many(library()))
    size = sum(result.size for result in results)
    high = [
        (finding.recogniser, result.location.record)
        for result in results
        for finding in result.findings
        if finding.kind in secret and finding.severity.rank >= Severity.HIGH.rank
    ]
    assert size > SIZE / 2
    assert len(high) <= 1 + size // PER, high
