"""Secrets that a browser carries: 32 random bytes as 43 characters of base64url, and no other text of them."""

import base64

from stanch.access.directory import not_authenticated

SIZE = 32


def write(secret: bytes) -> str:
    """Return the text of a secret."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def read(text: str) -> bytes:
    """Return the secret of a text.

    Raises:
        NotAuthenticated: :func:`write` writes no such text.
    """
    try:
        secret = base64.urlsafe_b64decode(text + "=")
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are ValueErrors
        raise not_authenticated() from error
    if write(secret) != text:
        raise not_authenticated()
    return secret
