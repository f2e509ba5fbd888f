"""The detectors that run."""

from stanch.watch.detector import Detector
from stanch.watch.drift import drift_detector
from stanch.watch.esr import rate_detector
from stanch.watch.firstseen import FirstSeenDetector
from stanch.watch.leak import FindingDetector, LeakCapDetector, LoneHitDetector
from stanch.watch.mmd import ExtractionDetector
from stanch.watch.probe import probe_detector


def detectors() -> tuple[Detector, ...]:
    """Return all detectors, D1 to D7."""
    return (
        FindingDetector(), rate_detector(), FirstSeenDetector(), ExtractionDetector(), LeakCapDetector(),
        LoneHitDetector(), probe_detector(), drift_detector(),
    )  # fmt: skip
