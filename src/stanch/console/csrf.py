"""Forged requests: a browser that another site sends here is told from one that our own page sends.

Every request that changes something needs the ``Origin`` of our own pages, ``Sec-Fetch-Site: same-origin`` where a
browser sends it, and, once somebody is signed in, a token that only a page of this session and this address holds.
"""

import base64
import hmac
from collections.abc import Mapping

from stanch.crypto import frame, hmac_sha256
from stanch.errors import NotPermitted

FIELD = "_token"
_LABEL = b"stanch/console/v1/csrf"


class Csrf:
    """Makes and checks the tokens of forms; ``key`` is a secret of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token(self, session_id: str, route: str) -> str:
        """Return ``HMAC-SHA256(key, frame(label, session id, route))`` as text."""
        mac = hmac_sha256(self._key, frame(_LABEL, session_id.encode(), route.encode()))
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def require(self, session_id: str, route: str, token: str) -> None:
        """Refuse a form that does not carry the token of its session and route.

        Raises:
            NotPermitted: It is missing or another one.
        """
        if not hmac.compare_digest(self.token(session_id, route).encode(), token.encode()):
            raise _forged()


def require_own_page(headers: Mapping[str, str], address: str) -> None:
    """Refuse a request that changes something and does not come from a page of ours.

    Raises:
        NotPermitted: It comes from elsewhere, or does not say from where.
    """
    if headers.get("origin") != address or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise _forged()


def _forged() -> NotPermitted:
    return NotPermitted(
        "this form was not sent by a page of this session",
        why="its token or its origin is another one",
        next_step="load the page again and repeat",
    )
