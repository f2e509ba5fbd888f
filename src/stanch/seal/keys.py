"""The release root key and everything that is derived from it or bound to its bundle."""

import hmac

from stanch.crypto import frame, hkdf_sha384, sha256
from stanch.crypto.floe import decryption_failed
from stanch.crypto.stanza import ROOT_SIZE
from stanch.errors import InvalidInput

BUNDLE_ID_SIZE = 32


class ReleaseRoot:
    """The root key of one sealed bundle, fresh for each sealing.

    :meth:`wipe` overwrites our copy; Python may have made others, which is why nothing more is promised.
    """

    def __init__(self, root: bytes, bundle_id: bytes) -> None:
        if len(root) != ROOT_SIZE or len(bundle_id) != BUNDLE_ID_SIZE:
            raise InvalidInput(f"release root: expected {ROOT_SIZE} and {BUNDLE_ID_SIZE} bytes")
        self.bundle_id = bundle_id
        self._root = bytearray(root)
        self._wiped = False

    def __repr__(self) -> str:
        return f"ReleaseRoot(bundle_id={self.bundle_id.hex()[:16]}…)"

    def derive(self, label: str, extra: bytes = b"") -> bytes:
        """Return the 32-byte key for ``label`` and ``extra``: HKDF-SHA384 with the bundle id as salt.

        Raises:
            InvalidInput: The key was wiped.
        """
        return hkdf_sha384(self.reveal(), info=label.encode() + b"\x00" + extra, length=32, salt=self.bundle_id)

    def stream_key(self, stream: int) -> bytes:
        """Return the FLOE key of a stream."""
        return self.derive("stanch/seal/v1/dek", stream.to_bytes(4, "big"))

    def commitment(self) -> bytes:
        """Return the public commitment that the signed manifest carries."""
        return self.derive("stanch/seal/v1/root-commitment")

    def check(self, commitment: bytes) -> None:
        """Check this root against the signed commitment, so that a forged stanza cannot bring in another root.

        Raises:
            DecryptionFailed: It is another root.
        """
        if not hmac.compare_digest(self.commitment(), commitment):
            raise decryption_failed()

    def reveal(self) -> bytes:
        """Return the key itself, for wrapping.

        Raises:
            InvalidInput: It was wiped.
        """
        if self._wiped:
            raise InvalidInput("the bundle is closed", next_step="open it again")
        return bytes(self._root)

    def wipe(self) -> None:
        """Overwrite the key."""
        self._root[:] = bytes(ROOT_SIZE)
        self._wiped = True


def stream_aad(bundle_id: bytes, stream: int, size: int) -> bytes:
    """Return the associated data of a stream, which binds its bundle, number, role and plaintext size."""
    role = b"body" if stream else b"index"
    number, length = stream.to_bytes(4, "big"), size.to_bytes(8, "big")
    return sha256(frame(b"stanch/seal/v1/stream-aad", bundle_id, number, role, length))


def digests_commitment(bundle_id: bytes, stream: int, digests: bytes | memoryview) -> bytes:
    """Return the digest that the manifest holds over a stream's slice of ``digests.bin``."""
    return sha256(frame(b"stanch/seal/v1/digests", bundle_id, stream.to_bytes(4, "big"), bytes(digests)))
