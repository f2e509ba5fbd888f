"""The published example bundle: both readers open it, and each fault gets its error."""

import base64
import json
from pathlib import Path

import pytest

from stanch import errors
from stanch.crypto.identity import Identity
from stanch.crypto.recipient import parse_recipient
from stanch.terms import VerifiedDigest

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "seal" / "bundle.json").read_text())


def unpack(files):
    return {name: base64.b64decode(text) for name, text in files.items()}


@pytest.fixture
def published(small, tmp_path, write_source):
    """The example as a bundle on disk; ``small`` only lends its way of opening."""
    path = write_source(tmp_path / "vector.sealed", unpack(VECTOR["bundle"]))
    publisher = VerifiedDigest(bytes.fromhex(VECTOR["manifest_sha256"]), ("vector",), None)
    identity = Identity(bytes.fromhex(VECTOR["secret"]))
    return small._replace(path=path, publisher=publisher, identity=identity, files=unpack(VECTOR["files"]))


def test_both_readers_open_the_example(published, oracle):
    assert published.read_all() == published.files
    secret, digest = bytes.fromhex(VECTOR["secret"]), published.publisher.sha256
    assert oracle.open_sealed(published.path, secret, digest, key_id=VECTOR["key_id"]) == published.files
    assert parse_recipient(VECTOR["recipient"]).key_id == VECTOR["key_id"] == published.identity.recipient.key_id


@pytest.mark.parametrize("case", VECTOR["invalid"], ids=lambda case: case["name"])
def test_each_fault_is_refused_by_its_name(published, case):
    for name, text in case["change"].items():
        path = published.path / name
        if text is None:
            path.unlink()
        else:
            path.write_bytes(base64.b64decode(text))
    with pytest.raises(getattr(errors, case["error"])) as caught:
        published.read_all()
    assert type(caught.value).__name__ == case["error"]
