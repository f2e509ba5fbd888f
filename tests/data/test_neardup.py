import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.data import drop_duplicates, find_near_duplicates, inject_uncommitted, neardup, open_dataset, plan_canaries
from stanch.data import shingles as shingles_module
from stanch.data.canaries import CanarySpec
from stanch.data.shingles import fold_texts, jaccard, jaccard_of_pairs, shingles
from stanch.data.sketches import candidates
from stanch.errors import InvalidInput


def texts_dataset(write_rows, texts, name="train.jsonl"):
    return open_dataset(write_rows([{"text": text} for text in texts], name))


def edited(rng, text, prose, changes):
    """Return the text with some words replaced."""
    words = text.split()
    for position in rng.sample(range(len(words)), changes):
        words[position] = prose(rng, 1) + "x"
    return " ".join(words)


def true_jaccard(left, right):
    def runs(text):
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    return len(runs(left) & runs(right)) / len(runs(left) | runs(right))


def test_jaccard_is_that_of_word_runs(prose):
    rng = random.Random(3)
    for changes in (0, 1, 3, 9):
        text = prose(rng, 60)
        other = edited(rng, text, prose, changes)
        measured = jaccard(shingles(fold_texts([text])), shingles(fold_texts([other])))
        assert measured == pytest.approx(true_jaccard(text, other))


