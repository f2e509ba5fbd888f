"""Anchors in S3 with Object Lock: mode COMPLIANCE, in which not even the account's owner can delete in time.

The lock is of versions. Whoever may write can still hide a key behind a delete marker or a later version, so the oldest
version of each key is what counts.
"""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stanch.errors import InvalidInput, LogRolledBack, MissingExtraError, StoreError, StoreUnsafe
from stanch.ledger.anchor import anchor_folder, anchor_key, check_same
from stanch.ledger.checkpoint import SignedCheckpoint

_DAYS = re.compile("[1-9][0-9]{0,4}")
_SLACK = timedelta(minutes=5)


class S3LockAnchor:
    """``s3lock://bucket/prefix?days=400[&endpoint=https://…]``. Credentials come from the AWS default chain."""

    outside = True

    def __init__(self, client: Any, uri: str, bucket: str, prefix: str, days: int) -> None:  # noqa: ANN401 - boto3 has no types
        self.uri = uri
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._days = days

    def keep(self, signed: SignedCheckpoint) -> None:
        """See :meth:`stanch.ledger.anchor.Anchor.keep`. An object that stands there is compared, not replaced.

        Raises:
            StoreUnsafe: The service took the object but does not lock it as asked.
        """
        key = self._prefix + anchor_key(signed.checkpoint.origin, signed.checkpoint.size)
        with self._errors():
            kept = self._oldest(key)
            if kept is None:
                until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=self._days)
                made = self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=signed.note, ContentType="text/plain; charset=utf-8",
                    ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until, ChecksumAlgorithm="SHA256",
                    IfNoneMatch="*",
                )  # fmt: skip
                self._check_lock(key, made.get("VersionId", ""), until)
                kept = self._oldest(key)
                if kept is None:
                    raise StoreError(f"anchor {self.uri}: the service does not list what it took")
        check_same(self.uri, signed, kept)

    def notes(self, origin: str) -> Iterator[bytes]:
        """See :meth:`stanch.ledger.anchor.Anchor.notes`.

        Raises:
            LogRolledBack: Somebody deleted a note or put another over it; the locked one still stands.
        """
        with self._errors():
            for key, (versions, markers) in sorted(self._versions(self._folder(origin)).items()):
                found = [self._get(key, version) for version in versions]
                # Versions of one text differ in their cosignatures: two hosts kept it at once.
                if found and (markers or len({note.partition(b"\n\n")[0] for note in found}) > 1):
                    there = (
                        f"versions, oldest first: {', '.join(versions)}; delete markers: {', '.join(markers) or 'none'}"
                    )
                    raise LogRolledBack(
                        f"log: somebody tried to hide what anchor {self.uri} keeps: {key}",
                        why=there,
                        next_step="keep all versions as evidence, and find out whose credentials did it",
                    )
                yield from found[:1]

    def newest(self, origin: str) -> bytes | None:
        """See :meth:`stanch.ledger.anchor.Anchor.newest`."""
        with self._errors():
            kept = {key: versions for key, (versions, _) in self._versions(self._folder(origin)).items() if versions}
            return self._get(max(kept), kept[max(kept)][0]) if kept else None

    def _folder(self, origin: str) -> str:
        return f"{self._prefix}{anchor_folder(origin)}/"

    def _versions(self, prefix: str) -> dict[str, tuple[list[str], list[str]]]:
        """Return by key the ids of its versions, oldest first, and of its delete markers."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        versions = []
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
            versions += page.get("Versions", ())
            for marker in page.get("DeleteMarkers", ()):
                found.setdefault(marker["Key"], ([], []))[1].append(marker["VersionId"])
        # The service lists the newest first; times have seconds only, and tell where one lists otherwise.
        versions.reverse()
        for version in sorted(versions, key=lambda version: version["LastModified"]):
            found.setdefault(version["Key"], ([], []))[0].append(version["VersionId"])
        return found

    def _oldest(self, key: str) -> bytes | None:
        versions, _ = self._versions(key).get(key, ([], []))
        return self._get(key, versions[0]) if versions else None

    def _get(self, key: str, version: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version)["Body"].read())

    def _check_lock(self, key: str, version: str, until: datetime) -> None:
        asked = {"VersionId": version} if version else {}  # a bucket without Object Lock may keep no versions
        found = self._client.get_object_retention(Bucket=self._bucket, Key=key, **asked).get("Retention", {})
        if found.get("Mode") != "COMPLIANCE" or found.get("RetainUntilDate", datetime.min.replace(tzinfo=UTC)) < (
            until - _SLACK
        ):
            raise StoreUnsafe(
                f"anchor {self.uri}: the service does not lock what it keeps",
                why=f"expected mode COMPLIANCE for {self._days} days, found {found.get('Mode', 'none')}",
                next_step="make the bucket with Object Lock enabled",
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - of an extra

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"anchor {self.uri}: the service failed", why=str(error)[:200]) from error


def open_s3lock(uri: str) -> S3LockAnchor:
    """Open ``s3lock://bucket/prefix?days=N``; see :func:`stanch.ledger.anchor.open_anchor`."""
    parts = urlsplit(uri)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    days = options.pop("days", "")
    endpoint = options.pop("endpoint", None)
    if not parts.netloc or "@" in parts.netloc or not _DAYS.fullmatch(days) or options or parts.fragment:
        raise InvalidInput(
            f"anchor: expected s3lock://bucket/prefix?days=N, found {uri[:200]!r}",
            why="days says for how long nobody can delete a checkpoint; credentials do not belong there",
        )
    try:
        import boto3  # noqa: PLC0415 - of an extra
        from botocore.config import Config  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("aws") from error
    config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    return S3LockAnchor(client, uri, parts.netloc, parts.path.strip("/"), int(days))
