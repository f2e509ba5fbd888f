"""Time-stamps (RFC 3161) by a real authority, which openssl plays on this machine."""

import contextlib
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from authority import NOW, Authority, served
from stanch.cli.frame import run
from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.crypto.timestamp import MAX_TIMESTAMP, TimestampQuery, TimestampRoots
from stanch.errors import ExternalError, InvalidInput, MissingExtraError, NoTrustedSignature, PolicyViolation
from stanch.sign import (
    Bundle,
    Scope,
    Statement,
    Subject,
    TimestampAuthority,
    Timestamped,
    TrustedKeys,
    sign_statement,
    stamp_bundle,
    verify_bundle,
)
from stanch.terms import Digest

KEY, SECOND, STRANGER = (SigningKey.generate(kind) for kind in ("p256", "mldsa65", "ed25519"))
STATEMENT = Statement((Subject("weights", Digest.sha256(b"weights")),), "urn:test:v1", {"ok": True})


@pytest.fixture(scope="module")
def stamped(authority):
    with served(authority.answer) as url:
        return stamp_bundle(sign_statement(STATEMENT, KEY, SECOND), TimestampAuthority(url, authority.roots))


def test_an_authority_confirms_when_each_signature_existed(authority, stamped):
    assert len(stamped.timestamps) == 2
    again = Bundle.parse(stamped.to_bytes())
    assert again == stamped
    both = TrustedKeys((KEY.public, SECOND.public), threshold=2)
    assert len(verify_bundle(again, Timestamped(both, authority.roots)).signer_key_ids) == 2
    moment = authority.roots.verify(stamped.timestamps[0], stamped.signature)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=5)
    verify_bundle(again, both)  # who asks for no time-stamp is not troubled by one


def test_what_was_signed_in_time_outlives_the_keys_validity(authority, stamped):
    def trusted(**scope):
        clock = {"clock": lambda: NOW + timedelta(days=400)}
        return TrustedKeys((KEY.public,), 1, {KEY.public: Scope(name="publisher", **scope)}, **clock)

    outlived = trusted(not_after=NOW + timedelta(days=1))
    with pytest.raises(PolicyViolation, match="may not sign"):
        verify_bundle(stamped, outlived)
    verify_bundle(stamped, Timestamped(outlived, authority.roots))
    for scope in ({"not_after": NOW - timedelta(days=1)}, {"not_before": NOW + timedelta(days=1)}):
        with pytest.raises(PolicyViolation, match="may not sign"):
            verify_bundle(stamped, Timestamped(trusted(**scope), authority.roots))


def test_no_time_stamp_or_one_of_something_else_is_refused(authority, stamped):
    policy = Timestamped(TrustedKeys((KEY.public,)), authority.roots)
    plain = sign_statement(STATEMENT, KEY)
    for timestamps in ((), stamped.timestamps, (b"",), (b"\x30\x00",)):
        with pytest.raises(PolicyViolation, match="no signature has a time-stamp"):
            verify_bundle(replace(plain, timestamps=timestamps), policy)
    # A stranger's time-stamped signature in the same envelope lends its time to nobody.
    first = authority.stamp(sign_statement(STATEMENT, STRANGER))
    mixed = replace(first, further=(plain.signature,))
    assert verify_bundle(mixed, policy.trusted).signer_key_ids == (KEY.key_id,)
    with pytest.raises(NoTrustedSignature):
        verify_bundle(mixed, policy)
    both = Timestamped(TrustedKeys((KEY.public, SECOND.public), threshold=2), authority.roots)
    beside = replace(stamped, further=(first.signature,), timestamps=stamped.timestamps[:1] + first.timestamps)
    for bundle in (replace(stamped, timestamps=stamped.timestamps[:1]), beside):
        with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
            verify_bundle(bundle, both)


def test_an_authority_that_may_not_stamp_is_refused(authority, tmp_path):
    message = b"message"
    query = TimestampQuery.about(message).data
    expired = Authority(tmp_path / "b", days=(-300, -200))
    with pytest.raises(NoTrustedSignature):
        expired.roots.verify(expired.answer(query), message)

    # openssl stamps with no certificate of another purpose: put one of the same key and number in place of the right.
    def der(pem):
        return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)

    answer, right = authority.answer(query), der((authority.folder / "tsa.pem").read_bytes())
    authority.roots.verify(answer, message)
    wrong = b""
    while len(wrong) != len(right):  # the length of a signature by ECDSA varies
        wrong = der(authority.leaf(ExtendedKeyUsageOID.CLIENT_AUTH))
    assert answer.count(right) == 1
    with pytest.raises(NoTrustedSignature):
        authority.roots.verify(answer.replace(right, wrong), message)


