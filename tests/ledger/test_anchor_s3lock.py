"""An anchor in a real S3 service with Object Lock: what is kept cannot be deleted or replaced in time."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

boto3 = pytest.importorskip("boto3", reason="the extra aws is not installed")

from stanch.crypto import SigningKey  # noqa: E402 - after the skips
from stanch.errors import LogRolledBack, StoreError, StoreUnsafe  # noqa: E402 - same
from stanch.ledger.anchor import anchor_key  # noqa: E402 - same
from stanch.ledger.anchor_uri import open_anchor  # noqa: E402 - same
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint  # noqa: E402 - same
from stanch.ledger.note import NoteSigner  # noqa: E402 - same

LOG = NoteSigner("example.com/stanch/log", SigningKey.from_seed(bytes(range(32))))


def signed(size, root=bytes(32)):
    return sign_checkpoint(Checkpoint(LOG.name, size, root), LOG)


@pytest.fixture
def client(s3, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("s3", endpoint_url=s3.endpoint)


@pytest.fixture
def bucket(client):
    name = f"lock-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def anchor_in(bucket, tmp_path, days=2):
    return open_anchor(f"s3lock://{bucket}/a/b?days={days}", log_folder=tmp_path)


def test_what_is_kept_is_locked_and_read_back(client, bucket, tmp_path):
    anchor = anchor_in(bucket, tmp_path)
    assert anchor.outside
    assert anchor.newest(LOG.name) is None
    for size in (9, 100, 10):
        anchor.keep(signed(size))
        anchor.keep(signed(size))
    assert list(anchor.notes(LOG.name)) == [signed(size).note for size in (9, 10, 100)]
    assert anchor.newest(LOG.name) == signed(100).note
    key = f"a/b/{anchor_key(LOG.name, 9)}"
    lock = client.get_object_retention(Bucket=bucket, Key=key)["Retention"]
    assert lock["Mode"] == "COMPLIANCE"
    assert lock["RetainUntilDate"] > datetime.now(UTC) + timedelta(days=1, hours=23)
    version = client.head_object(Bucket=bucket, Key=key)["VersionId"]
    with pytest.raises(client.exceptions.ClientError, match=r"AccessDenied|retention|WORM|locked"):
        client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    with pytest.raises(client.exceptions.ClientError):
        client.delete_object(Bucket=bucket, Key=key, VersionId=version, BypassGovernanceRetention=True)
    assert client.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read() == signed(9).note


def test_another_checkpoint_of_the_same_size_is_refused(bucket, tmp_path):
    anchor = anchor_in(bucket, tmp_path)
    anchor.keep(signed(5))
    with pytest.raises(LogRolledBack):
        anchor.keep(signed(5, b"\1" * 32))
    assert anchor.newest(LOG.name) == signed(5).note


def test_what_lies_under_a_delete_marker_or_a_later_version_is_still_read(client, bucket, tmp_path):
    """Object Lock protects versions: neither a plain deletion nor a plain put is refused."""
    anchor, key = anchor_in(bucket, tmp_path), f"a/b/{anchor_key(LOG.name, 9)}"
    anchor.keep(signed(9))
    client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=bucket, Key=key)
    assert anchor.newest(LOG.name) == signed(9).note
    with pytest.raises(LogRolledBack, match="tried to hide"):
        list(anchor.notes(LOG.name))
    anchor.keep(signed(9))  # it stands there; nothing is put on top
    forged = signed(9, b"\1" * 32)
    client.put_object(Bucket=bucket, Key=key, Body=forged.note)
    assert anchor.newest(LOG.name) == signed(9).note
    with pytest.raises(LogRolledBack):
        anchor.keep(forged)
    marker = client.list_object_versions(Bucket=bucket, Prefix=key)["DeleteMarkers"][0]["VersionId"]
    client.delete_object(Bucket=bucket, Key=key, VersionId=marker)
    with pytest.raises(LogRolledBack, match="tried to hide"):
        list(anchor.notes(LOG.name))


def test_a_bucket_without_lock_is_refused(client, tmp_path):
    name = f"plain-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    with pytest.raises((StoreUnsafe, StoreError)):
        anchor_in(name, tmp_path).keep(signed(5))


def test_a_service_that_does_not_lock_is_found_by_reading_back(bucket, tmp_path, monkeypatch):
    anchor = anchor_in(bucket, tmp_path)
    put = anchor._client.put_object
    monkeypatch.setattr(
        anchor._client, "put_object",
        lambda **request: put(**{k: v for k, v in request.items() if not k.startswith("ObjectLock")}),
    )  # fmt: skip
    with pytest.raises((StoreUnsafe, StoreError)):
        anchor.keep(signed(5))


@pytest.mark.usefixtures("client")
def test_a_missing_bucket_is_a_store_error(tmp_path):
    with pytest.raises(StoreError):
        anchor_in("not-there", tmp_path).keep(signed(5))
