"""Reading: entries in order, and queries against a plain scan."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stanch.crypto import SigningKey, verify_consistency
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import (
    Act,
    Cosigner,
    EntryQuery,
    LedgerReader,
    NoteVerifier,
    decode_entry,
    denied,
    index,
    intent,
    new_act_id,
    open_checkpoint,
    outcome,
)
from stanch.ledger import asked as asked_module
from stanch.ledger.asked import LastAsked
from stanch.store.schema.ledger import ledger_cosignature
from stanch.store.statement import run
from stanch.terms import ArtifactRef, Digest

KINDS = ("tune.run", "audit.run", "release.create")
PEOPLE = ("p_" + "a" * 26, "p_" + "b" * 26)
MODELS = tuple(ArtifactRef("model", f"m{n}", Digest.sha256(bytes([n]))) for n in range(3))


def asked(reader, since_ms, last=None):
    return (last or LastAsked()).since(reader.tables, reader.origin, since_ms)


@pytest.fixture
def history(ground):
    """40 entries of known variety, and the log that holds them."""
    entries = []
    for number in range(20):
        ground.clock.seconds += 1
        time_ms = int(ground.clock() * 1000)
        act = Act(
            kind=KINDS[number % 3],
            id=new_act_id(time_ms),
            principal=PEOPLE[number % 2],
            subject=MODELS[: number % 4],
        )
        entries += [intent(act, time_ms=time_ms), (outcome if number % 5 else denied)(act, time_ms=time_ms)]
    with ground.create() as log:
        for entry in entries:
            log.append(entry)
        yield log.reader(), entries


@pytest.mark.parametrize("place", ["ground", "pg_ground"])
def test_entries_that_hold_bytes_are_found_from_an_index_on(place, request):
    found = request.getfixturevalue(place)
    with found.create() as log:
        for number in range(6):
            found.clock.seconds += 1
            time_ms = int(found.clock() * 1000)
            act = Act(kind=KINDS[number % 2], id=new_act_id(time_ms), principal=PEOPLE[0])
            said = "block" if number in {1, 2, 5} else 'a "verdict":"block" that is quoted'
            log.append(outcome(act, time_ms=time_ms, payload={"verdict": said}))
        reader, holds = log.reader(), b'"verdict":"block"'
        assert [at for at, _ in reader.select(EntryQuery(holds=holds))] == [1, 2, 5]
        assert [at for at, _ in reader.select(EntryQuery(kind=KINDS[1], holds=holds, first=2))] == [5]
        assert [one.index for one in reader.states(EntryQuery(holds=holds, first=2, before=5))] == [2]
        assert list(reader.select(EntryQuery(holds=b"no such bytes"))) == []


def test_tail_yields_all_in_order_and_in_part(history):
    reader, entries = history
    assert [index for index, _ in reader.tail()] == list(range(40))
    assert list(reader.tail(38)) == [(n, entries[n].encode(reader.origin)) for n in (38, 39)]
    assert [index for index, _ in reader.tail(3, 2)] == [3, 4]
    assert list(reader.tail(40)) == []
    assert list(reader.tail(0, 0)) == []


def test_tail_crosses_pages(ground):
    with ground.create() as log:
        ground.fill(log, 600)
        assert [index for index, _ in log.reader().tail(1)] == list(range(1, 600))
        assert [index for index, _ in log.reader().tail(1, 300)] == list(range(1, 301))


def test_entries_come_in_the_order_that_was_asked_for(ground):
    with ground.create() as log:
        ground.fill(log, 600)
        whole = dict(log.reader().tail())
        assert list(log.reader().entries([599, 3, 3, 0]).items()) == [(index, whole[index]) for index in (599, 3, 0)]
        assert list(log.reader().entries(range(599, -1, -1)).items()) == list(whole.items())[::-1]
        assert log.reader().entries([]) == {}
        with pytest.raises(NotFound, match="has no entry 700"):
            log.reader().entries([5, 700, 800])


@pytest.mark.parametrize("index", [40, -1])
def test_an_entry_that_is_not_there(history, index):
    with pytest.raises(NotFound, match=f"has no entry {index}"):
        history[0].entry(index)


def test_a_stored_checkpoint_has_the_cosignatures_over_its_own_size(ground):
    witnesses = [Cosigner(f"w{number}.example", SigningKey.from_seed(bytes([number]) * 32)) for number in range(2)]
    with ground.create() as log:
        ground.fill(log, 3)
        text = log.publish().checkpoint.text()
        ground.fill(log, 1)
        log.publish()
        with ground.tables.write() as connection:
            for origin, size in [(log.origin, 3), (log.origin, 4), ("example.com/other", 3)]:
                for witness in witnesses:
                    connection.execute(ledger_cosignature.insert().values(
                        origin=origin, size=size, key_name=witness.name, key_id=witness.verifier.key_id.hex(), time_s=1,
                        line=witness.cosign(text if origin == log.origin else "other\n", size),
                    ))  # fmt: skip
        note = log.reader().checkpoint(3).note
        trusted = [log.verifier, *(witness.verifier for witness in witnesses)]
        assert [(s.name, s.time_s) for s in open_checkpoint(note, trusted).cosignatures] == [
            ("w0.example", 3),
            ("w1.example", 3),
        ]
        with pytest.raises(NotFound, match="no checkpoint was published at size 2"):
            log.reader().checkpoint(2)


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_no_proof_of_an_entry_outside_the_checkpoint(ground, index):
    with ground.create() as log:
        ground.fill(log, 3)
        log.publish()
        assert len(list(log.reader().proofs([0, 1, 2]))) == 3
        with pytest.raises(InvalidInput, match=f"entry {index} is not in the checkpoint of 3 entries"):
            log.reader().prove(index)


def test_an_index_row_says_what_the_entry_says(load):
    data = load("ledger/entry.json")["entry"].encode()
    row = index.IndexRow.of("o", 7, data)
    act, principal = "019b76da-a800-7000-8000-000000000000", "p_aaaqeayeaudaocajbifqydiob4"
    assert row == ("o", 7, act, "intent", "", principal, 1_767_225_600_000, 99, "")
    assert row.digests == []
    two = [{"digest": f"sha256:{digit * 64}"} for digit in "fbeadcb"]
    subject = b'"stanch":{"subject":' + json.dumps(two).encode() + b","
    assert index.IndexRow.of("o", 7, data.replace(b'"stanch":{', subject)).digests == [
        f"sha256:{digit * 64}" for digit in "abcdef"
    ]
    for wrong in (b"", b"[]", data[:-1], data.replace(b'"intent"', b'"\xff"')):
        with pytest.raises(InvalidInput, match="entry 7: it is not an entry of a log"):
            index.IndexRow.of("o", 7, wrong)


def test_who_was_refused_is_told_also_before_anybody_was_permitted(ground):
    with ground.create() as log:
        for made, who in ((denied, PEOPLE[1]), (intent, PEOPLE[0]), (outcome, PEOPLE[0])):
            time_ms = int(ground.clock() * 1000)
            log.append(made(Act(kind="tune.run", id=new_act_id(time_ms), principal=who), time_ms=time_ms))
            ground.clock.seconds += 1
        start = int(ground.clock() * 1000) - 3000
        assert asked(log.reader(), start) == {("tune.run", ""): frozenset(PEOPLE)}
        assert asked(log.reader(), start + 1000) == {("tune.run", ""): frozenset({PEOPLE[0]})}
        assert asked(log.reader(), start + 2000) == {}


def test_entries_are_those_of_this_log(ground):
    with ground.create() as log:
        ground.fill(log, 3)
        wanted = log.reader().entries([2, 0])
        with ground.tables.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO ledger_entry SELECT 'example.com/x', idx, x'00', leaf_hash FROM ledger_entry"
            )
        assert list(wanted) == [2, 0]
        assert log.reader().entries([2, 0]) == wanted == {at: log.reader().entry(at) for at in (2, 0)}


def test_a_log_that_is_not_there(ground):
    verifier = NoteVerifier("example.com/other", 1, ground.key.public)
    with pytest.raises(NotFound):
        LedgerReader(ground.tables, ground.blobs, verifiers=[verifier]).size()


QUERIES = st.builds(
    EntryQuery,
    kind=st.none() | st.sampled_from(KINDS),
    phase=st.none() | st.sampled_from(["intent", "outcome", "denied"]),
    principal=st.none() | st.sampled_from(PEOPLE),
    subject=st.none() | st.sampled_from([model.digest for model in MODELS]),
    since_ms=st.none() | st.integers(1_767_225_600_000, 1_767_225_622_000),
    until_ms=st.none() | st.integers(1_767_225_600_000, 1_767_225_622_000),
    limit=st.none() | st.integers(1, 50),
    newest_first=st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES)
def test_a_query_is_a_filtered_scan(history, query):
    reader, entries = history

    def wanted(entry):
        return (
            query.kind in {None, entry.act.kind}
            and query.phase in {None, str(entry.phase)}
            and query.principal in {None, entry.act.principal}
            and (query.subject is None or query.subject in [model.digest for model in entry.act.subject])
            and (query.since_ms is None or entry.time_ms >= query.since_ms)
            and (query.until_ms is None or entry.time_ms < query.until_ms)
        )

    expected = [index for index, entry in enumerate(entries) if wanted(entry)]
    expected = expected[::-1] if query.newest_first else expected
    assert [ref.index for ref in reader.query(query)] == expected[: query.limit]


@pytest.mark.parametrize("first", [0, 13, 27])
def test_who_asked_for_what_is_what_the_entries_since_a_time_say(history, first):
    reader, entries = history
    since_ms = entries[first].time_ms
    wanted = set()
    for data in (entry.encode(reader.origin) for entry in entries if entry.time_ms >= since_ms):
        event = decode_entry(data)
        ours = event["unmapped"]["stanch"]
        if ours["phase"] in {"intent", "denied"}:
            wanted.add((ours["kind"], event["actor"]["user"]["uid"], str(ours.get("subject", []))))
    found = {
        (kind, who, str(json.loads(subjects or "[]")))
        for (kind, subjects), principals in asked(reader, since_ms).items()
        for who in principals
    }
    assert found == wanted
    assert len({subjects for _, _, subjects in found}) == 4


def test_who_asked_is_kept_and_forgotten_as_time_goes_on(ground, monkeypatch):
    last, seen = LastAsked(), []
    with ground.create() as log:

        def ask(kind, who):
            ground.clock.seconds += 1
            time_ms = int(ground.clock() * 1000)
            log.append(intent(Act(kind=kind, id=new_act_id(time_ms), principal=who), time_ms=time_ms))
            return time_ms

        assert asked(log.reader(), 0, last) == {}  # the first entry of a log is not passed over for that
        first, second = ask("tune.run", PEOPLE[0]), ask("audit.run", PEOPLE[1])
        assert asked(log.reader(), first, last) == {
            ("tune.run", ""): frozenset({PEOPLE[0]}),
            ("audit.run", ""): frozenset({PEOPLE[1]}),
        }
        third = ask("tune.run", PEOPLE[1])
        monkeypatch.setattr(
            asked_module, "run", lambda connection, statement, at: seen.append(at) or run(connection, statement, at)
        )
        assert asked(log.reader(), second, last) == {
            ("tune.run", ""): frozenset({PEOPLE[1]}),
            ("audit.run", ""): frozenset({PEOPLE[1]}),
        }
        assert [at[1] for at in seen if len(at) == 3] == [2]  # of the entries, the new one alone
        seen.clear()
        asked(log.reader(), second, last)
        assert seen == [(log.origin,)]  # where the log ends, and nothing else
        assert asked(log.reader(), third, last) == {("tune.run", ""): frozenset({PEOPLE[1]})}
        assert asked(log.reader(), third + 1, last) == {}
        assert asked(log.reader(), first, last) == asked(log.reader(), first)  # a clock that goes back
        assert asked(log.reader(), first, last)["tune.run", ""] == frozenset(PEOPLE)


def test_a_query_by_act_finds_intent_and_outcome(history):
    reader, entries = history
    refs = list(reader.query(EntryQuery(act=entries[4].act.id)))
    assert [(ref.index, ref.act) for ref in refs] == [(4, entries[4].act.id), (5, entries[4].act.id)]
    states = [(one.index, one.phase, one.status) for one in reader.states(EntryQuery(act=entries[4].act.id))]
    assert states == [(4, "intent", 99), (5, "outcome", 1)]
    event = decode_entry(reader.entry(refs[0].index))
    assert event["metadata"]["correlation_uid"] == entries[4].act.id


def test_a_query_sees_entries_that_are_not_published_yet(ground):
    with ground.create() as log:
        log.append(ground.entry())
        assert len(list(log.reader().query(EntryQuery(kind="tune.run")))) == 1
        log.append(ground.entry())
        assert len(list(log.reader().query(EntryQuery(kind="tune.run")))) == 2


NARROW = {
    "act": (EntryQuery(act="a", phase="outcome"), "INDEX ledger_index_act ("),
    "principal": (EntryQuery(principal=PEOPLE[0], phase="intent"), "INDEX ledger_index_newest_of_principal ("),
    "principal, since": (EntryQuery(principal=PEOPLE[0], phase="intent", since_ms=0), "INDEX ledger_index_principal ("),
    "kind": (EntryQuery(kind="tune.run", phase="outcome", status=1), "INDEX ledger_index_newest_of_kind ("),
    "kind, before": (EntryQuery(kind="tune.run", phase="intent", before=30), "INDEX ledger_index_newest_of_kind ("),
    "kind, newest": (
        EntryQuery(kind="tune.run", phase="outcome", newest_first=True, limit=1),
        "INDEX ledger_index_newest_of_kind (",
    ),
    "kind of a principal": (
        EntryQuery(kind="tune.run", principal=PEOPLE[0], limit=5),
        "INDEX ledger_index_newest_of_principal (",
    ),
    "subject": (
        EntryQuery(subject=MODELS[0].digest, kind="tune.run", phase="outcome"),
        "PRIMARY KEY (origin=? AND idx=?)",
    ),
    "kind, since": (EntryQuery(kind="tune.run", phase="outcome", since_ms=0), "INDEX ledger_index_kind ("),
    "kind, since, newest": (
        EntryQuery(kind="tune.run", since_ms=0, newest_first=True, limit=5),
        "INDEX ledger_index_newest_of_kind (",
    ),
    "state, since": (EntryQuery(phase="outcome", status=2, since_ms=0), "INDEX ledger_index_state ("),
    "state, newest": (EntryQuery(phase="outcome", status=2, newest_first=True, limit=5), ""),
}


@pytest.mark.parametrize(("query", "by"), NARROW.values(), ids=list(NARROW))
def test_a_narrow_query_does_not_read_the_whole_log(history, query, by, monkeypatch):
    plans = []

    def explain(connection, statement, parameters=()):
        plans.extend(row[3] for row in run(connection, f"EXPLAIN QUERY PLAN {statement}", parameters))
        return run(connection, statement, parameters)

    reader, _ = history
    list(reader.query(query))  # the index is up to date
    monkeypatch.setattr(index, "run", explain)
    list(reader.query(query))
    (of_index,) = [plan for plan in plans if plan.startswith(("SEARCH i ", "SCAN i"))]
    assert by in of_index
    # What is found by time or by state is sorted, but never where a limit ends the walk.
    is_sorted = query.limit is None and (query.since_ms, query.status) != (None, None)
    assert ("USE TEMP B-TREE FOR ORDER BY" in plans) == is_sorted


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(history, limit):
    with pytest.raises(InvalidInput):
        list(history[0].query(EntryQuery(limit=limit)))


def test_hostile_text_is_a_value_and_never_a_statement(history):
    reader, entries = history
    assert not list(reader.query(EntryQuery(kind="x' OR '1'='1", act="'; DROP TABLE ledger_entry; --")))
    assert len(list(reader.tail())) == len(entries)


def test_checkpoints_are_consistent(ground):
    with ground.create() as log:
        ground.fill(log, 5)
        old = log.publish().checkpoint
        ground.fill(log, 400)
        new = log.publish().checkpoint
        path = log.reader().prove_consistency(old.size, new.size)
        verify_consistency(old.size, old.root, new.size, new.root, path)


def test_a_subject_that_stands_twice_is_indexed_once(ground):
    entry = ground.entry()
    entry = replace(entry, act=replace(entry.act, subject=(MODELS[0], MODELS[0])))
    with ground.create() as log:
        log.append(entry)
        assert len(list(log.reader().query(EntryQuery(subject=MODELS[0].digest)))) == 1