def test_another_root_and_a_changed_answer_are_refused(authority, stamped, tmp_path):
    other = Authority(tmp_path / "b")
    with pytest.raises(NoTrustedSignature):
        other.roots.verify(stamped.timestamps[0], stamped.signature)
    with pytest.raises(NoTrustedSignature):
        authority.roots.verify(stamped.timestamps[0], stamped.signature + b"x")
    with pytest.raises(NoTrustedSignature, match="at most 65536 bytes, found 65537"):
        authority.roots.verify(bytes(MAX_TIMESTAMP + 1), stamped.signature)
    with pytest.raises(NoTrustedSignature, match="no trusted time-stamp"):
        authority.roots.verify(bytes(MAX_TIMESTAMP), stamped.signature)
    query = TimestampQuery.about(stamped.signature)
    with pytest.raises(NoTrustedSignature):  # the answer to an earlier question
        authority.roots.verify(stamped.timestamps[0], stamped.signature, query=query)


def test_changed_bytes_of_an_answer_never_tell_another_time(authority, stamped):
    stamp = stamped.timestamps[0]
    moment = authority.roots.verify(stamp, stamped.signature)
    for position in range(len(stamp)):
        changed = stamp[:position] + bytes([stamp[position] ^ 1]) + stamp[position + 1 :]
        with contextlib.suppress(NoTrustedSignature):
            assert authority.roots.verify(changed, stamped.signature) == moment


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda data: b"\x30" + bytes([len(data)]) + data))
def test_any_bytes_are_refused(authority, data):  # one authority for all examples
    with pytest.raises(NoTrustedSignature):
        authority.roots.verify(data, b"message")


def test_an_authority_that_refuses_or_answers_nonsense_changes_nothing(authority):
    bundle = sign_statement(STATEMENT, KEY)
    replayed = authority.answer(TimestampQuery.about(bundle.signature).data)
    for answer, status, error in (
        (authority.answer, 503, ExternalError),
        (lambda _: b"nonsense", 200, NoTrustedSignature),
        (lambda _: replayed, 200, NoTrustedSignature),
    ):
        with served(answer, status=status) as url, pytest.raises(error):
            stamp_bundle(bundle, TimestampAuthority(url, authority.roots))
    with pytest.raises(InvalidInput, match="expected https"):
        stamp_bundle(bundle, TimestampAuthority("http://192.0.2.1/tsa", authority.roots))


def test_the_command_line_stamps_a_signature_and_demands_one(authority, tmp_path, capsys):
    (tmp_path / "roots.pem").write_bytes(authority.root)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    KEY.save(tmp_path / "s.pem")
    (tmp_path / "trust.toml").write_text(
        f'[[keys]]\nname = "p"\nnot_after = {NOW + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}\n'
        f'pem = """{KEY.public.to_pem().decode()}"""\n'
    )
    model, roots = str(tmp_path / "model"), ["--timestamp-roots", str(tmp_path / "roots.pem")]
    assert run(["sign", "create", model, "--key", str(tmp_path / "s.pem")]) == 0
    verify = ["sign", "verify", model, "--trust", str(tmp_path / "trust.toml")]
    assert (run(verify), run([*verify, *roots])) == (0, 1)
    signature = ["sign", "timestamp", f"{model}/model.sig", "--roots", str(tmp_path / "roots.pem"), "--tsa"]
    before = (tmp_path / "model/model.sig").read_bytes()
    with served(authority.answer, status=500) as url:
        assert run([*signature, url]) == 4
    assert (tmp_path / "model/model.sig").read_bytes() == before
    with served(authority.answer) as url:
        assert run([*signature, url]) == 0
    assert (run(verify), run([*verify, *roots])) == (0, 0)
    printed = capsys.readouterr().out  # midnight may pass while this runs
    assert any(f"signed not after {day:%Y-%m-%d}" in printed for day in (NOW, datetime.now(UTC)))


def certificate_that_denies_it():
    """A certificate whose basic constraints say that it is no authority's."""
    name, key = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "holder")]),
        ec.generate_private_key(ec.SECP256R1()),
    )
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_roots_are_certificates_of_authorities(authority):
    leaf = (authority.folder / "tsa.pem").read_bytes()
    for pem in (b"", b"nonsense", leaf, authority.root + leaf):
        with pytest.raises(InvalidInput, match=r"roots\.pem"):
            TimestampRoots.from_pem(pem, what="roots.pem")
    holder = certificate_that_denies_it()
    for pem in (holder, authority.root + holder):
        with pytest.raises(InvalidInput, match="each of an authority"):
            TimestampRoots.from_pem(pem, what="roots.pem")
    assert len(TimestampRoots.from_pem(authority.root * 64, what="roots.pem").certificates) == 64
    with pytest.raises(InvalidInput, match="at most 64 certificates"):
        TimestampRoots.from_pem(authority.root * 65, what="roots.pem")


def test_without_the_optional_part_the_install_line_is_named(authority, stamped, monkeypatch):
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(MissingExtraError, match="timestamp"):
        authority.roots.verify(stamped.timestamps[0], stamped.signature)
    with pytest.raises(MissingExtraError, match="timestamp"):
        TimestampQuery.about(b"x")


