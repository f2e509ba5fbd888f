"""Two-person release: m approvers open a copy for its recipient, and nobody else does, whatever else they hold."""

import base64
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import life
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages

from delivery_world import deliver, revoke

from stanch.crypto import SigningKey, canonical_json, sha256
from stanch.crypto.identity import Identity, generate_identity
from stanch.crypto.shares import Share, join_secret
from stanch.crypto.stanza import KeyUnavailable, WrapContext
from stanch.errors import (
    DecryptionFailed,
    InvalidInput,
    NoIdentityMatched,
    NotPermitted,
    NoTrustedSignature,
    PolicyViolation,
    QuorumNotMet,
    StanchError,
    Tampered,
)
from stanch.release import (
    Approver,
    QuorumFiles,
    QuorumRecord,
    QuorumRequest,
    QuorumSplit,
    ReleaseRequest,
    RemoteBundle,
    Revoked,
    RevokeOrder,
    approve,
    create_copy,
    fetch,
    open_copy,
    read_publisher,
    read_record,
    redeem,
    redeem_copy,
)
from stanch.release.quorum import MAX_RECORD, TO_RECIPIENT, WrappedShare, share_digest
from stanch.release.redemption import APPROVAL_TYPE, MAX_APPROVAL
from stanch.seal import (
    Commitments,
    GrantExpired,
    Quorum,
    Recipients,
    SealParams,
    VolatileReleases,
    add_redeemed,
    rekey,
    seal,
)
from stanch.seal.keys import ReleaseRoot
from stanch.seal.recipients import wrap_root
from stanch.sign import Statement, Subject, TrustedKeys, sign_manifest, sign_statement
from stanch.store import REPLACE, FileBlobs
from stanch.terms import Digest

NOW = datetime.now(UTC).replace(microsecond=0)
END = NOW + timedelta(days=30)
CERTIFICATE = "22" * 32
FILES = {"config.json": b'{"model_type":"llama"}', "weights.bin": bytes(range(256)) * 8}


@dataclass(frozen=True)
class Person:
    """An approver with both keys."""

    name: str
    identity: Identity
    key: SigningKey

    @classmethod
    def new(cls, name):
        return cls(name, generate_identity(), SigningKey.generate("ed25519"))

    @property
    def listed(self):
        return Approver.of(self.name, str(self.identity.recipient), self.key.public)


RITA, ROLF, RUTH, PROPOSER, OTHER = (Person.new(name) for name in ("rita", "rolf", "ruth", "dana", "olga"))
ACME, BOLT = generate_identity(), generate_identity()
PUBLISHER = SigningKey.generate("p256")
TRUSTED = TrustedKeys((PUBLISHER.public,))


def asked(**changes):
    settings = {
        "request_id": "00" * 16, "model": "sha256:" + "11" * 32, "certificate_sha256": CERTIFICATE,
        "recipient_name": "acme", "recipient_key": str(ACME.recipient), "not_after": END.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "release_number": 1, "lineage": "acme/bot", "proposer_key": PROPOSER.key.key_id,
    }  # fmt: skip
    return ReleaseRequest(**settings | changes)


@dataclass(frozen=True)
class Copy:
    """A sealed copy, its signed record, and what approvers make of it."""

    path: Path
    signed: bytes

    @property
    def record(self):
        return read_record(self.signed, TRUSTED)

    @property
    def manifest(self):
        return read_publisher(self.path, TRUSTED)[0]

    def approval(self, person, **options):
        return approve(self.record, person.identity, person.key, **{"now": NOW} | options)

    def redeem(self, *approvals, identity=ACME, now=NOW):
        return redeem_copy(self.path, TRUSTED, self.signed, approvals, identity, now=now)

    def read(self, identity=ACME):
        with open_copy(self.path, TRUSTED, [identity], memory=VolatileReleases()) as opened:
            return {file.path: bytes(opened.read(file.path)) for file in opened.files()}


@pytest.fixture
def make(tmp_path):
    """Return a function that seals the files for a quorum."""

    def run(name="copy", *, people=(RITA, ROLF, RUTH), m=2, request=None, certificate=CERTIFICATE):
        source = tmp_path / f"{name}.source"
        source.mkdir()
        for file, data in FILES.items():
            (source / file).write_bytes(data)
        request = request or asked()
        split = QuorumSplit(request, [person.listed for person in people], m)
        params = SealParams(
            kind="model", lineage=request.lineage, release_number=request.release_number, not_after=request.expires,
            commitments=Commitments(None, None, certificate, None), quorum=split.quorum, workers=1,
        )  # fmt: skip
        made = seal(source, tmp_path / name, [split], params, lambda data: sign_manifest(data, PUBLISHER).to_bytes())
        return Copy(made.path, split.record.sign(PUBLISHER))

    return run


@pytest.fixture
def copy(make):
    return make()


def changed_request(record, **changes):
    """Return the record with the same shares and another request."""
    release = {name: changes.pop(name) for name in list(changes) if name in ReleaseRequest.__struct_fields__}
    request = msgspec.structs.replace(
        record.request, release=msgspec.structs.replace(record.request.release, **release), **changes
    )
    return QuorumRecord(request, record.shares)


def test_two_of_three_open_it_and_one_does_not(copy):
    with pytest.raises(QuorumNotMet, match="2 of 3"):
        copy.read()
    one, two = copy.approval(RITA), copy.approval(RUTH)
    for few in ((), (one,), (one, one)):
        with pytest.raises(QuorumNotMet):
            copy.redeem(*few)
        with pytest.raises(QuorumNotMet, match="2 of 3"):
            copy.read()
    made = copy.redeem(one, two)
    assert (made.approvers, made.left_out) == (("rita", "ruth"), ())
    assert copy.read() == FILES
    with pytest.raises(QuorumNotMet):
        copy.read(BOLT)


@pytest.mark.acceptance
def test_every_m_of_five_opens_it_and_every_m_minus_one_does_not(make):
    people = [Person.new(f"p{number}") for number in range(5)]
    copy = make(people=people, m=3)
    approvals = [copy.approval(person) for person in people]
    for mask in range(32):
        chosen = [approval for number, approval in enumerate(approvals) if mask >> number & 1]
        if len(chosen) >= 3:
            redeem(copy.record, chosen, ACME, copy.manifest, now=NOW)
        else:
            with pytest.raises(QuorumNotMet):
                redeem(copy.record, chosen, ACME, copy.manifest, now=NOW)


def test_sealing_leaves_the_root_nowhere_but_in_shares(make, monkeypatch):
    """The root, and each share, is searched for in every byte of the copy and its record, also as hex and base64."""
    seen = []
    wrap = QuorumSplit.wrap
    monkeypatch.setattr(QuorumSplit, "wrap", lambda self, root, context: seen.append(root) or wrap(self, root, context))
    copy = make()
    (root,) = seen
    stanzas = Recipients.parse((copy.path / "recipients.json").read_bytes()).stanzas
    assert [stanza.type for stanza in stanzas] == ["quorum"]
    assert stanzas[0].binary("request", 32) == copy.record.request.digest.value
    shares = [shown_share(copy, number, person) for number, person in enumerate((RITA, ROLF, RUTH), 1)]
    assert join_secret(shares[:2], 2) == join_secret(shares[1:], 2) == root
    everything = [path.read_bytes() for path in copy.path.rglob("*") if path.is_file()]
    everything += [copy.signed, canonical_json(json.loads(base64.b64decode(outer(copy.signed)["payload"])))]
    for secret in (root, *(share.y for share in shares)):
        texts = (secret.hex().encode(), base64.urlsafe_b64encode(secret)[:42], base64.b64encode(secret)[:42])
        for form in (secret, *texts):
            assert not any(form in data for data in everything)


