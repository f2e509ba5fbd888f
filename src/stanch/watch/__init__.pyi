from .alarm import Alarm, Containment, Severity
from .detector import Detector, FalseAlarm, Measure
from .detectors import detectors

__all__ = ["Alarm", "Containment", "Detector", "FalseAlarm", "Measure", "Severity", "detectors"]