@pytest.mark.parametrize(
    "value", [[], {}, {"rfc3161Timestamps": [{}]}, {"rfc3161Timestamps": ["x"]},
              {"rfc3161Timestamps": [{"signedTimestamp": "!"}]}, {"rfc3161Timestamps": [{"signedTimestamp": ""}] * 17}],
)  # fmt: skip
def test_time_stamps_that_break_the_form_are_refused(value):
    fields = json.loads(sign_statement(STATEMENT, KEY).to_bytes())
    fields["verificationMaterial"]["timestampVerificationData"] = value
    with pytest.raises(InvalidInput):
        Bundle.parse(json.dumps(fields).encode())


def test_a_sealed_bundle_says_when_it_was_signed_and_outlives_its_publishers_key(
    authority, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roots.pem").write_bytes(authority.root)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    KEY.save(tmp_path / "s.pem")
    (tmp_path / "s.pub.pem").write_bytes(KEY.public.to_pem())
    (tmp_path / "past.toml").write_text(
        f'[[keys]]\nname = "p"\nnot_after = {NOW - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}\n'
        f'pem = """{KEY.public.to_pem().decode()}"""\n'
    )
    identity = generate_identity()
    identity.save(tmp_path / "id.json")
    create = ["seal", "create", "model", "--to", str(identity.recipient), "--sign-key", "s.pem", "--lineage", "l"]
    stamped = [*create, "--out", "b", "--tsa-roots", "roots.pem", "--tsa"]
    with served(authority.answer, status=500) as url:
        assert run([*stamped, url]) == 4
    assert not list(tmp_path.glob("b*"))  # no bundle without the time-stamp that was asked for
    with served(authority.answer) as url:
        assert run([*stamped, url]) == 0
    assert run([*create, "--number", "2", "--out", "plain"]) == 0
    roots, trust = ["--timestamp-roots", "roots.pem"], ["--trust", "s.pub.pem"]
    capsys.readouterr()
    assert run(["--json", "seal", "verify", "b", *trust, *roots]) == 0
    moment = datetime.fromisoformat(json.loads(capsys.readouterr().out)["data"]["signed_at"])
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=5)
    opened = ["--identity", "id.json"]
    assert run(["release", "deliver", "b", "file:store", *trust]) == 0
    assert run(["release", "deliver", "plain", "file:store", *trust]) == 0
    uris = {name: f"file:store/{json.loads((tmp_path / name / 'manifest.json').read_bytes())['bundle_id']}"
            for name in ("b", "plain")}  # fmt: skip
    for name, code in (("b", 0), ("plain", 1)):
        commands = [
            ["seal", "verify", name], ["seal", "unseal-unsafe", name, *opened, "--out", f"{name}.clear"],
            ["release", "open", name, *opened], ["release", "open", uris[name], *opened],
            ["release", "fetch", uris[name], "--out", f"{name}.got", "--memory", "m"],
        ]  # fmt: skip
        for command in commands:
            assert run([*command, *trust, *roots]) == code, command
    # What the key signs after its end counts for nothing, with a time-stamp too.
    assert run(["seal", "verify", "b", "--trust", "past.toml", *roots]) == 1
    # A bundle that was sealed without one gets it later.
    with served(authority.answer) as url:
        assert run(["sign", "timestamp", "plain/manifest.sigstore.json", "--roots", "roots.pem", "--tsa", url]) == 0
    assert run(["seal", "verify", "plain", *trust, *roots]) == 0


def test_the_time_is_when_enough_keys_had_signed(authority, stamped, monkeypatch):
    later, sooner = stamped.timestamps  # the key that signed first is the last to have it confirmed
    times = {sooner: NOW, later: NOW + timedelta(hours=1)}
    by_signature = dict(zip((stamped.signature, *stamped.further), stamped.timestamps, strict=True))

    def verify(_, stamp, signature):
        if by_signature[signature] != stamp:
            raise NoTrustedSignature("of another signature")
        return times[stamp]

    monkeypatch.setattr(TimestampRoots, "verify", verify)
    for threshold in (1, 2):
        both = Timestamped(TrustedKeys((KEY.public, SECOND.public), threshold), authority.roots)
        assert both.signed_at(stamped) == NOW + timedelta(hours=threshold - 1)
    # What counts is when a key's first signature was first seen, however often it signed and had that confirmed.
    again = sign_statement(STATEMENT, KEY)
    seen = {
        (stamped.signature, b"a"): 5,
        (stamped.signature, b"b"): 3,
        (again.signature, b"c"): 4,
        (again.signature, b"d"): 6,
    }

    def seen_at(_, stamp, signature):
        if (signature, stamp) not in seen:
            raise NoTrustedSignature("of another signature")
        return NOW + timedelta(hours=seen[signature, stamp])

    monkeypatch.setattr(TimestampRoots, "verify", seen_at)
    one = Timestamped(TrustedKeys((KEY.public,)), authority.roots)
    for first, second in ((stamped, again), (again, stamped)):
        bundle = replace(first, further=(second.signature,), timestamps=(b"a", b"b", b"c", b"d"))
        assert one.signed_at(bundle) == NOW + timedelta(hours=3)
    monkeypatch.setattr(TimestampRoots, "verify", verify)
    with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
        both.signed_at(replace(stamped, timestamps=stamped.timestamps[:1]))
