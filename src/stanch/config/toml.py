"""Reading TOML that may be hostile."""

import re
import tomllib
from typing import Any

# The standard library takes quadratic time for a key of many parts: minutes for one of 64 KiB.
_LONG_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){32}")


def load_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text, whose size the caller has bounded.

    Raises:
        ValueError: It is not TOML, a number has too many digits, it is nested too deeply, or a key has more than 32
            parts.
    """
    if _LONG_KEY.search(text):
        raise ValueError("a key has more than 32 parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
