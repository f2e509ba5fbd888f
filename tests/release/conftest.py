"""Fixtures: an order for one copy, with a publisher's key and a certificate that it signed."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workspace"))  # the test folders are no packages

import life

from stanch.audit import LEAKCERT_TYPE
from stanch.crypto import SigningKey
from stanch.mark import MarkRoot, RecipientSlot, commit, copy_key, plan_mark
from stanch.release import CopyOrder
from stanch.seal import BaseModel
from stanch.sign import Bundle, PredicateType, TrustedKeys, all_of, verify_bundle
from stanch.terms import Digest
from stanch.weights import directory_digest


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return life.make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def publisher():
    return SigningKey.generate("p256")


@dataclass(frozen=True)
class Ordering:
    """Makes orders for copies of one planned model."""

    material: object
    publisher: SigningKey
    folder: Path
    plan: object
    batch: object

    @property
    def trusted(self):
        return TrustedKeys((self.publisher.public,))

    def certificate(self, model, name="cert.json", *, result=None, **options):
        path = self.folder / name
        if not path.exists():
            life.certify(result or self.material.result, model, self.publisher, path, **options)
        bundle = Bundle.parse(path.read_bytes())
        return verify_bundle(bundle, all_of(self.trusted, PredicateType(LEAKCERT_TYPE)))

    def order(self, recipient="acme", **changes):
        material = self.material
        identity = material.acme if recipient == "acme" else material.other
        settings = {
            "original": material.model, "certificate": self.certificate(material.model), "policy": life.POLICY,
            "plan": self.plan, "key": copy_key(self.batch, recipient, beacon=bytes(32)),
            "recipient": identity.recipient, "signer": self.publisher, "lineage": "acme/bot", "release_number": 1,
            "not_after": life.in_days(30), "base": BaseModel("base", directory_digest(material.base).root.hex),
            "certificate_digest": Digest.sha256((self.folder / "cert.json").read_bytes()),
            "mark_commitment": self.batch.root,
        }  # fmt: skip
        return CopyOrder(**settings | changes)


@pytest.fixture(scope="session")
def ordering(material, publisher, tmp_path_factory):
    plan = plan_mark(material.model, base=material.base)
    batch = commit(plan, MarkRoot(bytes(range(32))), [RecipientSlot("acme"), RecipientSlot("bolt")])
    return Ordering(material, publisher, tmp_path_factory.mktemp("ordering"), plan, batch)
