"""An anchor in a real S3 service with Object Lock: what is kept cannot be deleted or replaced in time."""

import io
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

boto3 = pytest.importorskip("boto3", reason="the extra aws is not installed")

from botocore.exceptions import ClientError, EndpointConnectionError  # noqa: E402 - after the skip

from stanch.crypto import SigningKey  # noqa: E402 - after the skips
from stanch.errors import LogRolledBack, MissingExtraError, StoreError, StoreUnsafe  # noqa: E402 - same
from stanch.ledger.anchor import anchor_key  # noqa: E402 - same
from stanch.ledger.anchor_s3lock import S3LockAnchor  # noqa: E402 - same
from stanch.ledger.anchor_uri import open_anchor  # noqa: E402 - same
from stanch.ledger.checkpoint import Checkpoint, sign_checkpoint  # noqa: E402 - same
from stanch.ledger.note import Cosigner, NoteSigner  # noqa: E402 - same

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


# What a service may answer that the real one here never does


class Service:
    """S3 with Object Lock in memory, as far as an anchor asks it; lists a page of one version at a time."""

    def __init__(self, **faults):
        self.faults, self.versions, self.markers, self.asked = faults, [], [], []

    def put_object(self, **asked):
        self.asked.append(asked)
        if not self.faults.get("loses"):
            self.add(asked["Key"], asked["Body"])
        return self.faults.get("answer", {"VersionId": "new"})

    def add(self, key, body, *, seconds=0):
        version = {"Key": key, "VersionId": f"v{len(self.versions)}", "body": body}
        self.versions.insert(0, version | {"LastModified": datetime(2026, 1, 1, second=seconds, tzinfo=UTC)})

    def get_object_retention(self, **asked):
        self.asked.append(asked)
        until = self.asked[0]["ObjectLockRetainUntilDate"] - self.faults.get("short", timedelta())
        return self.faults.get("lock", {"Retention": {"Mode": "COMPLIANCE", "RetainUntilDate": until}})

    def get_object(self, *, Bucket, Key, VersionId):
        (body,) = {v["body"] for v in self.versions if (v["Key"], v["VersionId"]) == (Key, VersionId)}
        return {"Body": io.BytesIO(body), "Bucket": Bucket}

    def get_paginator(self, name):
        assert name == "list_object_versions"
        if "error" in self.faults:
            raise self.faults["error"]
        return SimpleNamespace(paginate=self.paginate)

    def paginate(self, *, Bucket, Prefix):
        assert Bucket == "bucket"
        yield {}
        for kind, found in (("Versions", self.versions), ("DeleteMarkers", self.markers)):
            yield from ({kind: [one]} for one in found if one["Key"].startswith(Prefix))


def anchor_at(service, prefix="a/b"):
    return S3LockAnchor(service, "s3lock://bucket", "bucket", prefix, 2)


@pytest.mark.parametrize("prefix", ["", "a/b"])
def test_what_is_asked_of_the_service(prefix):
    service = Service()
    anchor, key = anchor_at(service, prefix), f"{prefix}/{anchor_key(LOG.name, 9)}".removeprefix("/")
    anchor.keep(signed(9))
    put, read_back = service.asked
    until = put.pop("ObjectLockRetainUntilDate")
    assert put == {
        "Bucket": "bucket", "Key": key, "Body": signed(9).note, "ContentType": "text/plain; charset=utf-8",
        "ObjectLockMode": "COMPLIANCE", "ChecksumAlgorithm": "SHA256", "IfNoneMatch": "*",
    }  # fmt: skip
    assert until.microsecond == 0
    assert timedelta(days=2, seconds=-60) < until - datetime.now(UTC) <= timedelta(days=2)
    assert read_back == {"Bucket": "bucket", "Key": key, "VersionId": "new"}
    assert list(anchor.notes(LOG.name)) == [signed(9).note]
    assert list(anchor.notes("example.com/other")) == []


@pytest.mark.parametrize(
    "lock",
    [
        {},
        {"Retention": {}},
        {"Retention": {"Mode": "COMPLIANCE"}},
        {"Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": datetime(9999, 1, 1, tzinfo=UTC)}},
    ],
)
def test_a_lock_of_another_kind_is_refused(lock):
    with pytest.raises(StoreUnsafe, match="does not lock what it keeps"):
        anchor_at(Service(lock=lock)).keep(signed(5))


