"""Provenance: what is stated, and that nothing else is."""

from dataclasses import replace
from datetime import UTC, datetime

from stanch.crypto import SigningKey
from stanch.sign import (
    PROVENANCE_TYPE,
    Bundle,
    PredicateType,
    PrivateTraining,
    Subject,
    TrustedKeys,
    TuningRun,
    all_of,
    sign_statement,
    state_provenance,
    verify_bundle,
)
from stanch.terms import Digest, NeighboringRelation

KEY = SigningKey.generate("p256")
PRIVACY = PrivateTraining(
    epsilon=8.0, delta=1e-5, noise_multiplier=0.7, max_grad_norm=0.5, sample_rate=0.125, steps=40, accountant="pld",
    neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
)  # fmt: skip
RUN = TuningRun(
    model=(Subject("adapter_model.safetensors", Digest.sha256(b"w")),), method="lora", privacy=PRIVACY,
    base=Digest.sha256(b"base"), dataset=Digest.sha256(b"data"), invocation="urn:x:1", builder="urn:x:builder",
    config=Digest.sha256(b"plan"), commit="ab" * 20, container=Digest.sha256(b"image"), versions={"torch": "2"},
    started=datetime(2026, 1, 1, tzinfo=UTC), finished=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    byproducts={"leak-certificate": Digest.sha256(b"cert")},
)  # fmt: skip


def test_a_run_is_stated_as_slsa_provenance():
    bundle = Bundle.parse(sign_statement(state_provenance(RUN), KEY).to_bytes())
    verified = verify_bundle(bundle, all_of(TrustedKeys((KEY.public,)), PredicateType(PROVENANCE_TYPE)))
    assert verified.statement.predicate_type == "https://slsa.dev/provenance/v1"
    assert verified.statement.subjects == RUN.model
    assert verified.statement.predicate == {
        "buildDefinition": {
            "buildType": "urn:stanch:finetune:v1",
            "externalParameters": {
                "config_sha256": Digest.sha256(b"plan").hex,
                "method": "lora",
                "dp": {
                    "epsilon": 8, "delta": 1e-5, "noise_multiplier": 0.7, "max_grad_norm": 0.5, "sample_rate": 0.125,
                    "steps": 40, "accountant": "pld", "neighboring_relation": "ADD_OR_REMOVE_ONE",
                },
            },
            "resolvedDependencies": [
                {"name": "base-model", "digest": {"sha256": Digest.sha256(b"base").hex}},
                {"name": "dataset", "digest": {"sha256": Digest.sha256(b"data").hex}},
                {"name": "code", "digest": {"gitCommit": "ab" * 20}},
                {"name": "container", "digest": {"sha256": Digest.sha256(b"image").hex}},
            ],
        },
        "runDetails": {
            "builder": {"id": "urn:x:builder", "version": {"torch": "2"}},
            "metadata": {
                "invocationId": "urn:x:1", "startedOn": "2026-01-01T00:00:00Z", "finishedOn": "2026-01-02T03:04:05Z",
            },
            "byproducts": [{"name": "leak-certificate", "digest": {"sha256": Digest.sha256(b"cert").hex}}],
        },
    }  # fmt: skip


def test_what_is_not_known_is_not_stated():
    bare = replace(RUN, privacy=None, config=None, commit=None, container=None, started=None, finished=None)
    predicate = state_provenance(bare).predicate
    assert predicate["buildDefinition"]["externalParameters"] == {"config_sha256": None, "method": "lora", "dp": None}
    assert [item["name"] for item in predicate["buildDefinition"]["resolvedDependencies"]] == ["base-model", "dataset"]
    assert predicate["runDetails"]["metadata"] == {"invocationId": "urn:x:1"}


def test_byproducts_stand_in_the_order_of_their_names():
    run = replace(RUN, byproducts={name: Digest.sha256(name.encode()) for name in ("mark", "evaluation")})
    listed = state_provenance(run).predicate["runDetails"]["byproducts"]
    assert [item["name"] for item in listed] == ["evaluation", "mark"]
