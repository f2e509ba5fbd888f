"""The one table of fuzz targets: every parser of bytes that come from outside."""

import fuzz_gateway
import fuzz_ground
import fuzz_means
import fuzz_records
import fuzz_scan
import fuzz_stages
from fuzz_harness import Target

GROUPS = (fuzz_ground, fuzz_records, fuzz_means, fuzz_scan, fuzz_stages, fuzz_gateway)
TARGETS: dict[str, Target] = {target.name: target for group in GROUPS for target in group.TARGETS}
