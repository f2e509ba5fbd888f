"""Export of entries for other systems: OCSF events as JSON lines or as syslog lines (RFC 5424).

The ``fingerprint`` of the record_integrity profile is the SHA-256 of the entry's bytes; the proof of each entry stands
beside the export.
"""

from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from stanch.crypto import sha256

Format = Literal["jsonl", "syslog"]

_SHA256 = 3  # OCSF fingerprint.algorithm_id
_FACILITY = 13  # log audit
_BOM = "\ufeff"
_MAX_HOST, _MAX_MSGID = 255, 32


def export_line(data: bytes, form: Format) -> str:
    """Return one entry as one line, without its newline.

    Args:
        data: The entry's bytes.
        form: ``jsonl`` or ``syslog``.
    """
    event = export_event(data)
    text = orjson.dumps(event, option=orjson.OPT_SORT_KEYS).decode()
    return text if form == "jsonl" else _syslog(event, text)


def export_event(data: bytes) -> dict[str, Any]:
    """Return the event with its fingerprint. The entry is the event without it, in the order of its keys."""
    event: dict[str, Any] = orjson.loads(data)
    return event | {"fingerprint": {"algorithm_id": _SHA256, "value": sha256(data).hex()}}


def _syslog(event: dict[str, Any], text: str) -> str:
    """Return an RFC 5424 line: facility 13, the host is the log, the message is the event in UTF-8."""
    priority = 8 * _FACILITY + 7 - event["severity_id"]  # OCSF counts up to fatal, syslog down to emergency
    seconds, thousandths = divmod(event["time"], 1000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    host = _printable(event["attestation"]["chain_uid"])[:_MAX_HOST]
    kind = event["unmapped"]["stanch"].get("kind", "-")[:_MAX_MSGID]
    return f"<{priority}>1 {moment}.{thousandths:03d}Z {host} stanch - {kind} - {_BOM}{text}"


def _printable(text: str) -> str:
    return "".join(character if "!" <= character <= "~" else "?" for character in text)
