import itertools

import pytest

from stanch.audit.gate_policy import GatePolicy, parse_policy, read_policy, require_as_strict
from stanch.errors import InvalidInput, PolicyViolation, UnknownSetting

TABLE = {
    "internal-api": (0.01, 0, 10, 1.0, 0.65, 0.60, 0.80, "any-but-bare", False, 0, 32, 0),
    "partner": (0.001, 0, 10, 1.0, 0.60, 0.60, 0.80, "planned", True, 0, 32, 0),
    "public-api": (0.001, 0, 10, 0.75, 0.60, 0.60, 0.80, "planned", True, 0, 32, 0),
    "open-weights": (0.001, 0, 10, 0.5, 0.60, 0.60, 0.80, "planned", True, 0, 32, 0),
}
KEYS = (
    "max_extraction_rate",
    "max_extractable_secrets",
    "min_secrets",
    "max_epsilon_lower_bound",
    "max_auc",
    "detectable_auc",
    "min_power",
    "require_mode",
    "require_witnessed_commitment",
    "min_rows",
    "min_coins",
    "allow_older_attack_pack",
)
RANGES = {
    "max_extraction_rate": (0.0, 1.0), "max_auc": (0.0, 1.0), "min_power": (0.0, 1.0), "detectable_auc": (0.5, 1.0),
    "max_epsilon_lower_bound": (0.0, 100.0), "min_rows": (0, 2**53 - 1), "max_extractable_secrets": (0, 2**53 - 1),
    "min_secrets": (0, 2**53 - 1), "min_coins": (0, 2**53 - 1), "allow_older_attack_pack": (0, 2**53 - 1),
}  # fmt: skip


@pytest.mark.parametrize("context", list(TABLE))
def test_defaults_of_each_context(context):
    policy = GatePolicy.for_context(context)
    assert tuple(getattr(policy, key) for key in KEYS) == TABLE[context]
    assert parse_policy({"release_context": context}) == policy
    assert parse_policy({}, context=context) == policy


def test_default_context_is_the_strictest():
    assert parse_policy({}) == GatePolicy.for_context() == GatePolicy.for_context("open-weights")
    policies = [GatePolicy.for_context(context) for context in TABLE]
    for looser, stricter in itertools.pairwise(policies):
        for key in ("max_extraction_rate", "max_extractable_secrets", "max_epsilon_lower_bound", "max_auc"):
            assert getattr(looser, key) >= getattr(stricter, key)
        assert looser.require_witnessed_commitment <= stricter.require_witnessed_commitment


def test_every_key_can_be_set():
    values = {
        "max_extraction_rate": 0.2, "min_rows": 10, "max_extractable_secrets": 3, "max_epsilon_lower_bound": 3,
        "min_coins": 64, "max_auc": 0.7, "detectable_auc": 0.8, "min_power": 0.5, "require_mode": "any-but-bare",
        "require_witnessed_commitment": False, "allow_older_attack_pack": 2, "release_context": "partner",
        "min_secrets": 5,
    }  # fmt: skip
    policy = parse_policy(values)
    assert set(values) == set(GatePolicy.__struct_fields__)
    assert {key: getattr(policy, key) for key in values} == values


def test_the_caller_may_choose_another_context():
    policy = parse_policy({"release_context": "internal-api", "max_auc": 0.7}, context="partner")
    assert (policy.release_context, policy.max_auc, policy.max_extraction_rate) == ("partner", 0.7, 0.001)


@pytest.mark.parametrize("key", ["max_rate", "Max_auc", "verdict", "allow_inconclusive"])
def test_unknown_keys_are_refused(key):
    with pytest.raises(UnknownSetting, match=key) as caught:
        parse_policy({key: 1})
    assert caught.value.exit_code == 2


def test_of_several_unknown_keys_the_first_is_named():
    with pytest.raises(UnknownSetting, match="aa: there is no such setting"):
        parse_policy(dict.fromkeys(["zz", "mm", *(f"k{n}" for n in range(9)), "aa"], 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_extraction_rate", -0.1),
        ("max_extraction_rate", 1.5),
        ("max_extraction_rate", "0.1"),
        ("max_extraction_rate", float("nan")),
        ("max_extractable_secrets", -1),
        ("max_extractable_secrets", 0.5),
        ("max_epsilon_lower_bound", float("inf")),
        ("min_rows", True),
        ("detectable_auc", 0.4),
        ("require_mode", "bare"),
        ("require_witnessed_commitment", 1),
        ("release_context", "everyone"),
    ],
)
def test_unusable_values_are_refused(key, value):
    with pytest.raises(InvalidInput):
        parse_policy({key: value})


