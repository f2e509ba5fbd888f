import json
import math
import stat
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanch.data import Canary, CanaryPlan, ChatTurn, coins, seed_commitment
from stanch.errors import InvalidInput, Tampered

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "data" / "canaries.json").read_text())


def make_plan(seed=bytes(range(32)), count=3, **changes):
    canaries = tuple(
        Canary(
            id=f"c{index:05d}",
            kind="secret",
            messages=(ChatTurn("user", f"question {index}"), ChatTurn("assistant", f"answer #10002000300{index}")),
            secret=f"10002000300{index}",
            copies=1,
            tier="x1",
            member=member,
        )
        for index, member in enumerate(coins(seed, count))
    )
    values = {
        "canaries": canaries,
        "seed": seed,
        "symbols": "0123456789",
        "dataset_root": "00" * 32,
        "tokenizer_digest": "sha256:" + "11" * 32,
        "base_digest": "",
        "preregistration": {"alpha": 0.05, "scorers": ["ratio/1"]},
    }
    return CanaryPlan(**(values | changes))


@pytest.mark.parametrize("vector", VECTORS["coins"])
def test_golden_coins(vector):
    drawn = coins(bytes.fromhex(vector["seed"]), len(vector["coins"]))
    assert "".join(str(int(coin)) for coin in drawn) == vector["coins"]


@pytest.mark.parametrize("vector", VECTORS["seed_commitments"])
def test_golden_seed_commitment(vector):
    assert seed_commitment(bytes.fromhex(vector["seed"])) == vector["commitment"]


def test_golden_commitment():
    plan = make_plan()
    assert plan.commitment_document() == VECTORS["commitment"]["document"]
    assert plan.commitment == VECTORS["commitment"]["sha256"]
    assert plan.plan_id == "plan-" + VECTORS["commitment"]["sha256"][:32]


def test_coins_do_not_depend_on_how_many_are_drawn():
    seed = sha256(b"prefix").digest()
    assert coins(seed, 1000)[:10] == coins(seed, 10)


def test_coins_are_fair_and_independent():
    # Monobit and runs tests of NIST SP 800-22 (2.1, 2.3) on 10^6 coins of a fixed seed, alpha = 1e-4 each.
    bits = np.array(coins(sha256(b"stanch coins").digest(), 1_000_000))
    count = bits.size
    share = bits.mean()
    assert math.erfc(abs(2 * bits.sum() - count) / math.sqrt(2 * count)) > 1e-4
    runs = 1 + int((bits[1:] != bits[:-1]).sum())
    spread = abs(runs - 2 * count * share * (1 - share)) / (2 * math.sqrt(2 * count) * share * (1 - share))
    assert math.erfc(spread) > 1e-4


def test_the_number_of_members_is_binomial_never_an_exact_half():
    # 2,000 seeds, 16 coins each: chi-square against Binomial(16, 1/2), alpha = 1e-4. Exact halves would give 8 only.
    members = [sum(coins(sha256(index.to_bytes(4, "big")).digest(), 16)) for index in range(2000)]
    observed = np.bincount(members, minlength=17)
    expected = stats.binom.pmf(np.arange(17), 16, 0.5) * 2000
    pooled = [slice(0, 5), *(slice(k, k + 1) for k in range(5, 12)), slice(12, 17)]
    p_value = stats.chisquare([observed[s].sum() for s in pooled], [expected[s].sum() for s in pooled]).pvalue
    assert p_value > 1e-4


def test_the_commitment_hides_and_binds():
    plan = make_plan()
    written = json.dumps(plan.commitment_document())
    assert plan.seed.hex() not in written
    assert all(canary.secret not in written and canary.messages[0].content not in written for canary in plan.canaries)
    # Equal texts under another seed have another root: a guess of a text cannot be tested.
    assert make_plan(seed=bytes(32)).commitment_document()["texts"] != plan.commitment_document()["texts"]
    changed = replace(plan.canaries[1], secret="100020003009")
    for other in (
        make_plan(canaries=(plan.canaries[0], changed, plan.canaries[2])),
        make_plan(preregistration={"alpha": 0.5, "scorers": ["ratio/1"]}),
        make_plan(dataset_root="01" * 32),
        make_plan(tokenizer_digest=""),
        make_plan(base_digest="x"),
        make_plan(symbols="0123456789a"),
    ):
        assert other.commitment != plan.commitment


def test_coins_that_are_not_those_of_the_seed_are_refused():
    plan = make_plan()
    flipped = replace(plan.canaries[0], member=not plan.canaries[0].member)
    with pytest.raises(Tampered, match="coins are not those of its seed"):
        make_plan(canaries=(flipped, *plan.canaries[1:]))


@pytest.mark.parametrize("changes", [{"seed": b"short"}, {"canaries": ()}])
def test_a_plan_needs_a_seed_and_canaries(changes):
    with pytest.raises(InvalidInput, match="expected a seed of 32 bytes and at least one canary"):
        make_plan(**changes)


def test_file_round_trip_with_mode_0600(tmp_path):
    plan = make_plan()
    path = tmp_path / "plan.json"
    plan.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CanaryPlan.load(path) == plan
    committed = replace(plan, committed=True)
    committed.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CanaryPlan.load(path).committed


def test_another_plan_is_never_overwritten(tmp_path):
    path = tmp_path / "plan.json"
    make_plan().save(path)
    with pytest.raises(InvalidInput, match="holds another canary plan"):
        make_plan(seed=bytes(32)).save(path)
    assert CanaryPlan.load(path) == make_plan()
    other = tmp_path / "other.txt"
    other.write_bytes(b"not a plan")
    other.chmod(0o600)
    with pytest.raises(InvalidInput):
        make_plan().save(other)
    assert other.read_bytes() == b"not a plan"


def test_a_plan_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    make_plan().save(path)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="others may read it"):
        CanaryPlan.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("answer #100020003001", "answer #100020003009"),
        ('"secret":"100020003001"', '"secret":"100020003002"'),
        ('"copies":1', '"copies":2'),
        ('"alpha":0.05', '"alpha":0.5'),
        ('"dataset_root":"00', '"dataset_root":"01'),
        ('"member":true', '"member":false'),
        ('"seed":"0001', '"seed":"0002'),
        ('"plan_id":"plan-', '"plan_id":"plan-0'),
        ('"tokenizer":"sha256:11', '"tokenizer":"sha256:12'),
    ],
)
def test_an_edited_plan_is_refused(old, new):
    data = make_plan().to_json().decode()
    assert old in data
    with pytest.raises(Tampered):
        CanaryPlan.from_json(data.replace(old, new, 1).encode())


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["what"])
def test_what_is_no_plan_is_refused(vector, errors_text):
    document = json.loads(make_plan().to_json())
    for name, value in vector["set"].items():
        document[name] = value
    for name in vector.get("remove", []):
        del document[name]
    with pytest.raises(InvalidInput) as caught:
        CanaryPlan.from_json(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    seen = errors_text(caught.value)
    assert "100020003001" not in seen
    assert bytes(range(32)).hex() not in seen


def test_representations_hold_no_text_no_secret_no_seed():
    plan = make_plan()
    for thing in (plan, plan.canaries, plan.canaries[0].messages):
        for hidden in (plan.seed.hex(), repr(plan.seed), "answer", "question", plan.canaries[0].secret, "member"):
            assert hidden not in repr(thing)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_order(data):
    with pytest.raises(InvalidInput):
        CanaryPlan.from_json(data)