def hand_in(copy, key, x, y, **more):
    """Return an approval that ``key`` signs, of share ``x`` with the values ``y``."""
    request = copy.record.request
    stanza = ACME.recipient.wrap(y, request.share_context(TO_RECIPIENT, x)).to_json()
    predicate = {"x": x, "stanza": stanza} | more
    statement = Statement((Subject("quorum-request", request.digest),), APPROVAL_TYPE, predicate)
    return sign_statement(statement, key).to_bytes()


def outer(signed):
    return json.loads(signed)["dsseEnvelope"]


def shown_share(copy, x, person):
    request = copy.record.request
    context = request.share_context(b"stanch/quorum/v1/share-to-approver", x)
    return Share(x, person.identity.unwrap(copy.record.shares[x - 1].stanza, context))


def test_one_administrator_with_everything_and_one_approver_cannot_open(copy):
    """Whoever has disk, database, bucket, the publisher's key, the recipient's key and one approver's keys."""
    own = copy.approval(RITA)
    share = shown_share(copy, 1, RITA)
    record = copy.record
    # Approvals that the administrator signs for others, or under the own key for another share.
    keys = (RITA.key, PUBLISHER, SigningKey.generate("ed25519"))
    forged = [hand_in(copy, key, 2, share.y) for key in keys]
    for extra in ([], *([one] for one in forged), forged):
        with pytest.raises(QuorumNotMet) as caught:
            redeem(record, [own, *extra], ACME, copy.manifest, now=NOW)
        assert caught.value.why.count("approval ") == len(extra)
    # A record with the administrator as every approver, made and signed with the publisher's own key.
    mallory = [Person.new("m1"), Person.new("m2")]
    replaced = changed_request(record, approvers=(RITA.listed, *(person.listed for person in mallory)))
    with pytest.raises(DecryptionFailed):
        approve(replaced, RITA.identity, RITA.key, now=NOW)
    # A lower m does not help: the polynomial has its degree, and the manifest its quorum.
    single = QuorumRecord(record.request, record.shares)
    with pytest.raises(QuorumNotMet):
        join_secret([share], 2)
    with pytest.raises(InvalidInput, match="2 <= m"):
        changed_request(single, m=1)


def test_a_made_up_share_joins_to_no_root(copy, monkeypatch):
    """Past every check of digests, one true share and one invented still give another root than the signed one."""
    monkeypatch.setattr("stanch.release.redemption._check_share", lambda *_: None)
    approvals = [copy.approval(RITA), hand_in(copy, ROLF.key, 2, bytes(32))]
    with pytest.raises(DecryptionFailed):
        redeem(copy.record, approvals, ACME, copy.manifest, now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"certificate_sha256": "33" * 32},
        {"recipient_key": str(BOLT.recipient)},
        {"recipient_name": "bolt"},
        {"not_after": "2099-01-01T00:00:00Z"},
        {"model": "sha256:" + "44" * 32},
        {"release_number": 2},
        {"manifest_sha256": "55" * 32},
        {"bundle_id": "66" * 32},
        {"m": 3},
        {
            "approvers": (RITA.listed, Person("rolf", ROLF.identity, PROPOSER.key).listed, RUTH.listed),
            "proposer_key": "x",
        },
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_share_unwraps_for_exactly_the_request_it_was_made_for(copy, change):
    """Also when the administrator has the publisher's key and signs the changed record."""
    approvals = [copy.approval(RITA), copy.approval(ROLF)]
    other = read_record(changed_request(copy.record, **change).sign(PUBLISHER), TRUSTED)
    assert other.request.digest != copy.record.request.digest
    with pytest.raises(DecryptionFailed):
        approve(other, RITA.identity, RITA.key, now=NOW)
    identity = BOLT if "recipient_key" in change else ACME
    with pytest.raises((PolicyViolation, QuorumNotMet)):
        redeem(other, approvals, identity, copy.manifest, now=NOW)


