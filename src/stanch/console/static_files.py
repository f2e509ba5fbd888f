"""The two files that pages load from here: the stylesheet and the script."""

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from stanch.console.desk import Desk

STATIC = Path(__file__).parent / "static"


async def serve_style(_desk: Desk, _request: Request) -> Response:
    """Answer with the stylesheet."""
    return Response(_read("console.css"), media_type="text/css; charset=utf-8")


async def serve_script(_desk: Desk, _request: Request) -> Response:
    """Answer with the script."""
    return Response(_read("console.js"), media_type="text/javascript; charset=utf-8")


async def serve_icon(_desk: Desk, _request: Request) -> Response:
    """Answer with the icon of the pages."""
    return Response(_read("icon.svg"), media_type="image/svg+xml")


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()
