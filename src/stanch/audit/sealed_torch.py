"""Opens the model of a sealed bundle for an audit: from memory, no plaintext of it lies on disk."""

import hashlib
from pathlib import Path

from stanch.audit.hf_torch import HfScorer
from stanch.audit.loading_torch import default_device, load_model, load_tokenizer, widen
from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.seal import OpenBundle
from stanch.seal import load_torch as sealed
from stanch.terms import Digest, JsonValue
from stanch.weights import DirectoryDigest, directory_digest


def open_sealed_scorer(bundle: OpenBundle, base: Path | None = None) -> HfScorer:
    """Return a scorer of the model, or of the adapter over ``base``, in an open bundle.

    Its identity is that of the directory that was sealed, so a certificate of the audit is about the files that the
    recipient opens.

    Args:
        bundle: An open bundle; it may be closed afterwards.
        base: Directory of the base model; needed for an adapter.

    Raises:
        InvalidInput: The bundle holds no model, or an adapter comes without its base.
        PolicyViolation: The base model is not the one that the bundle names.
        UnsafeArtifact: The bundle or the base could execute code.
        VerificationError: A segment does not match or does not decrypt.
    """
    return load_scorer(bundle, base, sealed_digest(bundle))


def load_scorer(files: sealed.ModelFiles, base: Path | None, found: DirectoryDigest | None = None) -> HfScorer:
    """Return a scorer of the model, or of the adapter over ``base``, in files that lie in memory.

    Args:
        files: The files; not needed afterwards.
        base: Directory of the base model; needed for an adapter.
        found: Digest of the directory that they stand for, if it is known.

    Raises:
        StanchError: As :func:`open_sealed_scorer`.
    """
    device = default_device()
    names = {file.path for file in files.files()}
    if "adapter_config.json" not in names:
        whole = widen(sealed.load_model(files), device).to(device)
        return HfScorer.from_loaded(whole, sealed.load_tokenizer(files), body=found)
    if base is None:
        raise InvalidInput(
            "the adapter needs its base model",
            why="it holds only the difference to the model it was tuned from",
            next_step="give the base model's directory with --base",
        )
    body = directory_digest(base)
    model = sealed.load_adapter(files, widen(load_model(base, "auto"), device), base_digest=body.root)
    tokenizer = sealed.load_tokenizer(files) if "tokenizer.json" in names else load_tokenizer(base)
    return HfScorer.from_loaded(model.to(device), tokenizer, body=body, delta=found)


def sealed_digest(bundle: OpenBundle) -> DirectoryDigest:
    """Return the digest of the directory that was sealed, as :func:`stanch.weights.directory_digest` gives it.

    A file whose SHA-256 the bundle does not list is decrypted to memory, piece by piece, and hashed.
    """
    files = sorted(bundle.files(), key=lambda file: file.path.encode("utf-8", "surrogateescape"))
    listed = tuple((file.path, file.size, file.sha256 or _hashed(bundle, file.path)) for file in files)
    listing: JsonValue = [{"name": name, "sha256": digest, "size": size} for name, size, digest in listed]
    return DirectoryDigest(Digest.sha256(canonical_json(listing)), listed)


def _hashed(bundle: OpenBundle, name: str) -> str:
    hasher = hashlib.sha256()
    for piece in bundle.pieces(name):
        hasher.update(piece)
    return hasher.hexdigest()
