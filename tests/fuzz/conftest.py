"""Puts the table of targets on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages
