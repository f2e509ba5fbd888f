"""The publisher's signature over the plain files, which is sealed with them: who opens the bundle gets it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from stanch.crypto import SigningKey, parse_json
from stanch.seal import FileDigest
from stanch.sign import MODEL_KEYS, SIGNATURE_NAME, sign_listing
from stanch.terms import JsonValue


def plain_signer(
    folder: Path, signers: Sequence[SigningKey]
) -> Callable[[Sequence[FileDigest]], JsonValue] | None:  # fmt: skip
    """Return what signs the files of ``folder`` as :func:`stanch.sign.sign_directory` would, given their digests.

    None where no key is of a kind that model signatures have, or where a signature lies among the files already. The
    files must be sealed with ``plaintext_sha256``: the command line of model-signing reads no other hash.
    """
    signer = next((key for key in signers if key.kind in MODEL_KEYS), None)
    if signer is None or (folder / SIGNATURE_NAME).exists():
        return None

    def sign_files(files: Sequence[FileDigest]) -> JsonValue:
        digests = {file.path: bytes.fromhex(file.sha256) for file in files if file.sha256 is not None}
        bundle = sign_listing(folder.resolve().name, digests, signer, hash="sha256")
        return parse_json(bundle.to_bytes(), what=SIGNATURE_NAME)

    return sign_files
