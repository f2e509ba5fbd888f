"""The control API: bearer keys alone, problems, pages of lists, repeated requests, and generated requests."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from seating import ADDRESS

from stanch.access import ApiKeyOrder
from stanch.console.openapi import describe
from stanch.console.pages.paging import Paged, take
from stanch.console.route import API
from stanch.console.routes import ROUTES
from stanch.errors import InvalidInput
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer

READ = ("log:read", "policy:read")


def key_of(seat, *, roles=("auditor",), actions=READ, networks=("127.0.0.0/8",), name="bot"):
    bot = register_newcomer(seat.workspace, Newcomer(name=name, kind="service", roles=roles))
    order = ApiKeyOrder(principal=bot, models=("workspace",), networks=networks, actions=actions)
    return issue_key(seat.workspace, order)[1].text


def with_key(seat, text):
    client = seat.client()
    client.headers["Authorization"] = f"Bearer {text}"
    return client


@pytest.fixture(scope="module")
def reader(seated):
    return with_key(seated, key_of(seated))


def test_a_key_reads_what_its_actions_and_its_service_may(seated, reader):
    found = reader.get(f"{API}/models").json()
    assert [model["gate"] for model in found["models"]] == ["passed"]
    assert reader.get(f"{API}/releases/r1").json()["release"]["proposer"] == "dana"
    entry = reader.get(f"{API}/log/0").json()
    assert entry["proof"].startswith("c2sp.org/tlog-proof@v1\n")
    only_log = with_key(seated, key_of(seated, actions=("log:read",), name="bot2"))
    assert only_log.get(f"{API}/log").status_code == 200
    assert only_log.get(f"{API}/settings").status_code == 403
    idle = with_key(seated, key_of(seated, roles=(), name="bot3"))
    assert idle.get(f"{API}/log").status_code == 403
    elsewhere = with_key(seated, key_of(seated, networks=("192.0.2.0/24",), name="bot4"))
    assert elsewhere.get(f"{API}/log").status_code == 401


def test_a_cookie_is_no_key(seated):
    answer = seated.browser("ada").get(f"{API}/log")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["type"] == "urn:stanch:problem:not-authenticated"


def test_errors_are_problems(reader):
    for path, status in (
        ("/log?limit=201", 400), ("/log?nonsense=1", 400), ("/log?kind=a&kind=b", 400), ("/log/999999", 404),
        ("/log/x", 404), ("/releases/r9", 404), ("/nowhere", 404), ("/models/sha256:x", 404),
    ):  # fmt: skip
        answer = reader.get(API + path)
        assert (path, answer.status_code) == (path, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


def test_a_list_comes_in_parts(reader):
    names, after = [], ""
    while True:
        page = reader.get(f"{API}/principals", params={"limit": 2, **({"after": after} if after else {})}).json()
        names += [row["id"] for row in page["principals"]]
        after = page["next"]
        if not after:
            break
    assert names == sorted(names)
    assert len(names) == len(set(names)) >= 8
    first = reader.get(f"{API}/log", params={"limit": 3}).json()
    second = reader.get(f"{API}/log", params={"limit": 3, "before": first["next"]}).json()
    assert second["rows"][0]["index"] == first["rows"][-1]["index"] - 1


@given(st.sets(st.text(max_size=5), max_size=20), st.integers(1, 7))
@settings(max_examples=15)
def test_parts_of_any_list_are_the_list(rows, limit):
    found, after = [], ""
    rows = sorted(rows - {""})
    for _ in range(len(rows) + 1):
        part, after = take(rows, str, Paged(after, limit))
        found += part
        if not after:
            break
    assert found == rows


def test_a_repeated_request_is_done_once(seated, reader):
    log = seated.workspace.ledger.reader()
    key = {"Idempotency-Key": "one"}
    first = reader.post(f"{API}/log/verify", json={}, headers=key)
    size = log.size()
    again = reader.post(f"{API}/log/verify", json={}, headers=key)
    assert (first.status_code, again.content, log.size()) == (200, first.content, size)
    other = reader.post(f"{API}/log/verify", json={}, headers={"Idempotency-Key": "two"})
    assert other.json()["size"] > first.json()["size"]
    assert reader.post(f"{API}/policies/check", json={"text": "x"}, headers=key).status_code == 400
    assert reader.post(f"{API}/log/verify", json={}, headers={"Idempotency-Key": "x" * 256}).status_code == 400


def test_a_key_of_a_request_is_good_for_that_one(seated):
    replies = seated.app.serving._replies
    name = replies.name("p", "POST /x", "key")
    with pytest.raises(ZeroDivisionError), replies.once(name, b"asked"):
        raise ZeroDivisionError
    with replies.once(name, b"asked") as reply:
        assert reply.body is None  # an error was no answer
        with pytest.raises(InvalidInput, match="not ended"), replies.once(name, b"asked"):
            pass
        reply.give(b"{}")
    with pytest.raises(InvalidInput, match="another request"), replies.once(name, b"other"):
        pass


def test_every_operation_is_described():
    document = describe(ROUTES)
    assert document["openapi"] == "3.1.0"
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations) == sum(r.for_programs for r in ROUTES)
    assert all(op["summary"].endswith(".") for op in operations)


OPERATIONS = [operation.ok() for operation in schemathesis.openapi.from_dict(describe(ROUTES)).get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_generated_requests_find_no_error_of_ours(reader, operation):
    @given(case=operation.as_strategy())
    @settings(
        max_examples=3, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def run(case):
        sent = case.as_transport_kwargs(base_url=ADDRESS)
        sent["headers"] = {
            name: value for name, value in dict(sent.get("headers") or {}).items() if name.lower() != "authorization"
        }
        sent.pop("cookies", None)
        answer = reader.request(
            sent["method"], sent["url"], headers=sent["headers"], params=sent.get("params"), json=sent.get("json")
        )
        assert answer.status_code < 500, answer.text
        assert answer.headers["content-type"] in {"application/json", "application/problem+json"}

    run()
