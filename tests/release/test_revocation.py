"""Taking a bundle back: the signed list, the stanza at the store, and what fetching and opening say about it."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages

from delivery_world import Store, deliver, make_bundle, make_world, open_store, revoke

from stanch.crypto import SigningKey
from stanch.crypto.passphrase import Passphrase
from stanch.errors import (
    Equivocation,
    InvalidInput,
    NoIdentityMatched,
    NotFound,
    NoTrustedSignature,
    PolicyViolation,
    Rollback,
    StanchError,
    StoreError,
)
from stanch.release import (
    NO_REVOCATIONS,
    RemoteBundle,
    Revocation,
    RevocationList,
    Revoked,
    RevokeOrder,
    fetch,
    open_copy,
    open_remote,
    read_revocations,
)
from stanch.seal import Recipients, VolatileReleases
from stanch.sign import Scope, Statement, Subject, TrustedKeys, sign_statement
from stanch.store import CREATE, REPLACE, open_blobs
from stanch.terms import Digest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LIST = "revocations.json"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), sizes={"a": 5})


@pytest.fixture
def blobs(world, tmp_path):
    blobs = open_store(tmp_path / "store")
    deliver(world.bundle, blobs, world.trusted)
    return blobs


def order(world, who=0, **changes):
    key_id = world.identities[who].describe().key_id
    return RevokeOrder(**{"key_id": key_id, "reason": "left", "signer": world.publisher, "at": NOW} | changes)


def get(world, blobs, dest, memory=None):
    return fetch(world.remote(blobs), dest, world.trusted, memory=memory or VolatileReleases())


def recipients(world, blobs):
    parsed = Recipients.parse(blobs.get(f"{world.bundle_id}/recipients.json"))
    return parsed.epoch, [stanza.key_id for stanza in parsed.stanzas]


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_revoked_recipient_is_refused_and_the_other_is_not(world, kind, request, tmp_path):
    blobs = open_blobs(f"file:{tmp_path}/s" if kind == "file" else request.getfixturevalue("s3").uri())
    deliver(world.bundle, blobs, world.trusted)
    made = revoke(world.remote(blobs), order(world), world.trusted)
    assert made == read_revocations(blobs, world.trusted, "acme/bot")
    first, second = world.identities
    assert made.entries == (Revocation(world.bundle_id, first.describe().key_id, "left", "2026-06-01T12:00:00Z"),)
    assert recipients(world, blobs) == (1, [second.describe().key_id])
    path = get(world, blobs, tmp_path / "got").path
    with open_copy(path, world.trusted, [second], memory=VolatileReleases(), revocations=made) as opened:
        assert opened.read("a")
    with pytest.raises(NoIdentityMatched):
        open_copy(path, world.trusted, [first], memory=VolatileReleases())
    # A copy fetched before still opens without the list, and not with it.
    with open_copy(world.bundle, world.trusted, [first], memory=VolatileReleases()):
        pass
    with pytest.raises(Revoked, match="was revoked at 2026-06-01") as caught:
        open_copy(world.bundle, world.trusted, [first], memory=VolatileReleases(), revocations=made)
    assert (caught.value.why, caught.value.exit_code) == ("left", 3)
    with open_copy(world.bundle, world.trusted, [first, second], memory=VolatileReleases(), revocations=made):
        pass


def test_a_bundle_without_recipients_left_is_not_fetched_nor_delivered_again(world, blobs, tmp_path):
    for who in (0, 1):
        revoke(world.remote(blobs), order(world, who), world.trusted)
    assert recipients(world, blobs) == (2, [])
    with pytest.raises(Revoked):
        get(world, blobs, tmp_path / "got")
    assert not (tmp_path / "got.partial").exists()
    with pytest.raises(Revoked):
        deliver(world.bundle, blobs, world.trusted)


def test_a_list_counts_if_its_signer_may_sign_for_the_bundles_lineage(world, blobs, tmp_path):
    own, other = world.publisher, SigningKey.generate("p256")
    scopes = {
        own.public: Scope(name="own", lineages=("acme/*",)), other.public: Scope(name="other", lineages=("other/*",)),
    }  # fmt: skip
    scoped = TrustedKeys(tuple(scopes), scopes=scopes)
    revoke(world.remote(blobs), order(world), scoped)
    first, second = world.identities
    remote = world.remote(blobs)
    with open_remote(remote, scoped, [second], memory=VolatileReleases()):
        pass
    with pytest.raises(Revoked):
        open_remote(remote, scoped, [first], memory=VolatileReleases())
    assert deliver(world.bundle, open_store(tmp_path / "elsewhere"), scoped).sent > 0
    blobs.put(LIST, RevocationList(2, ()).sign(other), mode=REPLACE)  # trusted, but not for this line
    with pytest.raises(PolicyViolation, match="may not sign") as caught:
        fetch(remote, tmp_path / "got", scoped, memory=VolatileReleases())
    assert "trust file" in caught.value.next_step


def test_a_stanza_that_somebody_puts_back_is_left_out(world, blobs, tmp_path):
    old = blobs.get(f"{world.bundle_id}/recipients.json")
    revoke(world.remote(blobs), order(world), world.trusted)
    blobs.put(f"{world.bundle_id}/recipients.json", old, mode=REPLACE)
    path = get(world, blobs, tmp_path / "got").path
    with pytest.raises(NoIdentityMatched):
        open_copy(path, world.trusted, [world.identities[0]], memory=VolatileReleases())


def test_a_revoked_passphrase_opens_neither_here_nor_there(world, tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)})
    word, other = Passphrase("a passphrase"), world.identities[0]
    made = make_bundle(tmp_path / "b", world.publisher, [word, other.recipient], sizes={"a": 5})
    blobs = open_store(tmp_path / "store")
    deliver(made.path, blobs, world.trusted)
    remote = RemoteBundle(blobs, "file:here", made.manifest.bundle_id)
    old = blobs.get(remote.key("recipients.json"))
    key_id = Recipients.parse(old).stanzas[0].key_id
    listed = revoke(remote, order(world, key_id=key_id), world.trusted)
    blobs.put(remote.key("recipients.json"), old, mode=REPLACE)  # nobody signs it
    for identities in ([word], [word, other]):
        opened = [
            lambda ids=identities: open_remote(remote, world.trusted, ids, memory=VolatileReleases()),
            lambda ids=identities: open_copy(
                made.path, world.trusted, ids, memory=VolatileReleases(), revocations=listed
            ),
        ]
        for opening in opened:
            if other in identities:
                opening().close()
                continue
            with pytest.raises(Revoked, match="was revoked"):
                opening()


def test_revoking_half_done_refuses_already_and_is_completed(world, blobs, tmp_path):
    def before(_count, name, key):
        if name == "put" and key.endswith("recipients.json"):
            raise StoreError("the network is gone")

    with pytest.raises(StoreError):
        revoke(world.remote(Store(blobs, before=before)), order(world), world.trusted)
    path = get(world, blobs, tmp_path / "got").path
    with pytest.raises(NoIdentityMatched):
        open_copy(path, world.trusted, [world.identities[0]], memory=VolatileReleases())
    assert revoke(world.remote(blobs), order(world), world.trusted).number == 1
    assert recipients(world, blobs)[0] == 1
    assert revoke(world.remote(blobs), order(world), world.trusted).number == 1


def test_two_who_revoke_at_once_both_stand_in_the_list(world, blobs):
    done = []

    def before(_count, name, key):
        if name == "put" and key == LIST and not done:
            done.append(revoke(world.remote(blobs), order(world, 1), world.trusted))

    made = revoke(world.remote(Store(blobs, before=before)), order(world, 0), world.trusted)
    assert (made.number, len(made.entries)) == (2, 2)
    assert recipients(world, blobs) == (2, [])


def test_an_older_list_or_none_is_noticed(world, blobs, tmp_path):
    memory = VolatileReleases()
    revoke(world.remote(blobs), order(world), world.trusted)
    first = blobs.get(LIST)
    twin = RevocationList(1, (Revocation("a" * 64, "k", "x", "2026-06-01T12:00:00Z"),)).sign(world.publisher)
    other = make_bundle(tmp_path / "2", world.publisher, [world.identities[0].recipient], sizes={"b": 1})
    deliver(other.path, blobs, world.trusted)
    get(world, blobs, tmp_path / "a", memory)
    blobs.put(LIST, twin, mode=REPLACE)
    with pytest.raises(Equivocation):
        get(world, blobs, tmp_path / "b", memory)
    blobs.put(LIST, first, mode=REPLACE)
    revoke(RemoteBundle(blobs, "file:here", other.manifest.bundle_id), order(world), world.trusted)
    get(world, blobs, tmp_path / "b", memory)
    blobs.put(LIST, first, mode=REPLACE)
    with pytest.raises(Rollback, match="number 2"):
        get(world, blobs, tmp_path / "c", memory)
    blobs.delete(LIST)
    with pytest.raises(Rollback, match="found 0"):
        get(world, blobs, tmp_path / "c", memory)


def test_a_store_that_drops_the_list_does_not_make_the_publisher_sign_it_away(world, blobs, tmp_path):
    memory = VolatileReleases()
    revoke(world.remote(blobs), order(world, 0), world.trusted, memory=memory)
    first = blobs.get(LIST)
    revoke(world.remote(blobs), order(world, 1), world.trusted, memory=memory)
    deliver(make_bundle(tmp_path / "2", world.publisher, [world.identities[0].recipient], sizes={"b": 1}).path,
            blobs, world.trusted, memory=memory)  # fmt: skip
    blobs.delete(LIST)
    for _ in range(2):
        with pytest.raises(Rollback, match="number 2"):
            revoke(world.remote(blobs), order(world, 1), world.trusted, memory=memory)
        with pytest.raises(Rollback, match="number 2"):
            deliver(world.bundle, blobs, world.trusted, memory=memory)
        blobs.put(LIST, first, mode=REPLACE)
    assert blobs.get(LIST) == first


@pytest.mark.usefixtures("blobs")
def test_a_store_is_one_store_from_wherever_it_is_named(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("store")
    names = {RemoteBundle.at(f"file:{place}", world.bundle_id).location for place in ("store", "./store/", "link")}
    names |= {RemoteBundle.open(f"file://{tmp_path}/store/{world.bundle_id}").location}
    assert names == {f"file:{tmp_path}/store"}


def test_only_the_publisher_revokes(world, blobs, tmp_path):
    strange = SigningKey.generate("p256")
    with pytest.raises(NoTrustedSignature):
        revoke(world.remote(blobs), order(world, signer=strange), world.trusted)
    with pytest.raises(NotFound):
        blobs.head(LIST)
    blobs.put(LIST, RevocationList(1, ()).sign(strange), mode=CREATE)
    with pytest.raises(NoTrustedSignature):
        get(world, blobs, tmp_path / "got")
    with pytest.raises(NoTrustedSignature):
        deliver(world.bundle, blobs, world.trusted)


@pytest.mark.parametrize("changes", [{"key_id": "nobody"}, {"reason": ""}, {"reason": "a\nb"}, {"reason": "x" * 201}])
def test_a_wrong_order_changes_nothing(world, blobs, changes):
    before = [info.etag for info in blobs.list()]
    with pytest.raises(InvalidInput):
        revoke(world.remote(blobs), order(world, **changes), world.trusted)
    assert [info.etag for info in blobs.list()] == before


def test_the_list_round_trips_and_another_statement_is_no_list(world):
    made = RevocationList(3, (Revocation("b" * 64, "k:1", "why", "2026-06-01T12:00:00Z"),))
    assert RevocationList.verify(made.sign(world.publisher), world.trusted) == made
    assert NO_REVOCATIONS.revoked("b" * 64) == {}
    predicate = {"number": 1, "entries": []}
    for kind, digest in (("urn:x", Digest.sha256(b'{"entries":[],"number":1}')), (None, Digest.sha256(b""))):
        statement = Statement((Subject("revocations", digest),), kind or "urn:stanch:revocations:v1", predicate)
        with pytest.raises(PolicyViolation):
            RevocationList.verify(sign_statement(statement, world.publisher).to_bytes(), world.trusted)


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_refused(world, data):
    with pytest.raises(StanchError):
        RevocationList.verify(data, world.trusted)


PREDICATES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["number", "entries", "bundle_id", "key_id", "reason", "at", "x"]), inner)
    ),
    max_leaves=8,
)


@given(value=st.dictionaries(st.sampled_from(["number", "entries", "x"]), PREDICATES))
@settings(max_examples=50, deadline=None)
def test_any_signed_predicate_is_a_list_or_refused(world, value):
    content = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    statement = Statement((Subject("revocations", Digest.sha256(content)),), "urn:stanch:revocations:v1", value)
    data = sign_statement(statement, world.publisher).to_bytes()
    try:
        made = RevocationList.verify(data, world.trusted)
    except (InvalidInput, PolicyViolation):
        return
    assert made.number >= 1


def test_a_list_that_is_too_long_is_refused(world, blobs):
    blobs.put(LIST, bytes((16 << 20) + 1), mode=CREATE)
    with pytest.raises(InvalidInput, match="at most"):
        read_revocations(blobs, world.trusted, "acme/bot")
