"""Values that look like findings and are none: published examples, sequences and placeholders."""

import re

_PUBLISHED = frozenset(
    {
        b"akiaiosfodnn7example",
        b"wjalrxutnfemi/k7mdeng/bpxrficyexamplekey",
        # RFC 5849 (OAuth 1), RFC 6749 and 6750 (OAuth 2), and the manual of oauthlib
        *b"kkk9d7dh3k39sjv7 9djdj82h48djs9d2 nnch734d00sl2jdk hh5s93j4hdidpola hfdp7dh39dks9884".split(),
        *b"pfkkdhi9sl3r4s00 0685bd9184jfhq22 j49sn3bhffi5uhd9 dpf43f3p2l4k3l03 ad180jjd733klru7".split(),
        *b"2yotnfzfejr1zcsicmwpaa tgzv3jokf0xg5qx2tlkwia gx1fbat3bv splxlobezqqyby6wxsbia mf_9.b5f-4.1jqm".split(),
        *b"sdf0o9823sjdfsdf 2kjshdfp92i34asdasd kjerht2309uf lsdajfh923874".split(),
        *b"byt5cmsgcbgudfhobymefcx6bsw%3d djosjkdkjsd8743243%2fjdk33kly%3d".split(),
        # RFC 6749 and 7009: the client's credentials in base64, and a token
        *b"czzcagrsa3f0mzpnwdfmqmf0m2jw 45ghiukldjahdnhzdauz".split(),
        b"457-55-5462",  # printed in the advertisements of an identity protection company
        b"078-05-1120",  # printed on a wallet insert in 1938, never valid since
        b"219-09-9999",  # used in an advertisement of the Social Security Board
    }
)
_PLACEHOLDER = re.compile(
    rb"x{4,}|\*{3,}|\.{3,}|your[_-]|\A<[^>]*>?|<[a-z_ -]{2,40}>|\A\[[a-z_ -]{3,40}\]\Z"
    rb"|\A\{[a-z_][a-z0-9_.]*\}|\{\{[^{}]*\}\}|\A\$?\{\{"
    rb"|\$\{[a-z_][a-z0-9_.:?-]*\}|\A\$[{(]|\A\$\(?[a-z_][a-z0-9_]*\)?\Z|%[A-Z_]{2,}%|process\.env|os\.environ|getenv|(?-i:\$[A-Z_]{3,}\Z)",
    re.IGNORECASE,
)
_AROUND = (ord("9"), ord("0"))
_NO_SYMBOLS = bytes(byte for byte in range(256) if byte > 127 or not chr(byte).isalnum())
_ALPHABET = re.compile(rb"abcdefghijkl|qrstuvwxyz|mnopqrstuvwx")
_WORD = re.compile(rb"example|dummy|changeme|placeholder|redacted|not-?a-?real|fake_?key|sample", re.IGNORECASE)


def is_sequence(value: bytes) -> bool:
    """Tell whether the letters and digits are one ascending sequence, or nearly all the same character."""
    symbols = value.lower().translate(None, _NO_SYMBOLS)
    if _ALPHABET.search(symbols):  # what secrets are drawn from
        return True
    if len(symbols) < 4:
        return False
    kinds = len(set(symbols))
    if kinds == 1 or (len(symbols) >= 6 and all(map(_follows, symbols, symbols[1:]))):
        return True
    # What fills more than half of the places stands in the middle when they are sorted.
    # Where it does, few others have room.
    if len(symbols) < 10 or 5 * (kinds - 1) > 2 * len(symbols):
        return False
    return symbols.count(sorted(symbols)[len(symbols) // 2]) >= 0.6 * len(symbols)


def _follows(before: int, after: int) -> bool:
    return after - before == 1 or (before, after) == _AROUND


def is_published(value: bytes) -> bool:
    """Tell whether a vendor or an authority has printed this very value as an example."""
    return value.lower() in _PUBLISHED


def is_placeholder(value: bytes) -> bool:
    """Tell whether the value stands for one that is filled in later or read from the environment."""
    return _PLACEHOLDER.search(value) is not None


def has_example_word(value: bytes) -> bool:
    """Tell whether the value itself says that it is an example."""
    return _WORD.search(value) is not None
