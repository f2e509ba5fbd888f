"""Anchors in S3 with Object Lock: mode COMPLIANCE, in which not even the account's owner can delete in time."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stanch.errors import InvalidInput, MissingExtraError, StoreError, StoreUnsafe
from stanch.ledger.anchor import anchor_key, check_same
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
            kept = self._get(key)
            if kept is None:
                until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=self._days)
                self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=signed.note, ContentType="text/plain; charset=utf-8",
                    ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until, ChecksumAlgorithm="SHA256",
                    IfNoneMatch="*",
                )  # fmt: skip
                self._check_lock(key, until)
                kept = self._get(key) or b""
        check_same(self.uri, signed, kept)

    def notes(self, origin: str) -> Iterator[bytes]:
        """See :meth:`stanch.ledger.anchor.Anchor.notes`."""
        with self._errors():
            for key in self._keys(origin):
                yield self._get(key) or b""

    def newest(self, origin: str) -> bytes | None:
        """See :meth:`stanch.ledger.anchor.Anchor.newest`."""
        with self._errors():
            keys = self._keys(origin)
            return self._get(keys[-1]) if keys else None

    def _keys(self, origin: str) -> list[str]:
        folder = self._prefix + anchor_key(origin, 0).rpartition("/")[0] + "/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def _check_lock(self, key: str, until: datetime) -> None:
        found = self._client.get_object_retention(Bucket=self._bucket, Key=key).get("Retention", {})
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
