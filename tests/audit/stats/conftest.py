import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from stanch.audit.membership import claim_p_value, planned_membership, tie_seed_of
from stanch.audit.params import ATTACK_PACK, TESTED_SCORES, AuditParams, preregister
from stanch.audit.rates import clopper_pearson
from stanch.audit.report import Report, conclude
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import (
    DpCheck,
    Exposure,
    ExposureTier,
    Extraction,
    ModelSummary,
    PlanSummary,
    RowExtraction,
    SecretExtraction,
    Tool,
)
from stanch.terms import CommitmentEvidence, Digest, NeighboringRelation, PrivacyBudget, Verdict

VECTORS = Path(__file__).parents[2] / "vectors" / "audit"


@pytest.fixture(scope="session")
def golden():
    return json.loads((VECTORS / "statistics.json").read_text())


@pytest.fixture(scope="session")
def dataset():
    """The data sets of the golden values, by name and size: scores and coins."""

    def make(name, m):
        i = np.arange(m)
        coins = (7919 * i) % m % 2 == 0
        z = ndtri(((104729 * i) % m + 0.5) / m)
        if name == "d1":
            return z + 1.5 * coins, coins
        if name == "unlearned":
            return -(z + 1.5 * coins), coins
        if name == "d2":
            return z + 2 * coins * (z > 0), coins
        return -i.astype(float), np.ones(m, dtype=np.bool_)

    return make


def make_table(m=512, shift=0.0, seed=1, tier="once", kind="secret"):
    """A table of the three tested scores, correlated, with members shifted up."""
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    common = rng.normal(size=m) + shift * coins
    return ScoreTable(
        ids=tuple(f"c{i}" for i in range(m)),
        kinds=(kind,) * m,
        tiers=(tier,) * m,
        member=coins,
        copies=np.ones(m, dtype=np.int64),
        scores={name: common + 0.3 * rng.normal(size=m) for name in TESTED_SCORES},
    )


def make_exposure(ranked=16, candidates=999):
    """Secrets that stand out nowhere."""
    tier = ExposureTier("once", n_in=ranked, n_out=ranked, median_bits=1.0, max_bits=3.0, space_bits=39.9)
    return Exposure(candidates=candidates, per_tier=(tier,), secrets=(), fisher_in=0.6, fisher_out=0.5)


def make_report(table, *, claim=None, rows=(0, 3000), secrets=(0, 250, 0, 250)):
    """The report of a planned audit with a logged commitment."""
    params = AuditParams()
    seed = tie_seed_of("plan")
    found = planned_membership(
        table.formal_tiers(params.formal_tiers), params.scores, params, tie_seed=seed, formal=True
    )
    k, n = rows
    upper = clopper_pearson(k, n, side="upper").upper
    dp = None
    if claim is not None:
        dp = DpCheck(claim, "pld", claim_p_value(table, params.scores, claim, tie_seed=seed))
    return conclude(
        Report(
            attack_pack=ATTACK_PACK,
            created="2026-01-01T00:00:00Z",
            tool=Tool("stanch", "0.1.0"),
            mode="planned",
            model=ModelSummary(str(MODEL.root), ()),
            plan=PlanSummary("plan", "ab" * 32, CommitmentEvidence("ab" * 32, 3, 5), ()),
            preregistration=preregister(params),
            tie_seed=str(seed),
            scores=found.scores,
            scan=found.scan,
            membership=found.membership,
            epsilon=found.epsilon,
            power=found.power,
            dp=dp,
            exposure=make_exposure(),
            extraction=Extraction(
                decoding=params.decoding,
                n_budget=params.sample_budget,
                p=params.sample_probability,
                rows=RowExtraction(k, n, 0, k, upper, 0, 0, 0, census=True),
                secrets=SecretExtraction(*secrets),
            ),
            reasons=found.reasons,
            limits=("a limit",),
            scores_digest=str(table.digest),
        )
    )


@dataclass(frozen=True)
class Model:
    """What the gate needs of the digest of a directory."""

    files: tuple

    @property
    def root(self):
        return Digest.sha256(repr(self.files).encode())


MODEL = Model((("adapter_model.safetensors", 3, "00" * 32), ("tokenizer.json", 4, "11" * 32)))


@pytest.fixture(scope="session")
def tables():
    return make_table


@pytest.fixture(scope="session")
def reports():
    return make_report


@pytest.fixture(scope="session")
def model():
    return MODEL


@pytest.fixture(scope="session")
def quiet_table():
    return make_table()


@pytest.fixture(scope="session")
def quiet_report(quiet_table):
    report = make_report(quiet_table, claim=PrivacyBudget(8.0, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE))
    assert report.verdict is Verdict.NO_LEAK_DETECTED
    return report