def test_a_lock_may_end_five_minutes_early_and_no_more():
    anchor_at(Service(short=timedelta(minutes=5))).keep(signed(5))
    with pytest.raises(StoreUnsafe):
        anchor_at(Service(short=timedelta(minutes=5, seconds=1))).keep(signed(5))


def test_a_service_without_versions_is_asked_for_the_object_itself():
    service = Service(answer={})
    anchor_at(service).keep(signed(5))
    assert "VersionId" not in service.asked[1]


def test_what_the_service_does_not_list_was_not_kept():
    with pytest.raises(StoreError, match="does not list what it took"):
        anchor_at(Service(loses=True)).keep(signed(5))


@pytest.mark.parametrize(
    "error", [ClientError({}, "ListObjectVersions"), EndpointConnectionError(endpoint_url="https://s3.example")]
)
def test_every_failure_of_the_service_is_a_store_error(error):
    with pytest.raises(StoreError, match="the service failed"):
        anchor_at(Service(error=error)).keep(signed(5))


def test_a_version_of_another_checkpoint_that_stands_there_is_refused():
    service = Service()
    service.add(f"a/b/{anchor_key(LOG.name, 5)}", signed(5, b"\1" * 32).note)
    with pytest.raises(LogRolledBack, match="keeps another checkpoint of 5 entries"):
        anchor_at(service).keep(signed(5))
    assert len(service.versions) == 1


def test_without_the_optional_part_the_install_line_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtraError, match="aws"):
        anchor_in("bucket", tmp_path)


def test_the_oldest_version_counts_and_the_largest_size_is_the_newest():
    service = Service()
    anchor = anchor_at(service)
    for size in (9, 100, 10):
        anchor.keep(signed(size))
    note = signed(100).note + Cosigner("w", LOG.key).cosign(signed(100).checkpoint.text(), 1).encode()
    service.add(f"a/b/{anchor_key(LOG.name, 100)}", note)  # as another host that kept it in the same second
    assert list(anchor.notes(LOG.name)) == [signed(size).note for size in (9, 10, 100)]
    assert anchor.newest(LOG.name) == signed(100).note
    service.versions.reverse()  # a service that lists the oldest first, by its times
    for seconds, version in enumerate(service.versions):
        version["LastModified"] += timedelta(seconds=seconds)
    assert anchor.newest(LOG.name) == signed(100).note
    anchor.keep(replace(signed(100), note=note))
    assert len(service.versions) == 4
    service.add(f"a/b/{anchor_key(LOG.name, 10)}", signed(10, b"\1" * 32).note, seconds=59)
    with pytest.raises(LogRolledBack, match="tried to hide"):
        list(anchor.notes(LOG.name))


def test_a_marker_over_nothing_hides_nothing():
    service = Service()
    service.markers.append({"Key": f"a/b/{anchor_key(LOG.name, 9)}", "VersionId": "m"})
    anchor = anchor_at(service)
    assert (list(anchor.notes(LOG.name)), anchor.newest(LOG.name)) == ([], None)
    anchor.keep(signed(9))
    with pytest.raises(LogRolledBack, match="tried to hide") as caught:
        list(anchor.notes(LOG.name))
    assert caught.value.why == "versions, oldest first: v0; delete markers: m"


def test_the_uri_says_where_and_for_how_long(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(boto3, "client", lambda *names, **settings: made.append((names, settings)))
    anchor = open_anchor("s3lock://bucket/!a/b!/?days=400&endpoint=https://s3.example", log_folder=tmp_path)
    assert (anchor._bucket, anchor._prefix, anchor._days, anchor.outside) == ("bucket", "!a/b!/", 400, True)
    (names, settings) = made[0]
    config = settings["config"]
    assert (names, settings["endpoint_url"]) == (("s3",), "https://s3.example")
    assert (config.connect_timeout, config.read_timeout, config.retries) == (5, 10, {"total_max_attempts": 2})
    open_anchor("s3lock://bucket?days=1", log_folder=tmp_path)
    assert made[1][1]["endpoint_url"] is None
