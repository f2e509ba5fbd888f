"""Approvals: counted once, for one request, by others; and nothing else counts."""

import dataclasses
import json

import pytest

from stanch.access import Approval, ApprovalStatement, sign_approval
from stanch.access.approval import approvals_digest
from stanch.crypto import SigningKey, canonical_json, frame
from stanch.errors import ApprovalsMissing, Conflict, InvalidInput, NotAuthenticated
from stanch.terms import Digest

REQUEST = Digest.sha256(b"request")
OTHER = Digest.sha256(b"another request")
HOUR = 3_600_000


def statement(people, approver, **changes):
    values = {
        "request": REQUEST,
        "approver": approver,
        "origin": people.directory.origin,
        "created_ms": people.now_ms,
        "expires_ms": people.now_ms + HOUR,
    }
    return ApprovalStatement(**(values | changes))


def approve(people, approver, **changes):
    return people.approvals.record_approval(
        sign_approval(people.keys[approver], statement(people, approver, **changes))
    )


def count(people, request=REQUEST, **options):
    return people.approvals.count_approvals(request, requester="p_requester", **options)


@pytest.fixture
def pair(people):
    return people.add("anna"), people.add("ben")


def test_golden_approval(load):
    golden = load("approval.json")
    parsed = ApprovalStatement.parse(golden["statement"].encode())
    approval = sign_approval(SigningKey.from_seed(bytes.fromhex(golden["seed"])), parsed)
    assert approval.statement.decode() == golden["statement"]
    assert (approval.key_id, approval.signature.hex()) == (golden["key_id"], golden["signature"])


def test_each_person_counts_once(people, pair):
    assert count(people) == 0
    approve(people, pair[0])
    approve(people, pair[0])
    assert count(people) == 1
    approve(people, pair[1])
    assert count(people) == 2


def test_requester_and_involved_do_not_count(people, pair):
    for person in pair:
        approve(people, person)
    assert people.approvals.count_approvals(REQUEST, requester=pair[0]) == 1
    assert count(people, involved=pair[:1]) == 1
    assert count(people, involved=pair) == 0


def test_an_approval_is_for_its_request_only(people, pair):
    for person in pair:
        approve(people, person)
    assert count(people, OTHER) == 0


def test_an_approval_copied_to_another_request_does_not_count(people, pair):
    approve(people, pair[0])
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE approval SET request_digest = ?", (str(OTHER),))
    assert count(people, OTHER) == 0
    assert count(people) == 0


def test_an_approval_copied_to_another_person_does_not_count(people, pair):
    approve(people, pair[0])
    with people.tables.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO approval SELECT request_digest, ?, key_id, statement, signature, expires_ms, created_ms,"
            " consumed_by FROM approval",
            (pair[1],),
        )
    assert count(people) == 1


def test_a_forged_row_does_not_count(people, pair):
    forged = statement(people, pair[0])
    with people.tables.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO approval (request_digest, principal, key_id, statement, signature, expires_ms, created_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (str(REQUEST), pair[0], people.keys[pair[0]].key_id, forged.to_bytes(), bytes(64), 2**50, 0),
        )
    assert count(people) == 0
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE approval SET statement = x'7b7d'")
    assert count(people) == 0


def test_an_expired_approval_does_not_count_whatever_its_column_says(people, pair):
    approve(people, pair[0])
    people.clock.seconds += HOUR / 1000 - 0.001
    assert count(people) == 1
    people.clock.seconds += 0.001
    assert count(people) == 0
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE approval SET expires_ms = expires_ms * 2")
    assert count(people) == 0


def test_an_expired_approval_can_be_given_again(people, pair):
    approve(people, pair[0])
    people.clock.seconds += HOUR
    approve(people, pair[0])
    assert count(people) == 1


def test_suspension_and_a_revoked_key_take_an_approval_back(people, pair):
    for person in pair:
        approve(people, person)
    people.directory.suspend(pair[0])
    assert count(people) == 1
    people.replace_key(people.keys[pair[1]].key_id)
    assert count(people) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "example.com/other"},
        {"expires_ms": 1_767_225_600_000},
        {"expires_ms": 0},
        {"created_ms": 1_767_225_600_000 + 60_001},
    ],
)
def test_statements_that_do_not_count_are_not_recorded(people, pair, changes):
    with pytest.raises(InvalidInput):
        approve(people, pair[0], **changes)
    assert count(people) == 0


