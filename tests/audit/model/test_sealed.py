"""Sealed bundles as targets: the same features as from the folder, the folder's digest, no plaintext written."""

import pytest

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.seal import DirectorySource, SealParams, VolatileReleases, open_bundle, seal
from stanch.terms import VerifiedDigest


@pytest.fixture
def opened(tmp_path):
    """Seal a folder and open it."""

    def make(folder, **params):
        identity, signer, signed = generate_identity(), SigningKey.generate("ed25519"), []
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.sealed"
        seal(
            DirectorySource(folder), out, [identity.recipient], SealParams(**params),
            finish=lambda digest: signed.append(digest) or b"{}",
        )  # fmt: skip
        del signer
        return open_bundle(out, VerifiedDigest(signed[0], "p"), [identity], memory=VolatileReleases())

    return make
