"""``digests.bin``: the hash of every header and segment, by which anybody checks stored bytes a segment at a time."""

from stanch.crypto import hash_bytes
from stanch.errors import Tampered
from stanch.seal.folder import DIGESTS_NAME
from stanch.seal.keys import digests_commitment
from stanch.seal.manifest import Manifest

_DIGEST_SIZE = 32


def digests_size(manifest: Manifest) -> int:
    """Return the one accepted length of ``digests.bin``."""
    return _DIGEST_SIZE * sum(stream.entries for stream in manifest.streams)


class SignedDigests:
    """The digests of a bundle whose manifest is verified.

    Args:
        data: The bytes of ``digests.bin``, from anywhere.
        manifest: The verified manifest.

    Raises:
        Tampered: The digests are not those that the manifest commits to.
    """

    def __init__(self, data: bytes, manifest: Manifest) -> None:
        self.data = data
        self._hash = manifest.segment_hash
        if len(data) != digests_size(manifest):
            raise Tampered(f"{DIGESTS_NAME}: expected {digests_size(manifest)} bytes, found {len(data)}")
        self._slices: list[memoryview] = []
        bundle_id, start = bytes.fromhex(manifest.bundle_id), 0
        for stream in manifest.streams:
            part = memoryview(data)[start : start + _DIGEST_SIZE * stream.entries]
            if digests_commitment(bundle_id, stream.n, part).hex() != stream.digests:
                raise Tampered(
                    f"{DIGESTS_NAME}: the digests of stream {stream.n} are not the signed ones",
                    next_step="fetch the bundle again",
                )
            self._slices.append(part)
            start += len(part)

    def match(self, stream: int, entry: int, data: bytes | memoryview) -> bool:
        """Say whether stored bytes are the signed ones; entry 0 is the header, entry s + 1 segment s."""
        signed = self._slices[stream][_DIGEST_SIZE * entry : _DIGEST_SIZE * (entry + 1)]
        return hash_bytes(self._hash, data) == signed

    def require(self, stream: int, entry: int, data: bytes | memoryview) -> None:
        """Compare stored bytes with the signed digest.

        Raises:
            Tampered: They differ.
        """
        if not self.match(stream, entry, data):
            place = f"segment {entry - 1}" if entry else "the header"
            raise Tampered(
                f"stream {stream}, {place} does not match the signed digest",
                why="the copy was changed or damaged",
                next_step="fetch the bundle again",
            )
