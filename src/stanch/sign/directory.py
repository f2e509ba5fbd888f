"""OpenSSF model signing (OMS) 1.x: one signature over every file of a directory.

The statement lists the digest of each file (``files``) or of each run of bytes of it (``shards``); its subject is the
SHA-256 over all of them. We write ``files`` and read both. A reader enumerates the directory itself: a file that the
list does not name is an error, and so is a missing one. See ``docs/spec/model-signature.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stanch.crypto import FileHashName, SigningKey, sha256
from stanch.errors import InvalidInput, PolicyViolation, Tampered, printable
from stanch.sign.bundle import Bundle, sign_statement, verify_bundle
from stanch.sign.files import Piece, hash_pieces, open_regular
from stanch.sign.policy import Policy, PredicateType, all_of
from stanch.sign.resources import Resource, Serialization, read_resources, write_resources
from stanch.sign.statement import Statement, Subject
from stanch.terms import Digest
from stanch.weights import Listing, check_paths, list_files

MODEL_SIGNATURE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE_NAME = "model.sig"
MODEL_KEYS = frozenset({"p256", "p384", "p521"})
GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What an honest signer may leave out beside the signature; a longer list could hide files that run."""

_MAX_SIGNATURE = 16 << 20
_SHOWN = 50


class DirectoryMismatch(Tampered):
    """A directory is not the one that was signed.

    Attributes:
        changed: Files whose bytes differ, and links or special files.
        missing: Files that were signed and are not there.
        unlisted: Files that are there and were not signed.
    """

    def __init__(self, path: Path, changed: Sequence[str], missing: Sequence[str], unlisted: Sequence[str]) -> None:
        kinds = {"changed": changed, "missing": missing, "unlisted": unlisted}
        super().__init__(
            f"{path}: {sum(map(len, kinds.values()))} files are not as they were signed",
            why="; ".join(f"{kind}: {_join(names)}" for kind, names in kinds.items() if names),
            next_step="get the directory again from its publisher",
        )
        self.changed, self.missing, self.unlisted = tuple(changed), tuple(missing), tuple(unlisted)


