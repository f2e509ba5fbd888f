"""What approvers sign: every field counts, and nothing else parses."""

import hashlib
import json

import msgspec
import pytest

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.release import ReleaseRequest

REQUEST = ReleaseRequest(
    request_id="00" * 16,
    model="sha256:" + "11" * 32,
    certificate_sha256="22" * 32,
    recipient_name="acme",
    recipient_key="stanch1-acme",
    not_after="2030-01-01T00:00:00Z",
    release_number=3,
    lineage="acme/bot",
    proposer_key="ed25519:33",
)


def test_the_digest_is_a_fixed_function_of_the_request():
    document = {name: getattr(REQUEST, name) for name in ReleaseRequest.__struct_fields__}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert REQUEST.to_bytes() == canonical
    assert REQUEST.digest.hex == "74c0356c8fc3e6f50cef7baa1582fa5298963848c537d8e30c0e29798bbbf2f2"
    assert hashlib.sha256(canonical).hexdigest() == REQUEST.digest.hex
    assert ReleaseRequest.parse(canonical) == REQUEST


@pytest.mark.parametrize("field", [name for name in ReleaseRequest.__struct_fields__ if name != "format"])
def test_every_field_changes_the_digest(field):
    value = getattr(REQUEST, field)
    other = value + 1 if isinstance(value, int) else "2031" + value[4:] if field == "not_after" else value + "x"
    changed = msgspec.structs.replace(REQUEST, **{field: other})
    assert changed.digest != REQUEST.digest


@pytest.mark.parametrize(
    "change",
    [
        {"format": "stanch/release-request/v2"},
        {"extra": 1},
        {"release_number": "3"},
        {"not_after": "2030-01-01T00:00:00"},
        {"not_after": "tomorrow"},
        {"lineage": None},
    ],
    ids=str,
)
def test_another_document_is_refused(change):
    document = json.loads(REQUEST.to_bytes()) | change
    with pytest.raises(InvalidInput):
        ReleaseRequest.parse(canonical_json(document))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b'{"a":1,"a":2}'])
def test_what_is_no_document_is_refused(data):
    with pytest.raises(InvalidInput):
        ReleaseRequest.parse(data)
