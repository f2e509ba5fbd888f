"""Puts the helpers of the watch's tests on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages
