"""A person's own key: private, whole, and locked where a passphrase was given."""

import json
import stat

import pytest

from stanch.crypto import SigningKey
from stanch.crypto.localkey import is_locked, load_local_key, local_key_id, save_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.errors import DecryptionFailed, InvalidInput, NotAuthenticated

KEY = SigningKey.from_seed(bytes(range(32)))


@pytest.fixture(autouse=True)
def _cheap(monkeypatch):
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", {"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)})


@pytest.fixture(params=[None, "right"])
def saved(request, tmp_path):
    path = tmp_path / "dana.json"
    save_local_key(path, KEY, passphrase=Passphrase(request.param) if request.param else None)
    return path


def load(path, text="right"):
    return load_local_key(path, passphrase=lambda: Passphrase(text))


def test_the_key_comes_back_and_says_whether_it_was_locked(saved):
    found = load(saved)
    assert found.key.seed == KEY.seed
    assert found.locked == ("locked" in json.loads(saved.read_bytes())) == is_locked(saved)
    assert local_key_id(saved) == KEY.key_id
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_an_existing_key_is_not_replaced(saved):
    before = saved.read_bytes()
    with pytest.raises(InvalidInput, match="exists already"):
        save_local_key(saved, SigningKey.generate("ed25519"))
    assert saved.read_bytes() == before


def test_a_locked_file_does_not_hold_the_seed(tmp_path):
    save_local_key(tmp_path / "plain", KEY)
    save_local_key(tmp_path / "locked", KEY, passphrase=Passphrase("right"))
    secret = json.loads((tmp_path / "plain").read_bytes())["secret"]
    assert secret.encode() not in (tmp_path / "locked").read_bytes()


def test_a_locked_key_needs_its_passphrase(tmp_path):
    save_local_key(tmp_path / "k", KEY, passphrase=Passphrase("right"))
    with pytest.raises(NotAuthenticated, match="locked"):
        load_local_key(tmp_path / "k")
    with pytest.raises(DecryptionFailed):
        load(tmp_path / "k", "wrong")


def test_a_lock_is_bound_to_the_format_and_the_public_key(tmp_path, monkeypatch):
    # docs/spec/small-formats.md: the associated data of the lock.
    bound, lock = [], Passphrase.lock
    monkeypatch.setattr(Passphrase, "lock", lambda self, secret, aad: bound.append(aad) or lock(self, secret, aad=aad))
    save_local_key(tmp_path / "k", KEY, passphrase=Passphrase("right"))
    public = json.loads((tmp_path / "k").read_bytes())["public"]
    assert bound == [b"stanch/local-key/v1\0" + public.encode()]


def test_a_lock_with_a_field_too_many_is_refused(tmp_path):
    save_local_key(tmp_path / "k", KEY, passphrase=Passphrase("right"))
    document = json.loads((tmp_path / "k").read_bytes())
    for change in ({"more": "x"}, {"more": [1]}):
        (tmp_path / "k").write_text(json.dumps(document | {"locked": document["locked"] | change}))
        with pytest.raises(InvalidInput, match="expected the fields"):
            load(tmp_path / "k")


def test_a_plain_key_asks_for_no_passphrase(tmp_path):
    save_local_key(tmp_path / "k", KEY)
    assert not load_local_key(tmp_path / "k", passphrase=lambda: pytest.fail("asked")).locked


def test_the_secret_belongs_to_the_public_key(saved):
    document = json.loads(saved.read_bytes())
    save_local_key(saved.with_name("other"), SigningKey.generate("ed25519"))
    document["public"] = json.loads(saved.with_name("other").read_bytes())["public"]
    saved.write_text(json.dumps(document))
    with pytest.raises((InvalidInput, DecryptionFailed)):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [{"format": "stanch/local-key/v2"}, {"extra": 1}, {"public": 3}, {"secret": "AA"}, {"secret": "?"}],
    ids=str,
)
def test_a_damaged_file_is_refused_and_not_quoted(change, tmp_path):
    save_local_key(tmp_path / "k", KEY)
    document = json.loads((tmp_path / "k").read_bytes())
    (tmp_path / "k").write_text(json.dumps(document | change))
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path / "k")
    if change.keys() & {"format", "public"}:
        with pytest.raises(InvalidInput):
            local_key_id(tmp_path / "k")
    assert document["secret"] not in f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize("data", ["", "[]", "{}", "nonsense"])
def test_what_is_no_key_is_refused(data, tmp_path):
    (tmp_path / "k").write_text(data)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(InvalidInput):
        load(tmp_path / "k")


def test_a_file_that_others_can_read_is_refused(saved):
    saved.chmod(0o640)
    with pytest.raises(InvalidInput, match="others may read it"):
        load(saved)


def test_a_key_is_not_shown_by_its_repr(saved):
    assert KEY.seed.hex() not in repr(load(saved))
    assert repr(KEY.seed) not in repr(load(saved))
