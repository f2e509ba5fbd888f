"""Settings of a model that make a library fetch or import code that is not its own."""

import re
from typing import Final

_CODE_KEYS: Final = frozenset({"auto_map", "custom_generate", "custom_pipelines", "trust_remote_code"})
_KERNEL_KEYS = re.compile(r"_?(attn|experts)_implementation(_internal)?|kernel_config|use_kernels")


def names_code(key: object, value: object) -> bool:
    """Say whether a key of a JSON file, with its value, asks for code: a remote class, or a kernel of a repository.

    The library's own kernels have plain names, such as ``sdpa``; those of others have the name of a repository, with a
    slash, or stand in an object.
    """
    if not isinstance(key, str):
        return False
    kernel = bool(value) and (not isinstance(value, str) or "/" in value)
    return key in _CODE_KEYS or (kernel and _KERNEL_KEYS.fullmatch(key) is not None)
