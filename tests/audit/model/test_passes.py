"""Feature passes in shards: kept, taken up again, done by Ray; what is damaged or of another model is not taken."""

import dataclasses
import os
from datetime import UTC, datetime

import numpy as np
import pytest

from stanch.audit.feature_file import PassOf, cut_shards, decode_features, encode_features
from stanch.audit.features import AdapterOff
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams, Decoding, preregister
from stanch.audit.passes import LocalPass, Passing, run_pass
from stanch.audit.run import AuditInput, audit
from stanch.audit.sharding_torch import RayPass, ShardWorker
from stanch.data import tokenise
from stanch.errors import InvalidInput
from stanch.terms import SILENT, CommitmentEvidence

PLAIN = Decoding()


class Interrupted(Exception):
    """Stands for what ends a process."""


class Counting(LocalPass):
    """The local engine; counts the records that it does, and is interrupted after some."""

    def __init__(self, most=10**9):
        self.done, self._most = 0, most

    def run(self, *given):
        for found in super().run(*given):
            if self.done == self._most:
                raise Interrupted
            self.done += 1
            yield found


@pytest.fixture(scope="module")
def scorer(tiny, adapter):
    return HfScorer(adapter, base=tiny.base)


@pytest.fixture(scope="module")
def records(tiny):
    return [tokenise(record, tiny.tokenizer) for record in tiny.members[:20]]


def put(scorer, records, passing, modes=("on", "off")):
    return run_pass("s", scorer, records, modes, PLAIN, passing=passing, progress=SILENT)


def equal(one, other):
    return all(
        np.array_equal(getattr(one[name], field), getattr(other[name], field))
        for name in one
        for field in ("lp", "mu", "sigma", "hit", "lq")
    )


def test_an_interrupted_pass_is_taken_up_from_its_finished_shards(scorer, records, tmp_path):
    keep = tmp_path / "features"
    whole = put(scorer, records, Passing(shard_records=6))
    with pytest.raises(Interrupted):
        put(scorer, records, Passing(Counting(most=13), keep, shard_records=6))
    assert len(list(keep.iterdir())) == 4
    assert {path.stat().st_mode & 0o777 for path in keep.iterdir()} == {0o600}
    assert keep.stat().st_mode & 0o777 == 0o700
    rest = Counting()
    again = put(scorer, records, Passing(rest, keep, shard_records=6))
    assert rest.done == len(records) - 12
    assert all(equal(one, other) for one, other in zip(whole, again, strict=True))
    idle = Counting()
    put(scorer, records, Passing(idle, keep, shard_records=6))
    assert idle.done == 0


def test_features_of_another_decoding_or_model_are_not_taken(scorer, records, tiny, tmp_path):
    put(scorer, records, Passing(keep=tmp_path))
    for other, decoding in ((scorer, Decoding(top_k=3)), (HfScorer(tiny.base), PLAIN)):
        engine = Counting()
        run_pass("s", other, records, ("on",), decoding, passing=Passing(engine, tmp_path), progress=SILENT)
        assert engine.done == len(records)


def test_a_model_without_digest_keeps_nothing(tiny, records, tmp_path):
    loaded = HfScorer.from_loaded(HfScorer(tiny.base)._model, tiny.tokenizer)
    put(loaded, records[:3], Passing(keep=tmp_path / "f"), modes=("on",))
    assert not (tmp_path / "f").exists()


def test_every_changed_byte_of_a_feature_file_is_noticed(scorer, records, tmp_path):
    few = records[:2]
    kind = PassOf(scorer.identity, "on", PLAIN)
    found = list(scorer.features(few, decoding=PLAIN))
    data = encode_features(kind, few, found)
    read = decode_features(data, kind, few, what="f")
    assert equal({f.record_id: f for f in found}, {f.record_id: f for f in read})
    for place in range(0, len(data), 7):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(InvalidInput):
            decode_features(bytes(broken), kind, few, what="f")
    for broken in (b"", data[:7], data[:-1], data + b"\0"):
        with pytest.raises(InvalidInput):
            decode_features(broken, kind, few, what="f")
    with pytest.raises(InvalidInput, match="other records"):
        decode_features(data, kind, few[::-1], what="f")
    put(scorer, few, Passing(keep=tmp_path), modes=("on",))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    engine = Counting()
    put(scorer, few, Passing(engine, tmp_path), modes=("on",))
    assert engine.done == 2
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read"):
        put(scorer, few, Passing(keep=tmp_path), modes=("on",))


def test_shards_do_not_depend_on_the_order(records):
    assert cut_shards(records, 6) == cut_shards(records[::-1], 6)
    assert [len(shard) for shard in cut_shards(records, 6)] == [6, 6, 6, 2]


@pytest.fixture
def ray_home():
    ray = pytest.importorskip("ray", reason="ray is not installed")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    yield
    ray.shutdown()


@pytest.mark.nightly  # a cluster takes half a minute; tests/data/test_scale_ray.py has one in every run
@pytest.mark.filterwarnings("ignore")  # Ray's own, many and changing
@pytest.mark.usefixtures("ray_home")
def test_two_workers_of_ray_give_the_verdict_and_bounds_of_one_process(tiny, scorer, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    params = AuditParams(exposure_candidates=19, exposure_secrets=2, reconstruction_values=0)
    plan = dataclasses.replace(tiny.plan, preregistration=preregister(params).to_json())
    evidence = CommitmentEvidence(plan.commitment, 3, 9)
    material = AuditInput(plan=plan, members=tiny.members, commitment=evidence)

    def examine(passing):
        return audit(
            scorer, base=AdapterOff(), material=material, params=params, passing=passing,
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        )  # fmt: skip

    alone, shared = examine(Passing()), examine(Passing(RayPass(workers=2), shard_records=50))
    assert (shared.report.verdict, shared.report.reasons) == (alone.report.verdict, alone.report.reasons)
    for name in ("epsilon", "exposure", "extraction"):
        mine, theirs = getattr(alone.report, name), getattr(shared.report, name)
        if name == "extraction":
            mine, theirs = (mine.rows, mine.secrets), (theirs.rows, theirs.secrets)
        assert mine == theirs
    for name, values in alone.table.scores.items():
        np.testing.assert_allclose(shared.table.scores[name], values, atol=1e-3 if name == "ez/1" else 1e-4)


def test_a_worker_with_another_model_refuses(tiny, scorer, records):
    other = dataclasses.replace(scorer.places, base=tiny.tuned)
    worker = ShardWorker(other, scorer.identity, ("on",), PLAIN)
    bodies, why = worker._do(b"")
    assert bodies == []
    assert why[:2] == ["InvalidInput", "a worker has another model, or other versions of its libraries"]
    loaded = HfScorer.from_loaded(scorer._model, tiny.tokenizer)
    with pytest.raises(InvalidInput, match="cannot be loaded by other processes"):
        put(loaded, records, Passing(RayPass()))