@given(
    st.lists(st.lists(st.integers(0, 6)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=30),
    st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_many_similarities_at_once_are_those_of_each_pair(sets, pairs, compared):
    elements = np.random.default_rng(1).integers(0, 2**64, 7, dtype=np.uint64)
    hashes = [elements[np.array(one, np.int64)] for one in sets]
    chosen = np.array([(one % len(sets), other % len(sets)) for one, other in pairs], np.int64).reshape(-1, 2)
    offsets = np.cumsum([0, *map(len, sets)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles_module, "_COMPARED", compared)
        found = jaccard_of_pairs(np.concatenate(hashes), offsets, chosen[:, 0], chosen[:, 1])
    assert found.tolist() == [jaccard(hashes[one], hashes[other]) for one, other in chosen]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_candidates_are_the_groups_that_share_a_band(bands):
    sketches = np.repeat(np.array(bands, np.uint32).reshape(-1, 2), 4, axis=1)
    members = np.arange(len(bands))[1:]
    expected = set()
    for side in (0, 1):
        for value in range(3):
            expected.add(tuple(n for n in members.tolist() if bands[n][side] == value))
    found = [tuple(group) for table in candidates(sketches, members) for group in table.tolist()]
    assert set(found) == {group for group in expected if len(group) > 1}
    assert len([group for group in found if len(group) == 2]) == len({group for group in expected if len(group) == 2})


def test_exact_duplicates_fold_case_layout_and_look_alikes(write_rows):
    dataset = texts_dataset(
        write_rows,
        ["Hello, World!", "something else", "  hello\n--WORLD", "he\u200bllo wоrld", "short", "hello worlds"],
    )
    report = find_near_duplicates(dataset)
    assert report.clusters == (("r1", "r3", "r4"),)
    assert report.similarities == (1.0,)
    assert (report.records, report.exact) == (6, 0)


def test_clusters_join_through_a_middle_record(write_rows, prose):
    rng = random.Random(5)
    first = prose(rng, 120)
    middle = edited(rng, first, prose, 2)
    last = edited(rng, middle, prose, 2)
    report = find_near_duplicates(texts_dataset(write_rows, [prose(rng, 120), first, prose(rng, 120), last, middle]))
    assert report.clusters == (("r2", "r4", "r5"),)
    assert 0.8 <= report.similarities[0] < 1


def test_recall_and_precision(write_rows, prose):
    # 2,000 made pairs with true Jaccard >= 0.85: recall >= 0.99. At s = 0.85 a pair is missed with probability
    # 5e-11 by the bands and P[Bin(128, 0.85) < 0.7 * 128] = 8e-6 by the estimate: 20 misses have probability < 1e-40.
    # 500 pairs below 0.8 and 500 unrelated texts: none may be joined, since the true similarity decides.
    rng = random.Random(11)
    near, far = [], []
    while len(near) < 2000 or len(far) < 500:
        text = prose(rng, 100)
        other = edited(rng, text, prose, rng.randrange(1, 6))
        similarity = true_jaccard(text, other)
        if similarity >= 0.85 and len(near) < 2000:
            near.append((text, other))
        elif similarity < 0.8 and len(far) < 500:
            far.append((text, other))
    texts = [text for pair in near + far for text in pair] + [prose(rng, 100) for _ in range(500)]
    report = find_near_duplicates(texts_dataset(write_rows, texts))
    expected = {(f"r{2 * index + 1}", f"r{2 * index + 2}") for index in range(2000)}
    assert set(report.clusters) <= expected
    assert len(report.clusters) >= 0.99 * 2000


def test_every_pair_is_found_as_by_brute_force(write_rows, prose):
    # With a small alphabet of words and short texts, many similarities lie near the threshold.
    rng = random.Random(13)
    texts = [prose(rng, 40)]
    for _ in range(119):
        texts.append(edited(rng, rng.choice(texts), prose, rng.randrange(1, 3)))
    label = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if true_jaccard(texts[i], texts[j]) >= 0.8 and label[i] != label[j]:
                label = [label[j] if name == label[i] else name for name in label]
    expected = [tuple(f"r{i + 1}" for i in range(len(texts)) if label[i] == name) for name in dict.fromkeys(label)]
    found = find_near_duplicates(texts_dataset(write_rows, texts), num_perm=512).clusters
    assert sorted(found) == sorted(cluster for cluster in expected if len(cluster) > 1)
    assert len(found) > 3


@pytest.mark.parametrize("families", [1, 2, 3, 40])
def test_large_groups_are_compared_as_small_ones(write_rows, prose, monkeypatch, families):
    rng = random.Random(23)
    bodies = [prose(rng, 60) for _ in range(families)]
    texts = [edited(rng, rng.choice(bodies), prose, rng.choice([0, 1, 2, 4])) for _ in range(90)]
    expected = find_near_duplicates(texts_dataset(write_rows, texts))
    # Every candidate in one group, so that all there is to find is found by the large groups alone.
    monkeypatch.setattr(neardup, "candidates", lambda _, members: [members[None]])
    found = find_near_duplicates(texts_dataset(write_rows, texts))
    assert {frozenset(ids) for ids in found.clusters} == {frozenset(ids) for ids in expected.clusters}


def test_records_of_one_template_take_about_as_many_pairs_as_they_are(prose, monkeypatch):
    rng = random.Random(29)
    body, pairs, compare = prose(rng, 80).split(), [], neardup._join_pairs
    texts = ((str(n), " ".join([*body[:40], f"n{n}", *body[40:]]).encode()) for n in range(5000))

    def counted(clusters, firsts, *rest):
        pairs.append(len(firsts))
        compare(clusters, firsts, *rest)

    monkeypatch.setattr(neardup, "_join_pairs", counted)
    report = neardup.cluster_texts(texts, 0.8, 128)
    assert [len(ids) for ids in report.clusters] == [5000]
    assert sum(pairs) < 3 * 5000


def test_removing_a_cluster_changes_no_other(write_rows, prose):
    rng = random.Random(17)
    texts = [prose(rng, 60) for _ in range(60)]
    texts += [edited(rng, text, prose, 1) for text in texts[:30]]
    full = find_near_duplicates(texts_dataset(write_rows, texts)).clusters
    gone = {int(name[1:]) - 1 for name in full[0]}
    kept = [index for index in range(len(texts)) if index not in gone]
    rest = find_near_duplicates(texts_dataset(write_rows, [texts[i] for i in kept], "rest.jsonl")).clusters
    assert {tuple(f"r{kept[int(name[1:]) - 1] + 1}" for name in cluster) for cluster in rest} == set(full[1:])


def test_a_shared_system_turn_makes_no_duplicates(write_rows, prose):
    rng = random.Random(19)
    system = prose(rng, 300)
    rows = [
        {
            "id": "same",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": prose(rng, 10)},
                {"role": "assistant", "content": prose(rng, 10)},
            ],
        }
        for _ in range(20)
    ]
    assert find_near_duplicates(open_dataset(write_rows(rows))).clusters == ()


def test_a_huge_cluster_is_found_in_little_time(write_rows, prose):
    rng = random.Random(23)
    text = prose(rng, 80)
    report = find_near_duplicates(texts_dataset(write_rows, [edited(rng, text, prose, 1) for _ in range(1500)]))
    assert [len(cluster) for cluster in report.clusters] == [1500]


def test_short_records_are_compared_exactly_only(write_rows):
    assert shingles(fold_texts(["one two three four"])).size == 0
    assert find_near_duplicates(texts_dataset(write_rows, ["a b c d", "a b c e", "", "!"])).clusters == ()


def kept_of(dataset, out, **options):
    kept = drop_duplicates(dataset, find_near_duplicates(dataset), out, **options)
    return [row.get("n", row) for _, _, row in kept.rows()]


def test_texts_without_letters_are_compared_as_they_stand(write_rows):
    report = find_near_duplicates(texts_dataset(write_rows, ["🙂🙂", "😡😡😡", "→ ← ↑", "+ - *", "…", "!!!", "🙂🙂"]))
    assert (report.clusters, report.exact) == ((("r1", "r7"),), 1)


def test_tool_calls_that_differ_keep_a_record(write_rows, tmp_path):
    def row(arguments):
        call = {"type": "function", "function": {"name": "pay", "arguments": arguments}}
        said = [{"role": "user", "content": "Please do it for me now, thank you very much"}]
        return {"messages": [*said, {"role": "assistant", "content": None, "tool_calls": [call]}]}

    rows = [row(arguments) for arguments in ('{"to":"Alice"}', '{"to":"Bob"}', {"sum": 5}, {"sum": 9}, {"sum": 5})]
    dataset = open_dataset(write_rows(rows))
    assert find_near_duplicates(dataset).exact == 2  # numbers are no text, but what is dropped has equal ones
    assert kept_of(dataset, tmp_path / "out.jsonl") == rows[:4]


@pytest.mark.parametrize(
    "texts",
    [
        [f"def join(a, b): return a {sign} b" for sign in "+-*/<>"],
        ["great 👍", "great 👎"],
        ["walk from here → there now", "walk from here ← there now"],
    ],
)
def test_signs_that_differ_keep_a_record(write_rows, tmp_path, texts):
    dataset = texts_dataset(write_rows, [*texts, texts[0], f"  {texts[0]} "])
    assert len(find_near_duplicates(dataset).clusters) == 1
    assert kept_of(dataset, tmp_path / "out.jsonl") == [{"text": text} for text in texts]


def test_other_columns_that_differ_keep_a_record_unless_they_are_ignored(write_rows, tmp_path):
    rows = [{"text": "The delivery came on time", "label": label, "n": n} for n, label in enumerate(("pos", "neg"))]
    dataset = open_dataset(write_rows([*rows, rows[0]]))
    assert kept_of(dataset, tmp_path / "out.jsonl") == [0, 1]
    assert kept_of(dataset, tmp_path / "fewer.jsonl", ignore_columns=True) == [0]
    chosen = open_dataset(write_rows([*rows, rows[0]], "columns.jsonl"), fields=["text", "label"])
    assert kept_of(chosen, tmp_path / "chosen.jsonl") == [0, 1]


@pytest.mark.parametrize("arguments", [{"threshold": 0.4}, {"threshold": 1.1}, {"num_perm": 126}, {"num_perm": 8}])
def test_wrong_arguments(chats, arguments):
    with pytest.raises(InvalidInput, match="near-duplicates: expected"):
        find_near_duplicates(chats, **arguments)


def test_the_report_holds_no_text(write_rows, prose):
    rng = random.Random(29)
    text = prose(rng, 50)
    report = find_near_duplicates(texts_dataset(write_rows, [text, text, prose(rng, 50)]))
    document = json.loads(report.to_json())
    assert document == {
        "schema": "stanch/duplicate-report/v1",
        "records": 3,
        "exact": 1,
        "threshold": 0.8,
        "num_perm": 128,
        "clusters": [{"ids": ["r1", "r2"], "size": 2, "similarity": 1}],
    }
    written = repr(report) + report.to_json().decode()
    assert not [word for word in text.split() if f"{word} " in written or f" {word}" in written]


def test_dropping_keeps_the_first_of_each_cluster(write_rows, prose, tmp_path):
    rng = random.Random(31)
    texts = [prose(rng, 50) for _ in range(4)]
    dataset = texts_dataset(write_rows, [texts[0], texts[1], texts[0], texts[2], texts[1], texts[3], texts[1]])
    distinct = drop_duplicates(dataset, find_near_duplicates(dataset), tmp_path / "distinct.jsonl")
    assert [record.fields[0].text for record in distinct] == texts
    assert find_near_duplicates(distinct).clusters == ()


def test_a_report_about_another_dataset_is_refused(write_rows, tmp_path):
    report = find_near_duplicates(texts_dataset(write_rows, ["a", "a", "b"]))
    for texts in (["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(InvalidInput, match="about another dataset"):
            drop_duplicates(texts_dataset(write_rows, texts, "other.jsonl"), report, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_an_injected_dataset_is_not_deduplicated(chats, tmp_path):
    plan = plan_canaries(chats, CanarySpec(n=16), preregistration={})
    injected = inject_uncommitted(chats, plan, out=tmp_path / "planted.jsonl").dataset
    report = find_near_duplicates(injected)
    with pytest.raises(InvalidInput, match="holds canaries and is not de-duplicated"):
        drop_duplicates(injected, report, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_shingles_are_sorted_and_distinct(prose):
    found = shingles(fold_texts([prose(random.Random(37), 40)] * 3))
    assert found.dtype == np.uint64
    assert (found[1:] > found[:-1]).all()