def test_a_clock_may_be_a_minute_behind_the_approvers(people, pair):
    approve(people, pair[0], created_ms=people.now_ms + 60_000)
    assert count(people) == 1
    people.clock.seconds -= 0.001
    assert count(people) == 0


def test_a_statement_has_4096_bytes_at_most(people, pair):
    room = 4096 - len(statement(people, pair[0], origin="").to_bytes())
    longest = statement(people, pair[0], origin="o" * room)
    assert ApprovalStatement.parse(longest.to_bytes()) == longest
    with pytest.raises(InvalidInput):
        ApprovalStatement.parse(dataclasses.replace(longest, origin="o" * (room + 1)).to_bytes())


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("UPDATE credential SET kind = 'other'", 0),
        ("UPDATE credential SET not_before_ms = 1767225600001", 0),
        ("UPDATE credential SET not_before_ms = 1767225600000", 1),
        ("UPDATE credential SET expires_ms = 1767225600000", 0),
        ("UPDATE credential SET expires_ms = 1767225600001", 1),
        ("UPDATE credential SET revoked_ms = 1", 0),
        ("UPDATE principal SET kind = 'service'", 0),
        ("UPDATE principal SET issuer = NULL", 0),
    ],
)
def test_an_approval_counts_while_its_key_and_its_approver_do(people, change, counts):
    anna = people.add("anna")
    approve(people, anna)
    key = people.keys[anna]
    assert people.approvals.key_of(anna, key.key_id) == key.public
    with people.tables.write() as connection:
        connection.exec_driver_sql(change)
    assert count(people) == counts
    assert (people.approvals.key_of(anna, key.key_id) is not None) is bool(counts)


def test_a_key_in_the_row_of_another_does_not_sign_for_it(people, pair):
    """Whoever can write the table cannot put a key of their own behind the name of a registered one."""
    own = SigningKey.from_seed(bytes(32))
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE credential SET public = ? WHERE principal = ?", (own.public.raw, pair[0]))
    forged = dataclasses.replace(sign_approval(own, statement(people, pair[0])), key_id=people.keys[pair[0]].key_id)
    with pytest.raises(NotAuthenticated):
        people.approvals.record_approval(forged)
    assert people.approvals.key_of(pair[0], people.keys[pair[0]].key_id) is None
    assert people.approvals.key_of(pair[0], people.keys[pair[1]].key_id) is None


def test_only_the_approvers_own_registered_key_signs(people, pair):
    anna, ben = pair
    good = statement(people, anna)
    stranger = SigningKey.from_seed(bytes(32))
    signed = sign_approval(people.keys[anna], good)
    cases = [
        sign_approval(people.keys[ben], good),
        sign_approval(stranger, good),
        dataclasses.replace(sign_approval(stranger, good), key_id=people.keys[anna].key_id),
        dataclasses.replace(signed, signature=b""),
        Approval(statement(people, anna, request=OTHER).to_bytes(), signed.key_id, signed.signature),
    ]
    for approval in cases:
        with pytest.raises(NotAuthenticated):
            people.approvals.record_approval(approval)
    assert count(people) == count(people, OTHER) == 0


def test_a_session_signature_is_no_approval(people, pair):
    data = statement(people, pair[0]).to_bytes()
    key = people.keys[pair[0]]
    with pytest.raises(NotAuthenticated):
        people.approvals.record_approval(Approval(data, key.key_id, key.sign(data)))


def test_a_service_does_not_approve(people):
    bot = people.add("bot", kind="service")
    with pytest.raises(NotAuthenticated):
        approve(people, bot)


def consume(people, act="act", **options):
    with people.tables.write() as connection:
        return people.approvals.consume(connection, REQUEST, act=act, requester="p_requester", **options)


def test_approvals_are_used_up_once(people, pair):
    for person in pair:
        approve(people, person)
    assert consume(people) == tuple(sorted(pair))
    assert count(people) == 0
    with pytest.raises(ApprovalsMissing):
        consume(people, act="replay")
    for person in pair:
        with pytest.raises(Conflict, match="used already"):
            approve(people, person)
    with people.tables.read() as connection:
        assert set(connection.exec_driver_sql("SELECT consumed_by FROM approval").scalars()) == {"act"}


