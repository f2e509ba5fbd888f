"""Blobs that a web server hands out: for auditors and mirrors, read only."""

from collections.abc import Iterable, Iterator
from typing import NoReturn

from stanch.errors import InvalidInput, NotFound, StoreError
from stanch.store.blob import BlobInfo, Buffer, PutMode, check_key
from stanch.store.http import HttpRequest, HttpResponse, check_url, exchange

_MAX_BLOB = 64 << 20
_TIMEOUT_SECONDS = 60.0


class HttpBlobs:
    """The ``https:`` driver: ``GET`` and ``HEAD`` of ``<uri>/<key>``. Writing and listing are refused."""

    def __init__(self, uri: str) -> None:
        if check_url(uri).query:
            raise InvalidInput("blobs: expected https://host/path without a query")
        self._base = uri.rstrip("/")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """See :meth:`stanch.store.blob.BlobStore.get`; at most 64 MiB."""
        if start < 0 or (length is not None and length < 0):
            raise InvalidInput(f"blob {key}: expected a range that is not negative")
        whole = start == 0 and length is None
        # An empty range cannot be asked for; one byte tells at least whether the blob exists.
        end = "" if length is None else str(start + max(length, 1) - 1)
        answer = self._ask("GET", key, {} if whole else {"Range": f"bytes={start}-{end}"})
        if answer.status == 416:  # the range begins behind the end
            return b""
        # A server may ignore the range and answer 200 with everything.
        skipped = 0 if answer.status == 206 else start
        return answer.body[skipped:][:length]

    def head(self, key: str) -> BlobInfo:
        """See :meth:`stanch.store.blob.BlobStore.head`; the etag is empty where the server gives none."""
        answer = self._ask("HEAD", key, {})
        length = answer.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise StoreError(f"blob {key}: the server does not say how long it is")
        return BlobInfo(key, int(length), answer.headers.get("etag", ""))

    def put(self, key: str, data: Buffer | Iterable[Buffer], *, mode: PutMode) -> NoReturn:  # noqa: ARG002 - the protocol's signature
        """Refuse: this store is read only."""
        raise self._read_only()

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:  # noqa: ARG002 - the protocol's signature
        """Refuse: a web server has no list of what it holds."""
        raise StoreError(f"{self._base}: a web server has no list of its blobs")

    def delete(self, key: str) -> NoReturn:  # noqa: ARG002 - the protocol's signature
        """Refuse: this store is read only."""
        raise self._read_only()

    def _ask(self, method: str, key: str, headers: dict[str, str]) -> HttpResponse:
        check_key(key)
        request = HttpRequest("HEAD" if method == "HEAD" else "GET", f"{self._base}/{key}", headers)
        answer = exchange(request, timeout_seconds=_TIMEOUT_SECONDS, max_bytes=_MAX_BLOB)
        if answer.status in {404, 410}:
            raise NotFound(f"blob {key}: does not exist")
        if answer.status not in {200, 206, 416}:
            raise StoreError(f"blob {key}: the web server answered with status {answer.status}")
        return answer

    def _read_only(self) -> StoreError:
        return StoreError(f"{self._base}: is read only", next_step="write to the store that the web server hands out")
