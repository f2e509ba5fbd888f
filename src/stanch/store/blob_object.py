"""Blobs in an object store (S3, Google Cloud Storage, Azure), whose conditional writes are probed before they count."""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from stanch.errors import Conflict, InvalidInput, MissingExtraError, NotFound, StoreError, StoreTimeout, StoreUnsafe
from stanch.store.blob import CREATE, BlobInfo, Buffer, Match, PutMode, check_key
from stanch.store.host import is_loopback

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore import PutMode as ObstoreMode
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]{1,40})")
_BEHIND_THE_END = "416 "  # HTTP: range not satisfiable
_TIMED_OUT = "kind: Timeout"  # in the debug text of the driver's errors
_REQUEST_SECONDS = 60
_SLOWEST = 500_000  # bytes a second: a line that is slower is taken for a dead one
_PROBE = ".stanch-probe"  # no key of ours begins with a dot
_PROBE_TEXT = b"stanch has put this here to see whether conditional writes are kept\n"


class ObjectBlobs:
    """The driver of ``s3:``, ``gs:`` and ``az:``. Safe for several threads, processes and hosts.

    CREATE and ``Match`` are conditional writes that the service itself decides. The first ``put`` of a process makes
    sure that it does: a service that lets a second CREATE through would overwrite history, and is refused. A blob is
    held in memory as a whole while it is put. CREATE may report ``Conflict`` for a blob that the same call wrote, if
    the service failed after writing it and was asked again; whoever minds compares the content.
    """

    def __init__(self, connect: "Callable[[int], Service]") -> None:
        """Take what connects with a limit of so many seconds a request."""
        self._connect = connect
        self._store, self._name, self._version = connect(_REQUEST_SECONDS)
        self._patient: dict[int, ObjectStore] = {_REQUEST_SECONDS: self._store}
        self._probed = False
        self._lock = threading.Lock()

    def put(self, key: str, data: Buffer | Iterable[Buffer], *, mode: PutMode) -> BlobInfo:
        """See :meth:`stanch.store.blob.BlobStore.put`.

        Raises:
            StoreUnsafe: The service does not keep conditional writes.
        """
        check_key(key)
        body = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        with self._lock:
            if not self._probed:
                self._probe()
                self._probed = True
        return self._put(key, body, mode)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """See :meth:`stanch.store.blob.BlobStore.get`."""
        import obstore  # noqa: PLC0415 - an optional part

        if start < 0 or (length is not None and length < 0):
            raise InvalidInput(f"blob {key}: expected a range that is not negative")
        check_key(key)
        if length == 0:  # services refuse an empty range
            self.head(key)
            return b""
        with object_errors(key, self._name):
            try:
                if length is not None:
                    return bytes(obstore.get_range(self._store, key, start=start, length=length))
                options: GetOptions = {"range": {"offset": start}} if start else {}
                return bytes(obstore.get(self._store, key, options=options).bytes())
            except obstore.exceptions.GenericError as error:
                status = _STATUS.search(str(error))
                if status is None or not status[1].startswith(_BEHIND_THE_END):
                    raise
                return b""

    def head(self, key: str) -> BlobInfo:
        """See :meth:`stanch.store.blob.BlobStore.head`."""
        import obstore  # noqa: PLC0415 - an optional part

        check_key(key)
        with object_errors(key, self._name):
            found = obstore.head(self._store, key)
        return BlobInfo(key, found["size"], found[self._version] or "")

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        """See :meth:`stanch.store.blob.BlobStore.list`."""
        import obstore  # noqa: PLC0415 - an optional part

        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        with object_errors(prefix, self._name):
            found = [blob for page in obstore.list(self._store, folder or None) for blob in page]
        for blob in sorted(found, key=lambda blob: blob["path"]):
            if blob["path"].startswith(prefix) and blob["path"] != _PROBE:
                yield BlobInfo(blob["path"], blob["size"], blob[self._version] or "")

    def delete(self, key: str) -> None:
        """See :meth:`stanch.store.blob.BlobStore.delete`."""
        import obstore  # noqa: PLC0415 - an optional part

        self.head(key)  # services call the deletion of nothing a success
        with object_errors(key, self._name):
            obstore.delete(self._store, key)

    def _put(self, key: str, body: bytes, mode: PutMode) -> BlobInfo:
        import obstore  # noqa: PLC0415 - an optional part

        condition: ObstoreMode
        if isinstance(mode, Match):
            condition = {"e_tag": mode.etag} if self._version == "e_tag" else {"version": mode.etag}
        else:
            condition = "create" if mode == CREATE else "overwrite"
        store = self._store_for(len(body))
        with object_errors(key, self._name):
            done = obstore.put(store, key, body, mode=condition, use_multipart=False)
        return BlobInfo(key, len(body), done[self._version] or "")

    def _store_for(self, size: int) -> "ObjectStore":
        """Return a connection whose requests may take as long as so many bytes need on a slow line, in whole minutes.

        The driver's limit is of a whole request, and belongs to a connection.
        """
        more = -(-size // (_SLOWEST * _REQUEST_SECONDS)) if size > _SLOWEST else 0
        seconds = _REQUEST_SECONDS * (1 + more)
        if seconds not in self._patient:
            self._patient[seconds] = self._connect(seconds).store
        return self._patient[seconds]

    def _probe(self) -> None:
        """Put one key twice with CREATE, and once over a content that it never had: both must be refused."""
        with contextlib.suppress(Conflict):  # another process, or an earlier run, probed here before
            self._put(_PROBE, _PROBE_TEXT, CREATE)
        for mode in (CREATE, Match('"00000000000000000000000000000000"' if self._version == "e_tag" else "1")):
            try:
                self._put(_PROBE, _PROBE_TEXT, mode)
            except Conflict:
                continue
            raise StoreUnsafe(
                f"{self._name}: the service ignores the condition of a conditional write",
                why="it would let one writer overwrite what another has written",
                next_step="use a service that keeps If-None-Match and If-Match, or a file: store",
            )


@contextlib.contextmanager
def object_errors(key: str, name: str) -> Iterator[None]:
    """Turn the driver's errors into ours; of its text, which holds addresses, only the status is passed on."""
    import obstore.exceptions as driver  # noqa: PLC0415 - an optional part

    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"blob {key}: does not exist") from error
    except (driver.AlreadyExistsError, driver.PreconditionError) as error:
        raise Conflict(f"blob {key}: exists already, or is not the expected content") from error
    except (driver.BaseError, ValueError, OSError) as error:
        if _TIMED_OUT in str(error):
            raise StoreTimeout(
                f"blob {key}: {name} did not answer in time",
                why="the line is slow or dead, or the service is",
                next_step="repeat; what is there is used",
            ) from error
        status = _STATUS.search(str(error))
        raise StoreError(
            f"blob {key}: {name} failed",
            why=status[1] if status else type(error).__name__,
            next_step="check the bucket, the credentials and the endpoint, then repeat",
        ) from error


