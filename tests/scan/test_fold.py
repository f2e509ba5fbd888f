"""``stanch-fold/2``: vectors, chunk and normal-form invariance, the way back."""

import importlib.util
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.scan import Folder, fold_text
from stanch.scan.fold import GAP, CodePoints
from stanch.scan.offsets import OffsetMap

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/scan/fold.json").read_text())
VIEWS = ("detect", "index", "squeezed")
# Letters, marks, ligatures, separators and invisible characters of many scripts; no lone surrogates.
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aZ9 ,\n\u200b\u0301éﬁ⒜㏂가각日рΣςİß½😀\x1e-’"),
    ),
    max_size=30,
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['view']}-{vector['name']}")
def test_vectors(vector):
    assert fold_text(vector["text"], vector["view"]).decode() == vector["folded"]


@given(text=TEXTS, view=st.sampled_from(VIEWS), data=st.data())
def test_folding_does_not_depend_on_chunks(text, view, data):
    folder, at, folded = Folder(view), 0, b""
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        folded += folder.push(text[at : at + size])
        at += size
    assert folded == fold_text(text, view)
    assert (folder.folded, folder.code_points) == (len(folded), len(text))


@given(
    text=st.one_of(TEXTS, st.text("aB9 ,\u200bé", max_size=60)),
    view=st.sampled_from(VIEWS),
    gap=st.sampled_from([None, 1, 3, GAP]),
    data=st.data(),
)
def test_tokens_fold_to_the_bytes_and_places_of_single_characters(text, view, gap, data):
    single, tokens, at = Folder(view, gap=gap), Folder(view, gap=gap), 0
    while at < len(text):
        token = text[at : at + data.draw(st.integers(1, 9))]
        at += len(token)
        assert tokens.push(token) == b"".join(map(single.push, token))
        assert (tokens.folded, tokens.code_points) == (single.folded, single.code_points)
        assert tokens.between_words == single.between_words
    assert [*map(tokens.offsets.start, range(tokens.folded))] == [*map(single.offsets.start, range(single.folded))]


@given(text=TEXTS, view=st.sampled_from(VIEWS), form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_normal_forms_fold_equally(text, view, form):
    # Only what the pinned Unicode version knows: this Python may know more.
    assert fold_text(unicodedata.normalize(form, text), view) == fold_text(text, view)


@given(text=TEXTS)
def test_case_does_not_matter_to_the_index_view(text):
    for char in text:
        for other in (char.lower(), char.upper()):
            if len(other) == 1 and char != "\u0345":
                assert fold_text(other, "index") == fold_text(char, "index")


@given(text=TEXTS, view=st.sampled_from(VIEWS))
def test_each_folded_byte_leads_back_to_the_code_point_that_made_it(text, view):
    folder = Folder(view)
    folded = folder.push(text)
    before = (0, 0)
    for at in range(len(folded)):
        start, end = folder.offsets.span(at, at + 1)
        assert end == start + 1 <= len(text)
        assert start >= before[0]
        before = (start, end)
        alone = fold_text(text[start:end], view)
        assert folded[at : at + 1] in alone or folded[at : at + 1] == b" "


def test_ascii_maps_to_itself():
    folder = Folder()
    assert folder.push("plain text") == b"plain text"
    assert folder.offsets.span(2, 7) == (2, 7)


def test_a_long_silent_run_cuts_the_text_at_the_same_place_for_every_chunking():
    text = "ab" + "\u200b" * 300 + "cd"
    whole = Folder("detect", gap=256)
    single = Folder("detect", gap=256)
    assert whole.push(text) == b"ab\x1ecd" == b"".join(single.push(char) for char in text)
    assert [whole.offsets.start(at) for at in range(5)] == [single.offsets.start(at) for at in range(5)]
    assert Folder("squeezed", gap=256).push("a" + "-" * 257 + "b") == b"a\x1eb"
    assert Folder("squeezed", gap=256).push("a" + "-" * 256 + "b") == b"ab"


def test_the_separator_byte_is_folded_away():
    assert fold_text("a\x1eb") == Folder().push("a\x1eb") == b"a b"


@given(text=st.text(max_size=10), data=st.data())
def test_cut_surrogate_pairs_are_joined(text, data):
    units = [chr(int.from_bytes(u, "little")) for u in _pairs(text.encode("utf-16-le", "surrogatepass"))]
    points, joined, at = CodePoints(), "", 0
    while at < len(units):
        size = data.draw(st.integers(1, len(units) - at))
        joined += points.push("".join(units[at : at + size]))
        at += size
    assert joined + points.finish() == text


def _pairs(data: bytes) -> list[bytes]:
    return [data[at : at + 2] for at in range(0, len(data), 2)]


def test_forgetting_keeps_what_comes_after():
    offsets = OffsetMap()
    for piece in range(200):
        offsets.add(3 * piece, 5 * piece, linear=False)
    offsets.forget(450)
    assert offsets.span(450, 453) == (750, 751)
    assert offsets.start(597) == 995


@pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="the table is pinned to Unicode 14.0.0 (Python 3.11)"
)
def test_the_shipped_table_is_what_the_tool_makes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_fold_table", ROOT / "tools/make_fold_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["make_fold_table.py", str(tmp_path / "fold.json")])
    tool.main()
    assert (tmp_path / "fold.json").read_bytes() == (ROOT / "src/stanch/scan/tables/fold.json").read_bytes()
