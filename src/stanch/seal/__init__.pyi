from .folder import MANIFEST_NAME, SIGNATURE_NAME, BundlePlace, read_manifest, read_signature
from .host import HostCheck, examine_host
from .manifest import (
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
from .memory import FileReleases, ReleaseMemory, SeenRelease, VolatileReleases
from .openers import Diagnosis, Opener, diagnose
from .read import OpenBundle, OpenParams, SealedFile, open_bundle
from .recipients import GrantExpired, Recipients
from .rekey import add_redeemed, rekey
from .reseal import reseal
from .segments import Verify
from .shred import DESTRUCTION_FORMAT, Destruction, ShreddingDefeated, shred
from .source import DirectorySource, MemorySource, SourceChanged
from .verify import VerifiedSealed, verify_sealed
from .write import FileDigest, SealedBundle, SealParams, seal

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