class Service(NamedTuple):
    """A connection to a bucket: the driver's store, what to call it, and which field tells two contents apart."""

    store: "ObjectStore"
    name: str
    version: Literal["e_tag", "version"]


def connect_objects(uri: str) -> ObjectBlobs:
    """Return the object store at ``s3://bucket/prefix``, ``gs://…`` or ``az://…``; see :func:`connect_service`."""
    return ObjectBlobs(lambda seconds: connect_service(uri, seconds=seconds))


def connect_service(uri: str, *, seconds: int = _REQUEST_SECONDS) -> Service:
    """Connect to the bucket at ``s3://bucket/prefix``, ``gs://…`` or ``az://…``; a request takes ``seconds`` at most.

    Endpoint, region and credentials come from the environment (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``) and the machine's
    role, never from the URI.

    Raises:
        InvalidInput: The URI is malformed, or an endpoint without TLS is not on this machine.
        MissingExtraError: obstore is not installed.
    """
    try:
        from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("s3") from error
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise InvalidInput(f"blobs: expected {parts.scheme}://bucket/prefix without user name, query and fragment")
    if prefix:
        check_key(prefix)
    retry: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
    client: ClientConfig = {
        "allow_http": parts.scheme == "s3" and _endpoint_is_local(),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=seconds),
    }
    name = f"{parts.scheme}://{parts.netloc}"
    root = prefix or None
    match parts.scheme:
        case "s3":
            store: ObjectStore = S3Store(parts.netloc, prefix=root, client_options=client, retry_config=retry)
            return Service(store, name, "e_tag")
        case "az":
            store = AzureStore(parts.netloc, prefix=root, client_options=client, retry_config=retry)
            return Service(store, name, "e_tag")
        case _:
            store = GCSStore(parts.netloc, prefix=root, client_options=client, retry_config=retry)
            return Service(store, name, "version")


def _endpoint_is_local() -> bool:
    """Say whether the S3 endpoint is plain HTTP on this machine; on another one that is refused."""
    plain = [os.environ[name] for name in _ENDPOINTS if os.environ.get(name, "").lower().startswith("http:")]
    if not all(is_loopback(urlsplit(endpoint).hostname or "") for endpoint in plain):
        raise InvalidInput(
            "blobs: expected an https: endpoint in AWS_ENDPOINT_URL, found http: of another machine",
            why="without TLS whoever stands between could read and change the blobs",
        )
    return bool(plain)
