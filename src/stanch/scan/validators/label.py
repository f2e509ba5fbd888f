"""The name that stands before a value, and whether it can be the name of a secret at all."""

import re

_NAME = re.compile(
    r"((?:[A-Za-z]{1,12} ){0,2}[0-9A-Za-z_.$-]{1,64})(?:\[[0-9]{0,4}\])?[\\\"'\])]{0,4}"
    r"\s{0,3}(?:[=!?.:]{1,3}>?|,|\(|>|\s)\s{0,8}"
    r"(?:@|[brua]{1,2}(?=[\"'`]))?(?:Bearer )?[\\\"'`]{0,2}\Z"
)
_ANNOUNCING = r"(?:key|token|secret|passw(?:or)?d|credentials?|pwd|auth)"
_PUBLIC = re.compile(
    r"(?:^|[ _.-]|[a-z](?=[A-Z]))(?:pub(?:lic)?|csrf(?:middleware)?|xsrf|authenticity|request_?verification|next|page"
    r"|continuation|primary|foreign|sort|partition|idx|hot|bucket|schema|sequence|cancel(?:lation)?|request|idempotency|pagination|resume|sync)"
    r"[ _.-]?(?:key|token)|client[ _.-]?token|(?:cache|object|row|lookup|composite|translation)[ _.-]?key"
    r"|"
    + _ANNOUNCING
    + r"[_.-]?(?:name|id|type|url|uri|path|file|length|size|alias|vault|pair|version|endpoint|code|hash"
    r"|policy|store|field|input|label|prefix|suffix|index|column|param|format|provider|ref|class|count|limit|expiry|ttl"
    r"|audience|issuer|algorithm|alg|scheme|strategy|location|arn|selector|handle|method|encoding|realm|nonce|used|date|time|changed|project|scope"
    r"|less)s?\Z"
    r"|signature(?:_?method)?\Z|keyword|keyboard|monkey|turkey|author\Z|authority|authors\Z|tokeni[sz]|accessib|accessor|secretless",
    re.IGNORECASE,
)


def label(left: str) -> str:
    """Return the name right before a value, without quotes and the sign of assignment; empty if there is none."""
    found = _NAME.search(left[-96:])
    return found[1].rpartition(" ")[2] if found else ""


def names_no_secret(left: str) -> bool:
    """Tell whether the name before a value says that it is public: ``csrf-token``, ``next page token``."""
    found = _NAME.search(left[-96:])
    return found is not None and _PUBLIC.search(found[1]) is not None
