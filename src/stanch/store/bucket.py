"""A bucket as others have filled it: any keys, for looking through only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from stanch.store.blob_object import connect_service, object_errors

if TYPE_CHECKING:
    from obstore.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Bucket:
    """The objects below ``s3://bucket/prefix``, ``gs://…`` or ``az://…``, as they are now. Safe for several threads.

    Where the bucket keeps versions, earlier ones and those below a delete marker are not seen.
    """

    store: "ObjectStore"
    name: str

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open a bucket; see :func:`stanch.store.open_blobs` for what is refused."""
        service = connect_service(uri)
        return cls(service.store, service.name)

    def list(self) -> Iterator[tuple[str, int]]:
        """Yield key and size of every object.

        Raises:
            StoreError: The service failed.
        """
        import obstore  # noqa: PLC0415 - an optional part

        with object_errors("(list)", self.name):
            for page in obstore.list(self.store):
                for found in page:
                    yield found["path"], found["size"]

    def read(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of an object, which must lie inside it.

        Raises:
            NotFound: It was deleted meanwhile.
            StoreError: The service failed.
        """
        import obstore  # noqa: PLC0415 - an optional part

        with object_errors(key, self.name):
            return bytes(obstore.get_range(self.store, key, start=start, length=length))
