"""The guide of the console: a picture of every page, light and dark, none too large and none that nobody sees."""

import re
from pathlib import Path

from stanch.console.routes import ROUTES

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures" / "console"
TEXT = (DOCS / "guides" / "console.md").read_text()
SPECIAL = {"access.why": "access-why", "access.who": "access-who", "log.entry": "entry"}


def test_every_picture_is_shown_and_small():
    files = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert set(re.findall(r"\(\.\./pictures/console/([\w-]+\.png)\)", TEXT)) == set(files)
    assert max(files.values()) <= 150_000


def test_every_page_has_its_pictures():
    pages = {"login"} | {route.name for route in ROUTES if route.method == "GET" and route.template}
    for name in pages:
        for theme in ("light", "dark"):
            assert f"pictures/console/{SPECIAL.get(name, name)}-{theme}.png" in TEXT