def test_an_act_sees_the_approvals_that_it_used_and_no_other_act_does(people, pair):
    for person in pair:
        approve(people, person)
    consume(people)

    def seen(**options):
        return people.approvals.counted(REQUEST, requester="p_requester", **options)

    assert seen() == seen(act="") == seen(act="other") == ()
    statements = [ApprovalStatement.parse(one.statement) for one in seen(act="act")]
    assert [one.approver for one in statements] == sorted(pair)
    assert len(seen(act="act", involved=pair[:1])) == 1


def test_an_act_that_comes_second_in_the_same_moment_uses_nothing(people, pair, monkeypatch):
    for person in pair:
        approve(people, person)
    read = people.approvals._approvals

    def overtaken(connection, *args, **options):
        rows = read(connection, *args, **options)
        connection.exec_driver_sql("UPDATE approval SET consumed_by = 'first' WHERE principal = ?", (pair[0],))
        return rows

    monkeypatch.setattr(people.approvals, "_approvals", overtaken)
    with pytest.raises(ApprovalsMissing, match="in this very moment"):
        consume(people)
    monkeypatch.undo()
    assert count(people) == 2  # the transaction took back what both did


def test_the_digest_of_approvals_is_of_each_statement_and_signature_in_order(people, pair):
    one, two = (sign_approval(people.keys[person], statement(people, person)) for person in pair)
    parts = (b"stanch/access/v1/approval", one.statement, one.signature, two.statement, two.signature)
    assert approvals_digest([one, two]) == Digest.sha256(frame(*parts))


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_an_act_says_how_many_it_needs(people, pair, needed):
    for person in pair:
        approve(people, person)
    if needed <= 2:
        assert consume(people, needed=needed) == tuple(sorted(pair))
    else:
        with pytest.raises(ApprovalsMissing, match="expected 3, found 2"):
            consume(people, needed=needed)


def test_too_few_approvals_are_left_as_they_are(people, pair):
    approve(people, pair[0])
    with pytest.raises(ApprovalsMissing, match="expected 2, found 1"):
        consume(people)
    approve(people, pair[1])
    with pytest.raises(ApprovalsMissing):
        consume(people, involved=(pair[0],))
    assert count(people) == 2


def test_a_transaction_that_fails_gives_them_back(people, pair):
    for person in pair:
        approve(people, person)
    with pytest.raises(ZeroDivisionError), people.tables.write() as connection:
        len(people.approvals.consume(connection, REQUEST, act="a", requester="p_r")) / 0
    assert count(people) == 2


def test_an_approval_that_did_not_count_is_not_consumed(people, pair):
    third = people.add("carl")
    for person in (*pair, third):
        approve(people, person)
    consume(people, involved=(third,))
    with people.tables.read() as connection:
        left = connection.exec_driver_sql("SELECT principal FROM approval WHERE consumed_by IS NULL").scalars().all()
    assert left == [third]


GOOD = json.loads(ApprovalStatement(request=REQUEST, approver="p_a", origin="o", created_ms=1, expires_ms=2).to_bytes())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"x" * 5000,
        canonical_json(GOOD | {"type": "urn:stanch:approval:v2"}),
        canonical_json(GOOD | {"extra": 1}),
        canonical_json({name: value for name, value in GOOD.items() if name != "origin"}),
        canonical_json(GOOD | {"created_ms": "1"}),
        canonical_json(GOOD | {"expires_ms": True}),
        canonical_json(GOOD | {"expires_ms": 2.5}),
        canonical_json(GOOD | {"request": "sha256:00"}),
        canonical_json(GOOD | {"request": None}),
        canonical_json(GOOD | {"approver": 5}),
        canonical_json(GOOD | {"origin": ["o"]}),
        canonical_json(GOOD) + b"\n",
        json.dumps(GOOD).encode(),
    ],
)
def test_malformed_statements_are_refused(data):
    with pytest.raises(InvalidInput):
        ApprovalStatement.parse(data)


def test_a_good_statement_is_read():
    assert ApprovalStatement.parse(canonical_json(GOOD)).approver == "p_a"
