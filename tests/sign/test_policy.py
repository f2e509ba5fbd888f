"""Scopes, validity, thresholds, ages, and the file of trusted keys."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation
from stanch.sign import (
    Scope,
    Statement,
    Subject,
    TrustedKeys,
    read_trusted_keys,
    sign_statement,
    verify_bundle,
)
from stanch.terms import Digest

ANNA, BEN, CARL = (SigningKey.generate("p256"), SigningKey.from_seed(bytes(32)), SigningKey.generate("p256"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BACKWARDS = "not_before = 2026-01-02T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z"
STATED = {"lineage": "acme/bot", "runDetails": {"metadata": {"finishedOn": "2026-06-01T00:00:00Z"}}}


def statement(predicate=None):
    return Statement(
        (Subject("weights", Digest.sha256(b"x")),), "urn:test:v1", STATED if predicate is None else predicate
    )


def signed(*keys):
    return [sign_statement(statement(), key) for key in keys]


def trust(scope, **options):
    return TrustedKeys((ANNA.public,), scopes={ANNA.public: scope}, clock=lambda: NOW, **options)


@pytest.mark.parametrize(
    "scope",
    [
        {"predicate_types": ("urn:other", "urn:test:v1")},
        {"lineages": ("other/*", "acme/*")},
        {"not_before": NOW, "not_after": NOW},
    ],
)
def test_a_key_signs_what_its_scope_allows(scope):
    assert verify_bundle(signed(ANNA)[0], trust(Scope(name="Anna", **scope))).signer_key_ids == (ANNA.key_id,)


@pytest.mark.parametrize(
    ("scope", "why"),
    [
        ({"predicate_types": ("urn:other",)}, "type urn:test:v1"),
        ({"lineages": ("acme/other", "ACME/*")}, "lineage acme/bot"),
        ({"not_before": NOW + DAY}, "only from 2026-06-02"),
        ({"not_after": NOW - DAY}, "until 2026-05-31"),
    ],
)
def test_a_key_outside_of_its_scope_is_refused_by_name(scope, why):
    with pytest.raises(PolicyViolation, match="may not sign") as caught:
        verify_bundle(signed(ANNA)[0], trust(Scope(name="Anna", **scope)))
    assert why in caught.value.why
    assert caught.value.why.startswith(f"Anna ({ANNA.key_id})")


def test_a_lineage_scope_needs_a_lineage():
    bundle = sign_statement(statement({}), ANNA)
    with pytest.raises(PolicyViolation):
        verify_bundle(bundle, trust(Scope(name="Anna", lineages=("*",))))


def test_a_threshold_counts_different_keys_that_may_sign():
    three = (ANNA.public, BEN.public, CARL.public)
    first, *beside = signed(ANNA, BEN)
    assert len(verify_bundle(first, TrustedKeys(three, 2), beside=beside).signer_key_ids) == 2
    for more in ([], signed(ANNA), signed(ANNA, ANNA)):
        with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
            verify_bundle(first, TrustedKeys(three, 2), beside=more)
    ended = {BEN.public: Scope(name="Ben", not_after=NOW)}
    with pytest.raises(PolicyViolation, match="may not sign"):
        verify_bundle(first, TrustedKeys(three, 2, ended, clock=lambda: NOW + DAY), beside=beside)


def test_a_threshold_that_cannot_be_reached_is_refused():
    for keys, threshold in (((ANNA.public,), 2), ((ANNA.public, ANNA.public), 2), ((ANNA.public,), 0)):
        with pytest.raises(InvalidInput, match="threshold"):
            TrustedKeys(keys, threshold)


def pem(key):
    return key.public.to_pem().decode()


def written(path, *keys, head=""):
    path.write_text(head + "".join(f"[[keys]]\n{lines}\n" for lines in keys))
    return path


def entry(key, name="a", more=""):
    return f'name = "{name}"\npem = """\n{pem(key)}"""\n{more}'


def test_the_file_of_trusted_keys_is_read(tmp_path):
    more = 'predicate_types = ["urn:test:v1"]\nlineages = ["acme/*"]\nnot_before = 2026-01-01T00:00:00Z\n'
    path = written(tmp_path / "t.toml", entry(ANNA, "Anna", more), entry(BEN, "Ben"), head="threshold = 2\n")
    trusted = read_trusted_keys(path)
    assert (trusted.keys, trusted.threshold) == ((ANNA.public, BEN.public), 2)
    assert trusted.scopes[ANNA.public] == Scope(
        name="Anna", predicate_types=("urn:test:v1",), lineages=("acme/*",), not_before=datetime(2026, 1, 1, tzinfo=UTC)
    )
    first, *beside = signed(ANNA, BEN)
    assert len(verify_bundle(first, trusted, beside=beside).signer_key_ids) == 2
    (tmp_path / "k.pem").write_text(pem(CARL))
    assert read_trusted_keys(tmp_path / "k.pem") == TrustedKeys((CARL.public,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys = []",
        "threshold = 1",
        "not toml",
        "\udcff",
        "-----BEGIN PUBLIC KEY-----\n",
        f"[[keys]]\n{entry(ANNA)}\n[[keys]]\n{entry(ANNA, 'b')}",
        f"threshold = 2\n[[keys]]\n{entry(ANNA)}",
        f"threshold = 0\n[[keys]]\n{entry(ANNA)}",
        f"treshold = 1\n[[keys]]\n{entry(ANNA)}",
        f"[[keys]]\n{entry(ANNA, more='unknown = 1')}",
        f"[[keys]]\n{entry(ANNA, more='lineages = []')}",
        f"[[keys]]\n{entry(ANNA, more='not_after = 2026-01-01T00:00:00')}",
        f"[[keys]]\n{entry(ANNA, more=BACKWARDS)}",
        '[[keys]]\nname = "a"\npem = "x"',
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(tmp_path, text):
    (tmp_path / "t.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInput):
        read_trusted_keys(tmp_path / "t.toml")


@pytest.mark.parametrize(
    "validity",
    [
        {"not_before": NOW}, {"not_after": NOW}, {"not_before": NOW, "not_after": NOW},
        {"not_before": NOW, "not_after": NOW + DAY},
    ],
)  # fmt: skip
def test_a_key_may_have_either_end_of_its_validity(tmp_path, validity):
    more = "".join(f"{name} = {moment.isoformat()}\n" for name, moment in validity.items())
    trusted = read_trusted_keys(written(tmp_path / "t.toml", entry(ANNA, "Anna", more)))
    assert trusted.scopes[ANNA.public] == Scope(name="Anna", **validity)


def test_a_missing_or_endless_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_trusted_keys(tmp_path / "missing")
    one = f"[[keys]]\n{entry(ANNA)}\n".encode()
    (tmp_path / "big").write_bytes(one.ljust(1 << 20, b"#"))
    assert read_trusted_keys(tmp_path / "big").keys == (ANNA.public,)
    (tmp_path / "big").write_bytes(one.ljust((1 << 20) + 1, b"#"))
    with pytest.raises(InvalidInput, match="more than"):
        read_trusted_keys(tmp_path / "big")


def test_names_words_and_keys_have_their_bounds(tmp_path):
    def read(*keys):
        return read_trusted_keys(written(tmp_path / "t.toml", *keys))

    assert read(entry(ANNA, "n", 'lineages = ["*"]')).scopes[ANNA.public].lineages == ("*",)
    longest = "n" * 200
    assert read(entry(ANNA, longest, f'lineages = ["{longest}"]')).scopes[ANNA.public].lineages == (longest,)
    for name, more in (("", ""), (longest + "n", ""), ("a", f'lineages = ["{longest}n"]'), ("a", 'lineages = [""]')):
        with pytest.raises(InvalidInput):
            read(entry(ANNA, name, more))
    keys = [entry(SigningKey.from_seed(bytes([n]) * 32), str(n)) for n in range(65)]
    assert len(read(*keys[:64]).keys) == 64
    with pytest.raises(InvalidInput):
        read(*keys)


def test_policies_that_trust_alike_are_equal_whatever_their_clock():
    one, other = (TrustedKeys((ANNA.public,), clock=clock) for clock in (lambda: NOW, lambda: NOW + DAY))
    assert one == other == TrustedKeys((ANNA.public,))
    assert len({one, other}) == 1
    assert one != TrustedKeys((ANNA.public,), scopes={ANNA.public: Scope(name="Anna")})


def test_what_names_no_lineage_is_signed_by_the_keys_of_the_bundles_lineage():
    scoped = TrustedKeys((ANNA.public,), scopes={ANNA.public: Scope(name="Anna", lineages=("acme/bot",))})
    assert scoped.for_lineage("acme/bot").scopes == {ANNA.public: Scope(name="Anna")}
    assert scoped.for_lineage("acme/other").scopes == scoped.scopes


def test_the_time_of_the_check_is_now():
    bundle, ends = signed(ANNA)[0], datetime.now(UTC) + DAY
    for scope in ({"not_after": ends - 2 * DAY}, {"not_before": ends}):
        with pytest.raises(PolicyViolation, match="may not sign"):
            verify_bundle(bundle, TrustedKeys((ANNA.public,), scopes={ANNA.public: Scope(name="Anna", **scope)}))
    scopes = {ANNA.public: Scope(name="Anna", not_before=ends - 2 * DAY, not_after=ends)}
    assert verify_bundle(bundle, TrustedKeys((ANNA.public,), scopes=scopes)).signer_key_ids == (ANNA.key_id,)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=80) | st.text(alphabet='[]keys="\n name1', max_size=60).map(str.encode))
def test_any_bytes_are_a_file_or_bad_input(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)
    with pytest.raises(InvalidInput):
        read_trusted_keys(path)