@pytest.mark.acceptance
def test_approvals_of_another_copy_are_refused(make):
    first, second = make("first"), make("second")
    old = [first.approval(person) for person in (RITA, ROLF, RUTH)]
    with pytest.raises(QuorumNotMet) as caught:
        second.redeem(*old)
    assert "other bytes" in caught.value.why
    with pytest.raises(QuorumNotMet):
        second.redeem(*old[:2], second.approval(RUTH))
    with pytest.raises(PolicyViolation, match="another manifest"):
        redeem(first.record, old, ACME, second.manifest, now=NOW)
    with pytest.raises(QuorumNotMet):
        second.read()


def test_the_stanza_of_another_copy_does_not_open(make):
    first, second = make("first"), make("second")
    stanza = first.redeem(first.approval(RITA), first.approval(ROLF)).stanza
    with pytest.raises(DecryptionFailed):
        add_redeemed(second.path, read_publisher(second.path, TRUSTED)[1], ACME, stanza)
    with pytest.raises(QuorumNotMet):
        second.read()


@pytest.mark.parametrize("name", ["request", "approvals", "ct", "kind"])
def test_a_redeemed_stanza_is_bound_to_its_request_and_approvals(copy, name):
    copy.redeem(copy.approval(RITA), copy.approval(ROLF))
    path = copy.path / "recipients.json"
    good = path.read_bytes()
    for value in (None, "AAAA", "A" * 43, "A" * 107, 5):
        document = json.loads(good)
        if value is None:
            del document["stanzas"][1][name]
        else:
            document["stanzas"][1][name] = value
        path.write_bytes(canonical_json(document))
        with pytest.raises((InvalidInput, DecryptionFailed, QuorumNotMet)):
            copy.read()
    document = json.loads(good)
    document["stanzas"][1]["type"] = "quorum-other"
    path.write_bytes(canonical_json(document))
    with pytest.raises(QuorumNotMet):
        copy.read()
    path.write_bytes(good)
    assert copy.read() == FILES


def test_a_direct_stanza_opens_no_quorum_bundle(copy, monkeypatch):
    """Whoever learned the root cannot write the stanza that needs no approvers."""
    roots = []
    check = ReleaseRoot.check
    monkeypatch.setattr(
        ReleaseRoot, "check", lambda self, commitment: roots.append(self.reveal()) or check(self, commitment)
    )
    copy.redeem(copy.approval(RITA), copy.approval(ROLF))
    path = copy.path / "recipients.json"
    recipients = Recipients.parse(path.read_bytes())
    root = ReleaseRoot(roots[0], bytes.fromhex(recipients.bundle_id))
    direct = wrap_root(root, bytes.fromhex(recipients.manifest_sha256), END, [BOLT])
    for stanzas in (direct, (*recipients.stanzas, *direct)):
        path.write_bytes(Recipients(recipients.bundle_id, recipients.manifest_sha256, 1, stanzas).to_bytes())
        with pytest.raises(QuorumNotMet):
            copy.read(BOLT)
    relabelled = msgspec.convert(json.loads(path.read_bytes()), dict)
    relabelled["stanzas"] = [direct[0].to_json() | {"type": "quorum-share", "kind": "hpke-x25519", "request": "A" * 43}]
    relabelled["stanzas"][0]["approvals"] = "A" * 43
    path.write_bytes(canonical_json(relabelled))
    with pytest.raises(DecryptionFailed):
        copy.read(BOLT)


def test_a_quorum_bundle_takes_no_other_recipients(copy):
    copy.redeem(copy.approval(RITA), copy.approval(ROLF))
    before = (copy.path / "recipients.json").read_bytes()
    with pytest.raises(NotPermitted, match="quorum"):
        rekey(copy.path, read_publisher(copy.path, TRUSTED)[1], ACME, [BOLT.recipient])
    assert (copy.path / "recipients.json").read_bytes() == before


def test_redeeming_again_replaces_the_stanza(copy):
    for epoch, pair in enumerate(((RITA, ROLF), (ROLF, RUTH)), 1):
        copy.redeem(*(copy.approval(person) for person in pair))
        recipients = Recipients.parse((copy.path / "recipients.json").read_bytes())
        assert recipients.epoch == epoch
        assert [stanza.type for stanza in recipients.stanzas] == ["quorum", "quorum-share"]
    assert copy.read() == FILES


