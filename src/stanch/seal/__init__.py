"""Sealed bundles: a tuned model or a dataset as ciphertext that only named recipients open.

Anybody can check a bundle against its publisher's signature; it loads straight into memory without plaintext on disk;
its recipients change without touching its body. The format is specified in ``docs/spec/sealed-bundle.md``.

What this package cannot do alone is vouch for a publisher: :func:`open_bundle` demands a
:class:`stanch.terms.VerifiedDigest`, which ``stanch.sign`` makes::

    bundle = seal(Path("model"), Path("acme.sealed"), [parse_recipient(text)], params, finish=sign)

    with open_bundle(Path("acme.sealed"), verified_digest, [identity], memory=FileReleases(path)) as bundle:
        config = bundle.read("config.json")
        weight = bundle.tensor("lm_head.weight").to_float32()      # reads only the segments that hold it

Models load with :mod:`stanch.seal.load_torch`, which needs the extra ``train``.
"""

from stanch.seal.folder import MANIFEST_NAME, SIGNATURE_NAME, BundlePlace, read_manifest, read_signature
from stanch.seal.host import HostCheck, examine_host
from stanch.seal.manifest import (
    NO_COMMITMENTS,
    BaseModel,
    BundleKind,
    Commitments,
    Manifest,
    Quorum,
    StreamEntry,
    UnsupportedFormat,
    parse_manifest,
)
from stanch.seal.memory import FileReleases, ReleaseMemory, SeenRelease, VolatileReleases
from stanch.seal.openers import Diagnosis, Opener, diagnose
from stanch.seal.read import OpenBundle, OpenParams, SealedFile, open_bundle
from stanch.seal.recipients import GrantExpired, Recipients
from stanch.seal.rekey import add_redeemed, rekey
from stanch.seal.reseal import reseal
from stanch.seal.segments import Verify
from stanch.seal.shred import DESTRUCTION_FORMAT, Destruction, ShreddingDefeated, shred
from stanch.seal.source import DirectorySource, MemorySource, SourceChanged
from stanch.seal.verify import VerifiedSealed, verify_sealed
from stanch.seal.write import FileDigest, SealedBundle, SealParams, seal

__all__ = [
    "DESTRUCTION_FORMAT",
    "MANIFEST_NAME",
    "NO_COMMITMENTS",
    "SIGNATURE_NAME",
    "BaseModel",
    "BundleKind",
    "BundlePlace",
    "Commitments",
    "Destruction",
    "Diagnosis",
    "DirectorySource",
    "FileDigest",
    "FileReleases",
    "GrantExpired",
    "HostCheck",
    "Manifest",
    "MemorySource",
    "OpenBundle",
    "OpenParams",
    "Opener",
    "Quorum",
    "Recipients",
    "ReleaseMemory",
    "SealParams",
    "SealedBundle",
    "SealedFile",
    "SeenRelease",
    "ShreddingDefeated",
    "SourceChanged",
    "StreamEntry",
    "UnsupportedFormat",
    "VerifiedSealed",
    "Verify",
    "VolatileReleases",
    "add_redeemed",
    "diagnose",
    "examine_host",
    "open_bundle",
    "parse_manifest",
    "read_manifest",
    "read_signature",
    "rekey",
    "reseal",
    "seal",
    "shred",
    "verify_sealed",
]