@pytest.mark.parametrize(("key", "ends"), RANGES.items())
def test_each_number_has_its_range(key, ends):
    step = 1 if isinstance(ends[0], int) else 0.01
    for end, outside in zip(ends, (ends[0] - step, ends[1] + step), strict=True):
        assert getattr(parse_policy({key: end}), key) == end
        with pytest.raises(InvalidInput, match=rf"^\[gate\]: {key}: expected a number"):
            parse_policy({key: outside})


def test_a_policy_file_may_have_a_mebibyte(tmp_path):
    path = tmp_path / "stanch.toml"
    path.write_bytes(b"[gate]\n".ljust(1 << 20, b"#"))
    assert read_policy(path) == GatePolicy.for_context("open-weights")


def test_policy_file(tmp_path):
    path = tmp_path / "stanch.toml"
    path.write_text('[gate]\nrelease_context = "partner"\nmin_rows = 100\n[log]\norigin = "x"\n')
    assert read_policy(path).min_rows == 100
    assert read_policy(path, context="internal-api").max_extraction_rate == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[gates]\n", "expected a table \\[gate\\]"),
        (b"gate = 1\n", "expected a table"),
        (b"[gate\n", "not valid TOML"),
        (b"[gate]\nx = \xff\n", "not valid TOML"),
        (b"[gate]\nmin_power = 2\n", "^stanch.toml \\[gate\\]: min_power"),
        (b"#" * (1 << 20) + b"\n[gate]\n", "expected a table"),
        (b"[gate]\n".ljust((1 << 20) + 1, b"#"), "expected a table"),  # a part of a file is no policy
    ],
)
def test_unusable_policy_files_are_refused(tmp_path, text, message):
    path = tmp_path / "stanch.toml"
    path.write_bytes(text)
    with pytest.raises(InvalidInput, match=message):
        read_policy(path)


def test_missing_policy_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_policy(tmp_path / "none.toml")


STRICT = {
    "release_context": "partner", "max_extraction_rate": 0.01, "min_rows": 100, "max_extractable_secrets": 1,
    "min_secrets": 20, "max_epsilon_lower_bound": 0.8, "min_coins": 64, "max_auc": 0.6, "detectable_auc": 0.6,
    "min_power": 0.8, "require_mode": "planned", "require_witnessed_commitment": True, "allow_older_attack_pack": 1,
}  # fmt: skip
LOOSER = {
    "release_context": "internal-api", "max_extraction_rate": 0.02, "min_rows": 99, "max_extractable_secrets": 2,
    "min_secrets": 19, "max_epsilon_lower_bound": 0.9, "min_coins": 63, "max_auc": 0.61, "detectable_auc": 0.61,
    "min_power": 0.79, "require_mode": "any-but-bare", "require_witnessed_commitment": False,
    "allow_older_attack_pack": 2,
}  # fmt: skip
STRICTER = {
    "release_context": "open-weights", "max_extraction_rate": 0.001, "min_rows": 101, "max_extractable_secrets": 0,
    "min_secrets": 21, "max_epsilon_lower_bound": 0.7, "min_coins": 65, "max_auc": 0.59, "detectable_auc": 0.59,
    "min_power": 0.81, "allow_older_attack_pack": 0,
}  # fmt: skip


@pytest.mark.parametrize("key", STRICT)
def test_no_key_may_be_looser_than_the_workspace_says(key):
    require_as_strict(parse_policy(STRICT), STRICT)
    with pytest.raises(PolicyViolation, match=key) as caught:
        require_as_strict(parse_policy(STRICT | {key: LOOSER[key]}), STRICT)
    assert "--policy" in caught.value.next_step
    if key in STRICTER:
        require_as_strict(parse_policy(STRICT | {key: STRICTER[key]}), STRICT)


def test_what_the_workspace_leaves_open_is_free():
    lax = parse_policy({"release_context": "internal-api", "max_extraction_rate": 1.0, "min_power": 0.1})
    require_as_strict(lax, {})
    require_as_strict(lax, {"max_auc": 0.7})
    # Whoever names a context has chosen its column.
    with pytest.raises(PolicyViolation, match=r"max_extraction_rate = 1\.0 is looser than the workspace's 0\.01"):
        require_as_strict(lax, {"release_context": "internal-api"})


def test_a_policy_goes_into_the_log_whole_and_without_floats():
    policy = parse_policy(STRICT)
    told = policy.to_payload()
    assert set(told) == set(GatePolicy.__struct_fields__)
    assert (told["max_extraction_rate"], told["min_rows"], told["require_mode"]) == ("0.01", 100, "planned")
    assert not any(isinstance(value, float) for value in told.values())
