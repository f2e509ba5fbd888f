"""Length-prefixed framing: the one way in which stanch joins byte strings before hashing or deriving keys."""


def frame(*parts: bytes) -> bytes:
    """Join ``parts`` so that no two lists give the same bytes: each part as u32 big-endian length, then bytes."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])