@pytest.mark.parametrize(
    ("people", "changes", "match"),
    [
        ((RITA, PROPOSER), {}, "proposer"),
        ((RITA, Person("acme", ROLF.identity, ROLF.key)), {}, "recipient"),
        ((RITA, Person("rolf", ACME, ROLF.key)), {}, "recipient"),
        ((RITA, RITA), {}, "twice"),
        ((RITA, Person("rita", ROLF.identity, ROLF.key)), {}, "twice"),
        ((RITA, Person("rolf", RITA.identity, ROLF.key)), {}, "twice"),
        ((RITA, Person("rolf", ROLF.identity, RITA.key)), {}, "twice"),
        ((RITA,), {}, "2 <= m"),
        ((RITA, ROLF), {"m": 1}, "2 <= m"),
        ((RITA, ROLF), {"m": 3}, "2 <= m"),
        ([Person.new(f"p{number}") for number in range(17)], {}, "n <= 16"),
    ],
)
def test_self_approval_and_bad_quorums_are_refused(make, tmp_path, people, changes, match):
    with pytest.raises(InvalidInput, match=match):
        make(people=people, **changes)
    assert not list(tmp_path.glob("copy*")) or [path.name for path in tmp_path.glob("copy*")] == ["copy.source"]


def test_symmetric_recipients_and_keys_of_other_kinds_are_no_approvers(make):
    for recipient in ("passphrase:", "age1abc", "stanch1-x25519-AAAA"):
        with pytest.raises(InvalidInput):
            make(f"c{recipient[:4]}", request=asked(recipient_key=recipient))
    listed = Approver.of("rolf", str(ROLF.identity.recipient), PUBLISHER.public)
    with pytest.raises(InvalidInput):
        QuorumRequest(release=asked(), manifest_sha256="0" * 64, bundle_id="0" * 64, m=2,
                      approvers=(RITA.listed, listed))  # fmt: skip


def test_only_a_listed_approver_with_the_own_identity_approves(copy):
    with pytest.raises(NotPermitted, match="no approver"):
        copy.approval(PROPOSER)
    with pytest.raises(NoIdentityMatched):
        approve(copy.record, ROLF.identity, RITA.key, now=NOW)
    with pytest.raises(NotPermitted):
        approve(copy.record, RITA.identity, PUBLISHER, now=NOW)


def test_a_bad_share_is_named_and_left_out(copy):
    """An approver who hands in another share, and approvals that are no approvals, do not stop the others."""
    bad = [
        hand_in(copy, ROLF.key, 2, bytes(32)),
        hand_in(copy, ROLF.key, 1, bytes(32)),
        hand_in(copy, ROLF.key, 9, bytes(32)),
        hand_in(copy, ROLF.key, 2, bytes(32), more=1),
        hand_in(copy, PROPOSER.key, 2, bytes(32)),
        b"", b"{}", b"\xff" * 100, b"x" * 100_000, copy.signed,
    ]  # fmt: skip
    good = [copy.approval(RITA), copy.approval(RUTH)]
    with pytest.raises(QuorumNotMet) as caught:
        copy.redeem(*bad, good[0])
    assert "the share of rolf is not the one" in caught.value.why
    made = copy.redeem(*bad, *good)
    assert made.approvers == ("rita", "ruth")
    assert [text.partition(":")[0] for text in made.left_out] == [f"approval {n}" for n in range(1, 11)]
    assert "the share of rolf" in made.left_out[0]
    assert copy.read() == FILES


def test_shares_of_a_wrong_sealing_are_found_by_the_approver(copy):
    shares = list(copy.record.shares)
    shares[0] = WrappedShare(shares[0].stanza, "0" * 64)
    with pytest.raises(Tampered, match="rita"):
        approve(QuorumRecord(copy.record.request, tuple(shares)), RITA.identity, RITA.key, now=NOW)


