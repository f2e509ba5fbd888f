"""The one table of fuzz targets: every parser of bytes that come from outside."""

import fuzz_gateway
import fuzz_ground
import fuzz_means
import fuzz_records
import fuzz_scan
import fuzz_stages
from fuzz_harness import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *fuzz_ground.TARGETS,
        *fuzz_records.TARGETS,
        *fuzz_means.TARGETS,
        *fuzz_scan.TARGETS,
        *fuzz_stages.TARGETS,
        *fuzz_gateway.TARGETS,
    )
}