def _join(names: Sequence[str]) -> str:
    """Return names for a message; a name from a disk may hold anything, so it is shown as Python would write it."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


@dataclass(frozen=True, slots=True)
class VerifiedDirectory:
    """A directory whose files are all those that a trusted key signed, and no others.

    Attributes:
        name: What the signer called it; nothing depends on it.
        digest: SHA-256 over all digests in the list: the name of this content.
        files: Relative paths, sorted.
        hash: The hash of the files.
        signer_key_ids: Ids of the trusted keys whose signatures verified.
    """

    name: str
    digest: Digest
    files: tuple[str, ...]
    hash: FileHashName
    signer_key_ids: tuple[str, ...]


def sign_directory(path: Path, signer: SigningKey, *, hash: FileHashName = "blake3") -> Bundle:  # noqa: A002 - the word of the format
    """Sign every file below ``path``, but for git's and :data:`SIGNATURE_NAME` at the top.

    The payload follows from the files and the directory's name, so that several signers sign one payload.

    Args:
        path: The directory.
        signer: A key of one of the three curves: other implementations read no other kind we have.
        hash: The hash of the files.

    Raises:
        InvalidInput: The directory is empty, holds links, special files or names that not every system can hold; or
            the key is of another kind.
    """
    _require_model_key(signer)  # before hours of hashing
    listing = list_files(path, (*GIT_PATHS, SIGNATURE_NAME), hub=True)
    if listing.others:
        raise InvalidInput(
            f"{path}: holds links or special files: {_join(listing.others)}",
            why="what a link points to can change without the directory changing",
            next_step="replace each by a copy of the file",
        )
    if not listing.files:
        raise InvalidInput(f"{path}: expected files to sign, found none")
    check_paths(listing.files)
    hashed = hash_pieces(path, [Piece(name) for name in listing.files], hash)
    digests = {name: digest for name, digest in zip(listing.files, hashed, strict=True) if digest is not None}
    return sign_listing(path.resolve().name, digests, signer, hash=hash)


def sign_listing(name: str, digests: Mapping[str, bytes], signer: SigningKey, *, hash: FileHashName) -> Bundle:  # noqa: A002 - the word of the format
    """Sign files by their digests as :func:`sign_directory` signs those of a directory; git's are left out again.

    Args:
        name: What to call the directory.
        digests: The digest of each file by its relative path.
        signer: As for :func:`sign_directory`.
        hash: The hash that made the digests.

    Raises:
        InvalidInput: There is no file to sign, a name is not one, or the key is of another kind.
    """
    _require_model_key(signer)
    serialization = Serialization("files", hash, None, (*GIT_PATHS, SIGNATURE_NAME))
    ignored = frozenset(serialization.ignore_paths)
    kept = sorted((path for path in digests if path.partition("/")[0] not in ignored), key=str.encode)
    if not kept:
        raise InvalidInput(f"{name}: expected files to sign, found none")
    check_paths(kept)
    resources = tuple(Resource(Piece(path), digests[path]) for path in kept)
    root = sha256(*(resource.digest for resource in resources))
    subject = Subject(name, Digest("sha256", root))
    statement = Statement((subject,), MODEL_SIGNATURE_TYPE, write_resources(serialization, resources))
    # Read back: what is too large for a reader's limits is never given out.
    return Bundle.parse(sign_statement(statement, signer).to_bytes(), what=f"signature of {name}")


def _require_model_key(signer: SigningKey) -> None:
    if signer.kind not in MODEL_KEYS:
        raise InvalidInput(
            f"model signatures need a key of P-256, P-384 or P-521, found {signer.kind}",
            next_step="make one with: stanch key new --kind sign --out FILE",
        )


def verify_directory(
    path: Path, bundle: Bundle, policy: Policy, *, beside: Sequence[Bundle] = (), signature_name: str = SIGNATURE_NAME
) -> VerifiedDirectory:
    """Check that the files below ``path`` are those that ``bundle`` lists, and that ``policy`` trusts who signed.

    Args:
        path: The directory. Whoever can write to it can change it after the check.
        bundle: The signature.
        policy: Must contain :class:`stanch.sign.TrustedKeys`.
        beside: Further signers' bundles over the same payload.
        signature_name: Where one of the bundles may lie at the top of the directory.

    Raises:
        DirectoryMismatch: Names every changed, missing and unlisted file.
        NoTrustedSignature: No trusted key signed.
        PolicyViolation: The policy does not hold, or the list contradicts its own subject.
        InvalidInput: The statement is no model signature, or the directory cannot be read.
    """
    verified = verify_bundle(bundle, all_of(policy, PredicateType(MODEL_SIGNATURE_TYPE)), beside=beside)
    statement = verified.statement
    serialization, resources = read_resources(statement.predicate)
    subject = statement.subjects[0]
    if len(statement.subjects) != 1 or subject.digest.value != sha256(*(item.digest for item in resources)):
        raise PolicyViolation("the model signature's subject is not the digest of its own list")
    ignored = {name for name in (*GIT_PATHS, signature_name) if name in serialization.ignore_paths}
    listing = list_files(path, ignored - {signature_name}, hub=True)
    if signature_name in ignored.intersection(listing.files) and _is_about(path, signature_name, bundle.payload):
        listing = Listing(tuple(name for name in listing.files if name != signature_name), listing.others)
    _compare(path, listing, serialization, resources)
    return VerifiedDirectory(
        subject.name, subject.digest, listing.files, serialization.hash, verified.signer_key_ids
    )  # fmt: skip


def _is_about(path: Path, name: str, payload: bytes) -> bool:
    """Tell whether the file is a signature over this payload: only then may it be there without being listed."""
    with open(open_regular(path, name), "rb") as stream:  # noqa: PTH123 - from a descriptor
        data = stream.read(_MAX_SIGNATURE + 1)
    try:
        return Bundle.parse(data).payload == payload
    except InvalidInput:
        return False


def _compare(path: Path, listing: Listing, serialization: Serialization, resources: Sequence[Resource]) -> None:
    """Hash what is both listed and there; name everything that differs."""
    found = frozenset(listing.files)
    listed = {resource.piece.path for resource in resources}
    ends = {resource.piece.path: resource.piece for resource in sorted(resources, key=_start)}
    present = [resource for resource in resources if resource.piece.path in found]
    # The last piece of a file is hashed to the file's end, so that bytes added behind it are seen.
    pieces = [
        replace(resource.piece, end=None) if resource.piece is ends[resource.piece.path] else resource.piece
        for resource in present
    ]
    digests = hash_pieces(path, pieces, serialization.hash)
    changed = {
        resource.piece.path
        for resource, digest in zip(present, digests, strict=True)
        if digest != resource.digest
    }  # fmt: skip
    others = set(listing.others)
    unlisted = [name for name in listing.files if name not in listed]
    missing = sorted(listed - found - others)
    if changed or others or missing or unlisted:
        raise DirectoryMismatch(path, sorted(changed | others), missing, unlisted)


def _start(resource: Resource) -> int:
    return resource.piece.start