def test_an_ended_request_is_neither_approved_nor_redeemed(copy):
    approvals = [copy.approval(RITA, now=END - timedelta(seconds=1)), copy.approval(ROLF)]
    for late in (END, END + timedelta(days=1)):
        with pytest.raises(GrantExpired):
            copy.approval(RITA, now=late)
        with pytest.raises(GrantExpired):
            redeem(copy.record, approvals, ACME, copy.manifest, now=late)


def test_another_recipient_cannot_redeem(copy):
    approvals = [copy.approval(RITA), copy.approval(ROLF)]
    with pytest.raises(QuorumNotMet) as caught:
        copy.redeem(*approvals, identity=BOLT)
    assert "not to the given identity" in caught.value.why
    for person in (RITA, ROLF):  # nor an approver who sees all approvals
        with pytest.raises(QuorumNotMet):
            copy.redeem(*approvals, identity=person.identity)


def test_a_record_needs_the_publishers_signature(copy):
    other = SigningKey.generate("p256")
    with pytest.raises(NoTrustedSignature):
        read_record(copy.record.sign(other), TRUSTED)
    with pytest.raises(PolicyViolation, match="another type"):
        read_record((copy.path / "manifest.sigstore.json").read_bytes(), TRUSTED)
    record = copy.record
    for shares in (record.shares[:2], record.shares[::-1], (*record.shares, record.shares[0])):
        with pytest.raises(InvalidInput, match="one share for each"):
            read_record(QuorumRecord(record.request, shares).sign(PUBLISHER), TRUSTED)
    with pytest.raises(InvalidInput, match="at most"):
        read_record(copy.signed + b" " * (1 << 20), TRUSTED)
    predicate = json.loads(base64.b64decode(outer(copy.signed)["payload"]))["predicate"]
    alone = predicate["request"] | {"m": 1}
    for change in (
        {"extra": 1},
        {"shares": 1},
        {"request": alone},
        {"shares": [{"digest": "x", "stanza": {}}]},
        {"request": None},
    ):
        statement = Statement((record.subject,), "urn:stanch:quorum-record:v1", predicate | change)
        with pytest.raises(InvalidInput):
            read_record(sign_statement(statement, PUBLISHER).to_bytes(), TRUSTED)
    moved = Statement((Subject("manifest.json", Digest.sha256(b"other")),), "urn:stanch:quorum-record:v1", predicate)
    with pytest.raises(InvalidInput, match="manifest"):
        read_record(sign_statement(moved, PUBLISHER).to_bytes(), TRUSTED)


