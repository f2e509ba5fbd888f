"""Write constraints-lowest.txt: the lowest version of each requirement that pyproject.toml promises to work with.

    python tools/make_lowest.py

``pip install --constraint constraints-lowest.txt '.[train]'`` then installs exactly those, and the tests can be
run with them. A requirement of what is published that names no lowest version is an error. A test compares the file.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "constraints-lowest.txt"
FOR_US = {"dev", "bench"}  # what tests and benchmarks need; constraints.txt pins it
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[[a-z0-9,-]+\])?(?P<bounds>[<>=!~].*)?")
HEAD = "# The lowest versions that pyproject.toml allows, but for dev and bench. Made by tools/make_lowest.py.\n"


def lowest(requirement: str) -> str | None:
    """Return ``name==version`` for a requirement, or nothing for one of our own extras."""
    found = REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise ValueError(f"{requirement}: not understood")
    if found["name"] == "stanch":
        return None
    versions = re.findall(r"(?:>=|==)([0-9][0-9a-z.]*)", found["bounds"] or "")
    if len(versions) != 1:
        raise ValueError(f"{requirement}: names no lowest version")
    return f"{found['name'].lower()}=={versions[0]}"


def render() -> str:
    """Return the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        asked += [] if extra in FOR_US else requirements
    pins: dict[str, str] = {}
    for pin in filter(None, map(lowest, asked)):
        name = pin.partition("==")[0]
        if pins.setdefault(name, pin) != pin:
            raise ValueError(f"{pin}: another extra asks for {pins[name]}")
    return HEAD + "".join(f"{pin}\n" for _, pin in sorted(pins.items()))


def main() -> None:
    """Write it."""
    OUT.write_text(render())


if __name__ == "__main__":
    main()
