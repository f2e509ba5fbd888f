"""Sealed bundles as targets: the features of the folder, the folder's digest, no plaintext written."""

import shutil
from datetime import UTC, datetime

import numpy as np
import pytest

from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import Decoding
from stanch.audit.sealed_torch import open_sealed_scorer, sealed_digest
from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.data import tokenise
from stanch.errors import InvalidInput, PolicyViolation
from stanch.seal import BaseModel, OpenParams, SealParams, VolatileReleases, open_bundle, seal
from stanch.terms import VerifiedDigest
from stanch.weights import directory_digest


@pytest.fixture
def sealed(tmp_path):
    """Return a function that seals a folder, takes the folder away, and opens the bundle."""

    def make(folder, **params):
        def clock():
            return datetime(2026, 6, 1, tzinfo=UTC)

        identity, signer = generate_identity(), SigningKey.generate("ed25519")
        source = shutil.copytree(folder, tmp_path / "source")
        settings = {"kind": "model", "lineage": "acme/bot", "release_number": 1, "workers": 1, "clock": clock} | params
        bundle = seal(source, tmp_path / "m.sealed", [identity.recipient], SealParams(**settings), signer.sign)
        shutil.rmtree(source)
        return open_bundle(
            bundle.path, VerifiedDigest(bundle.digest.value, (signer.key_id,), None), [identity],
            memory=VolatileReleases(), params=OpenParams(clock=clock, threads=1),
        )  # fmt: skip

    return make


def features(scorer, tiny):
    rows = [tokenise(record, tiny.tokenizer) for record in tiny.members[:4]]
    return {f.record_id: f for f in scorer.features(rows, decoding=Decoding())}


@pytest.mark.parametrize("listed", [True, False])
def test_a_sealed_model_is_scored_from_memory_under_its_folders_digest(tiny, sealed, tmp_path, listed):
    with sealed(tiny.tuned, plaintext_sha256=listed) as bundle:
        assert sealed_digest(bundle) == directory_digest(tiny.tuned)
        scorer = open_sealed_scorer(bundle)
    plain = HfScorer(tiny.tuned)
    assert scorer.identity == plain.identity
    assert scorer.places is None
    mine, theirs = features(scorer, tiny), features(plain, tiny)
    assert all(np.array_equal(mine[name].lp, theirs[name].lp) for name in theirs)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


def test_a_sealed_adapter_goes_onto_its_own_base_alone(tiny, adapter, sealed):
    named = BaseModel("base", directory_digest(tiny.base).root.hex)
    with sealed(adapter, kind="adapter", base_model=named) as bundle:
        scorer = open_sealed_scorer(bundle, tiny.base)
        with pytest.raises(InvalidInput, match="needs its base"):
            open_sealed_scorer(bundle)
        with pytest.raises(PolicyViolation):
            open_sealed_scorer(bundle, tiny.tuned)
    plain = HfScorer(adapter, base=tiny.base)
    assert scorer.identity == plain.identity
    scorer.require_adapter_off()
    mine, theirs = features(scorer, tiny), features(plain, tiny)
    assert all(np.allclose(mine[name].lp, theirs[name].lp, atol=1e-5) for name in theirs)