def test_a_changed_byte_of_record_or_approval_is_refused_or_means_nothing(copy):
    """Unsigned parts of a signature file, as the hint which key to try, can change; what was signed cannot."""
    approval, other = copy.approval(RITA), copy.approval(ROLF)
    record, manifest = copy.record, copy.manifest
    refused = 0
    for position in range(0, len(copy.signed), 61):
        try:
            assert read_record(flip(copy.signed, position), TRUSTED) == record
        except StanchError:
            refused += 1
    assert refused > 0.9 * len(range(0, len(copy.signed), 61))
    signed = approval.index(outer(approval)["payload"].encode()), len(outer(approval)["payload"])
    for position in range(signed[0], sum(signed), 17):
        with pytest.raises(QuorumNotMet):
            redeem(record, [flip(approval, position), other], ACME, manifest, now=NOW)


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.binary(max_size=300) | VALUES)
@settings(max_examples=60, deadline=None)
def test_what_is_no_record_or_predicate_is_refused(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(StanchError):
        read_record(data, TRUSTED)
    predicate = value if isinstance(value, dict) else {"request": None, "shares": []}
    statement = Statement((Subject("manifest.json", Digest.sha256(b"")),), "urn:stanch:quorum-record:v1", predicate)
    try:
        signed = sign_statement(statement, PUBLISHER).to_bytes()
    except InvalidInput:
        return  # not even JSON that we write
    with pytest.raises(StanchError):
        read_record(signed, TRUSTED)


def test_sealing_for_a_quorum_takes_nobody_else(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(b"x")
    split = QuorumSplit(asked(), [RITA.listed, ROLF.listed], 2)

    def run(recipients, quorum, end=END):
        params = SealParams(kind="other", lineage="acme/bot", release_number=1, not_after=end, quorum=quorum, workers=1)
        return seal(tmp_path / "source", tmp_path / "out", recipients, params, lambda _: b"")

    for recipients, quorum in (
        ([split, BOLT.recipient], Quorum(2, 2)), ([BOLT.recipient], Quorum(2, 2)), ([split], None), ([], Quorum(2, 2)),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            run(recipients, quorum)
    for end in (None, END + timedelta(days=1)):
        with pytest.raises(InvalidInput, match="grant ends"):
            run([split], Quorum(2, 2), end)
    with pytest.raises(InvalidInput, match="nothing was sealed"):
        _ = split.record
    run([split], Quorum(2, 2))
    context = WrapContext(bytes(32), bytes(32), asked().not_after)
    with pytest.raises(InvalidInput, match="one bundle"):  # a second root under one request would be two copies
        split.wrap(bytes(32), context)
    with pytest.raises(KeyUnavailable):
        split.unwrap(BOLT.wrap(bytes(32), context), context)
    assert (repr(split), "root" in repr(split.record)) == ("QuorumSplit(2 of 2)", False)


def test_a_bundle_without_a_quorum_takes_no_redeemed_stanza(copy, tmp_path):
    stanza = copy.redeem(copy.approval(RITA), copy.approval(ROLF)).stanza
    params = SealParams(kind="other", lineage="acme/bot", release_number=1, workers=1)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "f").write_bytes(b"x")
    made = seal(
        tmp_path / "s",
        tmp_path / "plain",
        [BOLT.recipient],
        params,
        lambda data: sign_manifest(data, PUBLISHER).to_bytes(),
    )
    with pytest.raises(InvalidInput, match="without a quorum"):
        add_redeemed(made.path, read_publisher(made.path, TRUSTED)[1], ACME, stanza)


def test_the_golden_share_digest():
    vector = json.loads((Path(__file__).parents[1] / "vectors" / "crypto" / "shares.json").read_text())
    share = Share(1, bytes.fromhex(vector["shares"]["1"]))
    request = Digest("sha256", sha256(bytes.fromhex(vector["digest"]["request"])))
    assert share_digest(request, share) == vector["digest"]["share_digest"]


def test_a_marked_copy_is_made_and_opened_by_two_people(ordering, material, tmp_path):
    order = ordering.order()
    request = asked(
        model=str(ordering.plan.original), certificate_sha256=order.certificate_digest.hex,
        recipient_key=str(material.acme.recipient), not_after=order.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )  # fmt: skip
    people = [RITA.listed, ROLF.listed, RUTH.listed]
    now, trusted = life.in_days(0), ordering.trusted
    made = create_copy(replace(order, recipient=QuorumSplit(request, people, 2)), tmp_path / "copy", now=now)
    record = read_record(made.record, trusted)
    approvals = [approve(record, person.identity, person.key, now=now) for person in (RITA, ROLF)]
    with pytest.raises(QuorumNotMet):
        open_copy(made.path, trusted, [material.acme], memory=VolatileReleases())
    redeem_copy(made.path, trusted, made.record, approvals, material.acme, now=now)
    with open_copy(made.path, trusted, [material.acme], memory=VolatileReleases()) as opened:
        assert {file.path for file in opened.files()} == life.contents(material.model).keys()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "sha256:" + "11" * 32}, InvalidInput),
        ({"recipient_name": "bolt"}, InvalidInput),
        ({"certificate_sha256": "33" * 32}, PolicyViolation),
        ({"release_number": 2}, PolicyViolation),
        ({"lineage": "acme/other"}, PolicyViolation),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_copy_that_the_request_does_not_ask_for_is_not_made(ordering, material, tmp_path, change, error):
    order = ordering.order()
    settings = {
        "model": str(ordering.plan.original), "certificate_sha256": order.certificate_digest.hex,
        "recipient_key": str(material.acme.recipient), "not_after": order.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    split = QuorumSplit(asked(**settings | change), [RITA.listed, ROLF.listed], 2)
    with pytest.raises(error):
        create_copy(replace(order, recipient=split), tmp_path / "copy", now=life.in_days(0))
    assert list(tmp_path.iterdir()) == []


def test_a_copy_travels_with_its_own_record_and_the_approvals(make, tmp_path):
    copy, other = make(), make("other", request=asked(request_id="77" * 16))
    blobs = FileBlobs(tmp_path / "store")
    for files, error in ((None, InvalidInput), (QuorumFiles(other.signed), PolicyViolation)):
        with pytest.raises(error):
            deliver(copy.path, blobs, TRUSTED, quorum=files)
        assert list(blobs.list()) == []
    sent = QuorumFiles(copy.signed, {1: copy.approval(RITA)})
    remote = RemoteBundle(blobs, "file:here", deliver(copy.path, blobs, TRUSTED, quorum=sent).bundle_id)
    later = QuorumFiles(copy.signed, {1: copy.approval(RITA), 3: copy.approval(RUTH)})
    assert deliver(copy.path, blobs, TRUSTED, quorum=later).sent == 0
    blobs.put(remote.key("quorum.json"), other.signed, mode=REPLACE)
    with pytest.raises(PolicyViolation, match="another manifest"):
        fetch(remote, tmp_path / "got", TRUSTED, memory=VolatileReleases())
    blobs.put(remote.key("quorum.json"), bytes(MAX_RECORD + 1), mode=REPLACE)
    with pytest.raises(InvalidInput, match="at most"):
        fetch(remote, tmp_path / "got", TRUSTED, memory=VolatileReleases())
    assert not (tmp_path / "got").exists()
    assert not (tmp_path / "got.quorum").exists()
    blobs.put(remote.key("quorum.json"), copy.signed, mode=REPLACE)
    fetched = fetch(remote, tmp_path / "got", TRUSTED, memory=VolatileReleases())
    files = QuorumFiles.read(fetched.quorum)
    assert files == later
    redeem_copy(fetched.path, TRUSTED, files.record, list(files.approvals.values()), ACME, now=NOW)
    assert replace(copy, path=fetched.path).read() == FILES
    (fetched.quorum / "approval-1.json").write_bytes(bytes(MAX_APPROVAL + 1))
    with pytest.raises(InvalidInput, match="at most"):
        QuorumFiles.read(fetched.quorum)


def test_a_revoked_quorum_copy_is_neither_fetched_nor_delivered_again(copy, tmp_path):
    blobs = FileBlobs(tmp_path / "store")
    files = QuorumFiles(copy.signed, {1: copy.approval(RITA), 2: copy.approval(ROLF)})
    remote = RemoteBundle(blobs, "file:here", deliver(copy.path, blobs, TRUSTED, quorum=files).bundle_id)
    with pytest.raises(InvalidInput, match="not a recipient"):
        revoke(remote, RevokeOrder(BOLT.recipient.key_id, "left", PUBLISHER, NOW), TRUSTED)
    for _ in range(2):  # repeating it is safe
        revoke(remote, RevokeOrder(ACME.recipient.key_id, "left", PUBLISHER, NOW), TRUSTED)
    assert not [blob.key for blob in blobs.list() if "approval" in blob.key]
    assert Recipients.parse(blobs.get(remote.key("recipients.json"))).stanzas == ()
    with pytest.raises(Revoked):
        deliver(copy.path, blobs, TRUSTED, quorum=files)
    stanzas = (copy.path / "recipients.json").read_bytes()
    blobs.put(remote.key("recipients.json"), stanzas, mode=REPLACE)  # somebody puts the stanza back
    with pytest.raises(Revoked):
        fetch(remote, tmp_path / "got", TRUSTED, memory=VolatileReleases())
    assert not (tmp_path / "got").exists()
