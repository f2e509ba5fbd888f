import random

import pytest

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.data import build_index, build_manifest, open_dataset, open_sealed_index, seal_index
from stanch.errors import InvalidInput, VerificationError
from stanch.scan import FINE, STANDARD, Layout, SpanIndex
from stanch.seal import SealParams, VolatileReleases, open_bundle
from stanch.terms import VerifiedDigest

INDEX_KEY = bytes(range(100, 132))


def test_spans_of_every_string_are_found_and_others_are_not(write_rows, prose, key, tmp_path):
    rng = random.Random(43)
    texts = [prose(rng, 60) for _ in range(30)]
    rows = [
        {
            "messages": [{"role": "user", "content": texts[i]}, {"role": "assistant", "content": texts[i + 10]}],
            "note": texts[i + 20],
        }
        for i in range(10)
    ]
    index = build_index(open_dataset(write_rows(rows), key=key), key=INDEX_KEY)
    index.save(tmp_path / "train.spans")
    reopened = SpanIndex.open(tmp_path / "train.spans", INDEX_KEY)
    for text in texts:
        start = rng.randrange(len(text) - 130)
        assert reopened.query("He said: " + text[start : start + 130].upper())
    assert not [text for text in (prose(rng, 60) for _ in range(50)) if reopened.query(text)]
    assert reopened.header.records == 30


def test_no_window_runs_over_the_border_of_two_strings(write_rows, prose):
    rng = random.Random(47)
    one, two = prose(rng, 9)[:31].strip(), prose(rng, 9)[:31].strip()
    index = build_index(open_dataset(write_rows([{"text": one, "more": two}])), key=INDEX_KEY)
    assert index.header.keys == 0  # each is shorter than a window
    assert not index.query(f"{one} {two}")


def test_the_header_names_the_salted_root_only_when_there_is_a_key(chats, key):
    assert build_index(chats, key=INDEX_KEY).header.dataset_root == build_manifest(chats, key=key).root
    assert build_index(open_dataset(chats.path), key=INDEX_KEY, params=FINE).header.dataset_root == ""


def test_a_short_key_is_refused(chats):
    with pytest.raises(InvalidInput, match="expected 32"):
        build_index(chats, key=b"short")


def test_an_index_lives_in_a_sealed_bundle(chats, tmp_path):
    index, signer, identity = build_index(chats, key=INDEX_KEY), SigningKey.generate("ed25519"), generate_identity()
    params = SealParams(kind="dataset", lineage="acme/spans", release_number=1, workers=1)
    bundle = seal_index(index, tmp_path / "spans.sealed", [identity.recipient], params, signer.sign)
    publisher = VerifiedDigest(bundle.digest.value, (signer.key_id,), None)
    text = next(iter(chats)).fields[0].text
    with open_bundle(bundle.path, publisher, [identity], memory=VolatileReleases()) as opened:
        again = open_sealed_index(opened, INDEX_KEY)
        assert again.to_bytes() == index.to_bytes()
        assert again.query(text)
        with pytest.raises(VerificationError, match="another key"):
            open_sealed_index(opened, bytes(32))
    assert not [path for path in bundle.path.rglob("*") if path.is_file() and b"STXIDX" in path.read_bytes()]


def test_parts_name_no_dataset(chats):
    layout = Layout.for_chars(10**6, STANDARD)
    assert build_index(chats, key=INDEX_KEY, layout=layout).header.dataset_root == ""
    assert build_index(chats, key=INDEX_KEY, layout=layout).header.blocks == layout.blocks


def test_public_texts_are_left_out(chats):
    text = next(iter(chats)).fields[1].text
    assert build_index(chats, key=INDEX_KEY).query(text)
    assert not build_index(chats, key=INDEX_KEY, public=[text]).query(text)
