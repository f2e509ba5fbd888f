"""The witness: every answer of the sans-IO core, durability, the HTTP face, and the log that asks it."""

import asyncio
import contextlib
import socket
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import EMPTY_ROOT, SigningKey, consistency_path, leaf_hash, merkle_root, sha256
from stanch.errors import (
    ExternalError,
    InvalidInput,
    LedgerUnavailable,
    LogRolledBack,
    MissingExtraError,
    NotFound,
    ProofInvalid,
    QuorumUnmet,
    StoreError,
)
from stanch.ledger import Cosigner, LedgerParams, TrustPolicy, Witness, verify_proof, witness_client, witness_http
from stanch.ledger import log as log_module
from stanch.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from stanch.ledger.hashes import TileHashes
from stanch.ledger.integrate import integrate
from stanch.ledger.note import NoteSigner, parse_note, sign_note
from stanch.ledger.witness import AddCheckpoint, WitnessState, add_checkpoint
from stanch.ledger.witness_client import WitnessClient, fetch_note
from stanch.ledger.witness_http import WitnessApp, serve
from stanch.ledger.witness_store import WitnessStore
from stanch.store import open_tables
from stanch.store.http import HttpRequest, HttpResponse, exchange
from stanch.store.schema.ledger import ledger_cosignature, witness_evidence, witness_log

NOW = 1_767_225_600
LOG = NoteSigner("example.com/stanch/log", SigningKey.from_seed(bytes(range(32))))
WITNESS = Cosigner("example.com/stanch/witness", SigningKey.from_seed(bytes(range(32, 64))))
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]


def checkpoint(size, leaves=LEAVES):
    return Checkpoint(LOG.name, size, merkle_root(leaves[:size]))


def request(old, size, leaves=LEAVES, **changes):
    note = sign_checkpoint(checkpoint(size, leaves), LOG).note
    path = consistency_path(leaves[:size], old) if old <= size else []
    return AddCheckpoint(**{"old_size": old, "path": tuple(path), "note": note} | changes).to_bytes()


def state(size=0):
    last = {LOG.name: checkpoint(size)} if size else {}
    return WitnessState(WITNESS, (LOG.verifier,), last)


def answer(body, size=0):
    return add_checkpoint(state(size), body, lambda: NOW)


@pytest.mark.parametrize(("old", "size"), [(0, 0), (0, 1), (0, 7), (3, 7), (4, 7), (7, 7), (7, 40), (39, 40)])
def test_an_extension_is_cosigned(old, size):
    reply = answer(request(old, size), old)
    assert reply.status == 200
    note = sign_checkpoint(checkpoint(size), LOG).note + reply.body
    opened = open_checkpoint(note, [LOG.verifier, WITNESS.verifier])
    assert [(s.name, s.time_s) for s in opened.cosignatures] == [(WITNESS.name, NOW)]
    assert reply.record.checkpoint == checkpoint(size)
    assert reply.record.note == note
    assert not reply.evidence


def test_the_golden_cosignature(load):
    golden = load("note/checkpoint.json")
    log = NoteSigner(golden["origin"], SigningKey.from_seed(bytes.fromhex(golden["seed"])))
    body = AddCheckpoint(0, (), golden["note"].encode()).to_bytes()
    reply = add_checkpoint(WitnessState(WITNESS, (log.verifier,)), body, lambda: int(golden["witness_time"]))
    assert reply.body.decode() == golden["witness_line"] + ("" if golden["witness_line"].endswith("\n") else "\n")


OTHER = [*LEAVES[:3], *(leaf_hash(b"other" + bytes([number])) for number in range(37))]
STRANGER = NoteSigner("example.com/other/log", SigningKey.from_seed(bytes(32)))
IMPOSTOR = NoteSigner(LOG.name, SigningKey.from_seed(bytes(32)))


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("empty", b"", 400),
        ("no old line", request(7, 9).removeprefix(b"old "), 400),
        ("old with a leading zero", request(7, 9).replace(b"old 7", b"old 07"), 400),
        ("old with a sign", request(7, 9).replace(b"old 7", b"old -7"), 400),
        ("old too large for a log", request(7, 9).replace(b"old 7", b"old 9223372036854775808"), 400),
        ("not ASCII", request(7, 9).replace(b"old 7", "old ٧".encode()), 400),
        ("64 hashes", request(7, 9, path=(bytes(32),) * 64), 400),
        ("a hash of 31 bytes", request(7, 9, path=(bytes(31),)), 400),
        ("a hash of 31 bytes behind a good one", request(7, 9, path=(bytes(32), bytes(31))), 400),
        ("not base64", request(7, 9).replace(b"\n", b"\n!!\n", 1), 400),
        ("no empty line", request(7, 9).replace(b"\n\n", b"\n", 1), 400),
        ("no checkpoint", b"old 7\n\n", 400),
        ("not a checkpoint", AddCheckpoint(7, (), sign_note("one line\n", [LOG])).to_bytes(), 400),
        ("a line too many", AddCheckpoint(7, (), sign_note(checkpoint(9).text() + "more\n", [LOG])).to_bytes(), 400),
        ("too long", request(7, 9) + b"x" * (128 << 10), 400),
        ("a malformed signature line", request(7, 9) + b"nonsense\n", 400),
        ("old size above the checkpoint's", request(8, 7), 400),
        (
            "unknown log",
            AddCheckpoint(0, (), sign_note(f"{STRANGER.name}\n0\n{'A' * 43}=\n", [STRANGER])).to_bytes(),
            404,
        ),
        ("signed by another key", AddCheckpoint(7, (), sign_checkpoint(checkpoint(9), IMPOSTOR).note).to_bytes(), 403),
        ("a spoilt signature", request(7, 9)[:-9] + b"AAAAAAA=\n", 403),
        ("old size too small", request(3, 9), 409),
        ("old size 0", request(0, 9), 409),
        ("old size too large", request(8, 9), 409),
        ("a hash left out", request(7, 9, path=tuple(consistency_path(LEAVES[:9], 7)[1:])), 422),
        ("a hash too many", request(7, 9, path=(*consistency_path(LEAVES[:9], 7), bytes(32))), 422),
        ("another history", request(7, 9, OTHER), 422),
        ("the same size with another root", request(7, 7, OTHER), 422),
        ("proof lines at the same size", request(7, 7, path=(bytes(32),)), 422),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_else_is_refused(name, body, status):  # noqa: ARG001 - name is the test's id
    reply = answer(body, 7)
    assert reply.status == status, reply
    assert reply.record is None
    assert reply.evidence == (status == 422)
    if status == 409:
        assert (reply.body, reply.content_type) == (b"7\n", "text/x.tlog.size")


@pytest.mark.parametrize(
    "body",
    [
        request(0, 5, path=(bytes(32),)),
        AddCheckpoint(0, (), sign_checkpoint(Checkpoint(LOG.name, 0, bytes(32)), LOG).note).to_bytes(),
    ],
    ids=["proof lines from size 0", "the empty tree with a root"],
)
def test_a_witness_that_saw_nothing_refuses_what_cannot_be(body):
    assert answer(body).status == 422


def test_the_limits_of_a_request_are_exact():
    longest = AddCheckpoint(2**63 - 1, (bytes(32),) * 63, b"note")
    assert AddCheckpoint.parse(longest.to_bytes()) == longest
    with pytest.raises(ProofInvalid, match="at most 63 hashes, found 64"):
        AddCheckpoint.parse(AddCheckpoint(0, (bytes(32),) * 64, b"").to_bytes())
    room = (128 << 10) - len(b"old 0\n\n")
    assert len(AddCheckpoint.parse(b"old 0\n\n" + bytes(room)).note) == room
    with pytest.raises(ProofInvalid, match="131072 bytes, found 131073"):
        AddCheckpoint.parse(b"old 0\n\n" + bytes(room + 1))
    for head in (b"old 7", b"old 7\n", b"7\n\n"):
        with pytest.raises(ProofInvalid, match="expected a line 'old N'"):
            AddCheckpoint.parse(head)


def test_checks_stand_in_their_order():
    """403 before 400 for the sizes, and the size conflict before the proof."""
    forged = AddCheckpoint(12, (), sign_checkpoint(checkpoint(9), IMPOSTOR).note).to_bytes()
    assert answer(forged, 7).status == 403
    assert answer(request(8, 9, OTHER), 7).status == 409


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 40))
def test_changed_bytes_are_never_cosigned_as_something_else(noise, position, cut):
    body = request(7, 9)
    reply = answer(body[:position] + noise + body[position + cut :], 7)
    if reply.status == 200:
        assert reply.record.checkpoint == checkpoint(9)


def test_lines_of_others_are_not_served():
    other = Cosigner("w.example", SigningKey.from_seed(bytes(32)))
    note = sign_checkpoint(checkpoint(9), LOG).note
    body = request(0, 9, note=note + other.cosign(checkpoint(9).text(), NOW).encode())
    reply = answer(body)
    assert [name for name, _ in parse_note(reply.record.note).signatures] == [LOG.name, WITNESS.name]


def test_a_log_under_two_keys_is_served_with_both_and_each_once():
    new = NoteSigner(LOG.name, SigningKey.from_seed(bytes(range(64, 96))))
    text = checkpoint(9).text()
    both = sign_checkpoint(checkpoint(9), new, LOG).note
    body = request(0, 9, note=both + STRANGER.line(text).encode() + new.line(text).encode())
    reply = add_checkpoint(WitnessState(WITNESS, (LOG.verifier, new.verifier)), body, lambda: NOW)
    assert reply.record.note == both + WITNESS.cosign(text, NOW).encode()


# The store and the HTTP face


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def call(name="witness", keys=(LOG.verifier,), clock=lambda: NOW):
        path = tmp_path / f"{name}.db"
        opened.append(open_tables(f"sqlite:{path}", create=not path.exists()))
        return WitnessStore(opened[-1], WITNESS, keys, clock=clock)

    yield call
    for tables in opened:
        tables.close()


def test_what_was_cosigned_is_durable_and_compared(open_store):
    store = open_store()
    assert store.add_checkpoint(request(0, 7)).status == 200
    again = open_store()
    assert again.add_checkpoint(request(0, 9)).body == b"7\n"
    assert again.add_checkpoint(request(7, 9)).status == 200
    assert store.add_checkpoint(request(7, 12)).body == b"9\n"
    digest = sha256(LOG.name.encode()).hex()
    assert open_checkpoint(store.note(digest), [LOG.verifier]).checkpoint == checkpoint(9)
    with pytest.raises(NotFound):
        store.note("0" * 64)


def test_the_offending_note_is_kept_once_as_evidence(open_store):
    store = open_store()
    store.add_checkpoint(request(0, 7))
    fork = request(7, 9, OTHER)
    for _ in range(2):
        assert store.add_checkpoint(fork).status == 422
    assert store.evidence(LOG.name) == [fork]
    assert open_checkpoint(AddCheckpoint.parse(fork).note, [LOG.verifier]).checkpoint == checkpoint(9, OTHER)
    assert store.add_checkpoint(request(7, 9)).status == 200


def test_evidence_stands_beside_what_was_cosigned_at_that_time(open_store):
    store = open_store(clock=lambda: NOW + 0.5)
    impossible, fork = request(0, 5, path=(bytes(32),)), request(7, 9, OTHER)
    store.add_checkpoint(impossible)
    store.add_checkpoint(request(0, 7))
    cosigned = store.note(sha256(LOG.name.encode()).hex())
    store.add_checkpoint(fork)
    with store._tables.read() as connection:
        kept = connection.execute(witness_evidence.select()).all()
    assert {(row.request, row.cosigned, row.received_ms) for row in kept} == {
        (impossible, b"", NOW * 1000 + 500),
        (fork, cosigned, NOW * 1000 + 500),
    }


@pytest.mark.parametrize("most", [1, 2])
def test_evidence_is_bounded(open_store, monkeypatch, most):
    monkeypatch.setattr("stanch.ledger.witness_store._MAX_EVIDENCE", most)
    store = open_store()
    store.add_checkpoint(request(0, 3))
    for size in range(4, 10):
        assert store.add_checkpoint(request(3, size, OTHER, path=(bytes(32),))).status == 422
    assert len(store.evidence(LOG.name)) == most


def test_logs_do_not_mix(open_store, monkeypatch):
    monkeypatch.setattr("stanch.ledger.witness_store._MAX_EVIDENCE", 1)
    new = NoteSigner(LOG.name, SigningKey.from_seed(bytes(range(64, 96))))
    store = open_store(keys=(LOG.verifier, STRANGER.verifier, new.verifier))

    def of_stranger(old, size, leaves=LEAVES):
        note = sign_checkpoint(Checkpoint(STRANGER.name, size, merkle_root(leaves[:size])), STRANGER).note
        return request(old, size, leaves, note=note)

    assert [store.add_checkpoint(body).status for body in (request(0, 7), of_stranger(0, 5))] == [200, 200]
    forks = {LOG.name: request(7, 9, OTHER), STRANGER.name: of_stranger(5, 9, OTHER)}
    for origin, fork in forks.items():
        assert store.add_checkpoint(fork).status == 422
        assert store.evidence(origin) == [fork]
    assert store.add_checkpoint(request(7, 8)).status == 200
    assert store.add_checkpoint(of_stranger(5, 6)).status == 200
    for name, size in ((LOG.name, 8), (STRANGER.name, 6)):
        note = store.note(sha256(name.encode()).hex())
        assert open_checkpoint(note, [LOG.verifier, STRANGER.verifier]).checkpoint.size == size
    with store._tables.read() as connection:
        known = {row.origin: row.vkeys for row in connection.execute(witness_log.select())}
    assert known == {LOG.name: f"{LOG.verifier.vkey} {new.verifier.vkey}", STRANGER.name: STRANGER.verifier.vkey}


def test_of_two_racing_requests_one_wins(open_store):
    open_store().add_checkpoint(request(0, 7))
    stores, replies = [open_store() for _ in range(4)], []
    sizes = [9, 12, 20, 33]
    threads = [
        threading.Thread(target=lambda s=store, n=size: replies.append(s.add_checkpoint(request(7, n)).status))
        for store, size in zip(stores, sizes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200, 409, 409, 409]


def test_a_witness_watches_logs_only(open_store):
    for keys in ((), (WITNESS.verifier,), (LOG.verifier, WITNESS.verifier)):
        with pytest.raises(InvalidInput, match="keys of logs, of type 01"):
            open_store(keys=keys)


def call_app(app, method, path, body=b""):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    asyncio.run(app({"type": "http", "method": method, "path": path}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_the_application_has_two_pages(open_store):
    store = open_store()
    app, page = WitnessApp(store), f"/{sha256(LOG.name.encode()).hex()}/checkpoint"
    assert call_app(app, "GET", page)[0] == 404
    status, headers, line = call_app(app, "POST", "/add-checkpoint", request(0, 7))
    assert (status, headers[b"content-type"]) == (200, b"text/plain; charset=utf-8")
    status, headers, note = call_app(app, "GET", page)
    assert (status, note) == (200, sign_checkpoint(checkpoint(7), LOG).note + line)
    assert headers[b"content-length"] == str(len(note)).encode()
    assert call_app(app, "HEAD", page) == (200, headers, b"")
    status, headers, body = call_app(app, "POST", "/add-checkpoint", request(0, 9))
    assert (status, headers[b"content-type"], body) == (409, b"text/x.tlog.size", b"7\n")
    for method, path, status, told in [
        ("GET", "/add-checkpoint", 405, b"only POST\n"),
        ("POST", page, 405, b"only GET\n"),
        ("GET", "/", 404, b"no such page\n"),
        ("GET", f"/{64 * '0'}/checkpoint", 404, b"witness: nothing was cosigned of that log\n"),
    ]:
        assert call_app(app, method, path)[::2] == (status, told)
    assert call_app(app, "POST", "/add-checkpoint", b"x" * (1 << 20))[0] == 400


def test_a_body_is_read_in_pieces_up_to_one_byte_too_many(monkeypatch):
    monkeypatch.setattr(witness_http, "MAX_REQUEST", 4)

    def read(*messages):
        left = list(messages)

        async def receive():
            return left.pop(0)

        return asyncio.run(witness_http._read(receive)), len(left)

    def piece(body, **more):
        return {"type": "http.request", "body": body, **more}

    assert read(piece(b"ab", more_body=True), {"type": "http.request", "more_body": True}, piece(b"c")) == (b"abc", 0)
    assert read(piece(b"abcd", more_body=True), piece(b"")) == (b"abcd", 0)
    assert read(piece(b"abcde", more_body=True), piece(b"f")) == (b"abcde", 1)
    assert read(piece(b"ab", more_body=True), {"type": "http.disconnect", "more_body": True}, piece(b"c")) == (b"ab", 1)


def test_a_database_that_fails_cosigns_nothing(open_store):
    store = open_store()
    with store._tables.write() as connection:
        connection.exec_driver_sql("DROP TABLE witness_log")
    status, _, body = call_app(WitnessApp(store), "POST", "/add-checkpoint", request(0, 7))
    assert (status, body) == (503, b"the witness cannot keep what it would sign\n")


@pytest.fixture
def served(open_store, monkeypatch):
    """A witness behind a real server on loopback; its URL and its store."""
    import uvicorn  # noqa: PLC0415 - of an extra

    kept = []

    class Kept(uvicorn.Server):
        def __init__(self, *args):
            super().__init__(*args)
            kept.append(self)

        @contextlib.contextmanager
        def capture_signals(self):
            yield

    monkeypatch.setattr(uvicorn, "Server", Kept)
    ports, listening = [], threading.Event()
    store = open_store(clock=time.time)

    def ready(port):
        ports.append(port)
        listening.set()

    thread = threading.Thread(target=serve, args=(store, "127.0.0.1", 0), kwargs={"ready": ready})
    thread.start()
    assert listening.wait(60)
    yield f"http://127.0.0.1:{ports[0]}", store
    kept[0].should_exit = True
    thread.join(60)


def test_the_server_speaks_http(served, capfd):
    url, _ = served
    reply = exchange(HttpRequest("POST", f"{url}/add-checkpoint", body=request(0, 7)))
    assert (reply.status, reply.headers.get("server")) == (200, None)
    assert capfd.readouterr() == ("", "")
    page = exchange(HttpRequest("GET", f"{url}/{sha256(LOG.name.encode()).hex()}/checkpoint"))
    assert page.body.endswith(reply.body)
    assert exchange(HttpRequest("POST", f"{url}/add-checkpoint", body=b"x" * (200 << 10))).status == 400


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # uvicorn leaves its socket to Python
def test_a_server_that_cannot_start_says_why(open_store, monkeypatch):
    store = open_store()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StoreError, match="cannot be listened on"):
        serve(store, *taken.getsockname(), ready=pytest.fail)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match="gateway"):
        serve(store, "127.0.0.1", 0, ready=pytest.fail)


# The log's side


class Network:
    """Carries requests of a log to witnesses in this process, or loses them."""

    def __init__(self, stores):
        self.stores, self.asked, self.down = stores, [], False

    def __call__(self, request):
        self.asked.append(AddCheckpoint.parse(request.body).old_size if request.body else request.method)
        if self.down:
            raise ExternalError("no usable answer")
        scheme, _, host, path = request.url.split("/", 3)
        assert (scheme, request.headers) == ("https:", {"Content-Type": "text/plain"} if request.body else {})
        status, headers, body = call_app(WitnessApp(self.stores[host]), request.method, f"/{path}", request.body)
        return HttpResponse(status, {name.decode(): value.decode() for name, value in headers.items()}, body)


@pytest.fixture
def witnessed(either, open_store, monkeypatch):
    """A log with one witness; the network between them."""
    ground = either
    ground.clock.seconds = NOW
    store = open_store(clock=ground.clock)
    network = Network({"w.example": store})
    monkeypatch.setitem(WitnessClient.__init__.__kwdefaults__, "exchange", network)
    witness = Witness("w", WITNESS.verifier, "https://w.example/")
    policy = TrustPolicy.of([ground.policy.logs[0].vkey], [witness])
    ground.params = LedgerParams(
        highwater=ground.folder / "highwater", checkpoint_seconds=0, policy=policy, witnesses=(witness,)
    )
    ground.network, ground.trust, ground.store = network, policy, store
    return ground


def test_every_checkpoint_is_cosigned(witnessed):
    with witnessed.create() as log:
        for count in (1, 5, 300):
            witnessed.fill(log, count)
            signed = log.publish()
            assert [s.name for s in signed.cosignatures] == [WITNESS.name]
            assert witnessed.blobs.get("log/checkpoint") == signed.note
        reader = log.reader()
        assert verify_proof(reader.prove(17), reader.entry(17), witnessed.trust).index == 17
        assert verify_proof(reader.prove(2, 6), reader.entry(2), witnessed.trust).checkpoint_size == 6
    assert witnessed.network.asked == [0, 1, 6]


def test_a_witness_that_was_away_is_asked_again_after_a_while(witnessed, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("stanch.ledger.witness_client.time.monotonic", lambda: now[0])
    log = witnessed.create()
    witnessed.fill(log, 3)
    witnessed.network.down = True
    assert log.publish().cosignatures == ()
    assert verify_fails(witnessed, log)
    log.publish()
    assert len(witnessed.network.asked) == 1  # not before a second has passed
    now[0] += 1
    log.publish()
    now[0] += 1
    log.publish()
    assert len(witnessed.network.asked) == 2  # not before two more have
    witnessed.network.down = False
    now[0] += 1
    signed = log.publish()
    assert len(signed.cosignatures) == 1
    assert witnessed.blobs.get("log/checkpoint") == signed.note
    log.close()


def verify_fails(ground, log):
    with pytest.raises(QuorumUnmet):
        verify_proof(log.reader().prove(1), log.reader().entry(1), ground.trust)
    return True


def test_an_old_cosignature_is_renewed(witnessed):
    with witnessed.create() as log:
        witnessed.fill(log, 3)
        log.publish()
        witnessed.clock.seconds += 150
        assert log.publish().cosignatures[0].time_s == NOW
        witnessed.clock.seconds += 1
        signed = log.publish()
        assert signed.cosignatures[0].time_s == NOW + 151
        assert witnessed.blobs.get("log/checkpoint") == signed.note
        assert len(parse_note(signed.note).signatures) == 2


def test_a_log_that_forgot_its_cosignatures_learns_the_size(witnessed):
    log = witnessed.create()
    witnessed.fill(log, 5)
    log.publish()
    with witnessed.tables.write() as connection:
        connection.execute(ledger_cosignature.delete())
    witnessed.fill(log, 4)
    assert len(log.publish().cosignatures) == 1
    assert witnessed.network.asked == [0, 0, 5]
    log.close()


def test_a_cosignature_that_was_lost_is_asked_for_again_at_the_same_size(witnessed):
    with witnessed.create() as log:
        witnessed.fill(log, 5)
        log.publish()
        with witnessed.tables.write() as connection:
            connection.execute(ledger_cosignature.delete())
        assert len(log.publish().cosignatures) == 1
    assert witnessed.network.asked == [0, 0, 5]


def test_the_note_that_a_witness_shows_is_fetched(witnessed):
    witness = witnessed.params.witnesses[0]
    assert fetch_note(witness, LOG.name, exchange=witnessed.network) is None
    with witnessed.create() as log:
        witnessed.fill(log, 5)
        signed = log.publish()
        assert fetch_note(witness, log.origin, exchange=witnessed.network) == signed.note
    assert witnessed.network.asked == ["GET", 0, "GET"]


def test_a_witness_is_given_five_seconds_and_64_kib(monkeypatch):
    asked = []
    monkeypatch.setattr(witness_client, "exchange", lambda *request, **limits: asked.append((request, limits)))
    witness_client.ask("request")
    assert asked == [(("request",), {"timeout_seconds": 5.0, "max_bytes": 65_536})]


@pytest.fixture
def client(ground):
    """A function that makes the log's side for witnesses that are played by a function, and a clock for its waits."""

    def make(exchange, *witnesses):
        known = [Witness(w.name, w.verifier, f"https://{w.name}/") for w in witnesses or (WITNESS,)]
        return WitnessClient(ground.tables, known, clock=lambda: NOW, refresh_seconds=150, exchange=exchange)

    return make


def published(ground, size):
    """Tiles and a signed checkpoint of so many entries."""
    integrate(ground.blobs, iter([(bytes([number]), LEAVES[number]) for number in range(size)]), 0, size)
    return sign_checkpoint(checkpoint(size), LOG), TileHashes(ground.blobs, size), lambda: size


def test_waits_double_up_to_five_minutes_and_begin_anew_after_an_answer(ground, client, monkeypatch):
    now, asked, is_down = [0.0], [], [True]
    monkeypatch.setattr("stanch.ledger.witness_client.time.monotonic", lambda: now[0])

    def exchange(_request):
        asked.append(now[0])
        if is_down[0]:
            raise ExternalError("away")
        return HttpResponse(200, {}, WITNESS.cosign(checkpoint(3).text(), NOW - 151).encode())  # to be renewed at once

    log_side, of_log = client(exchange), published(ground, 3)

    def waits(count):
        found = []
        for _ in range(count):
            log_side.cosign(*of_log)
            assert asked[-1] == now[0]
            found.append(log_side._patience[WITNESS.verifier.vkey].until - now[0])
            now[0] += found[-1]
        return found

    assert waits(11) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    is_down[0] = False
    log_side.cosign(*of_log)
    is_down[0] = True
    assert waits(2) == [1, 2]


def test_a_size_that_keeps_changing_is_given_up_on_after_three_answers(ground, client):
    sizes = iter(range(1, 9))
    asked = []

    def exchange(request):
        asked.append(AddCheckpoint.parse(request.body).old_size)
        return HttpResponse(409, {"content-type": "text/x.tlog.size; charset=utf-8"}, f"{next(sizes)}\n".encode())

    log_side = client(exchange)
    assert log_side.cosign(*published(ground, 9)).cosignatures == ()
    assert asked == [0, 1, 2]
    assert not log_side.due(LOG.name, 9)


def test_a_witness_that_refuses_the_size_that_it_names_has_another_root(ground, client):
    reply = HttpResponse(409, {"content-type": "text/x.tlog.size"}, b"5\n")
    with pytest.raises(LogRolledBack) as caught:
        client(lambda _request: reply).cosign(*published(ground, 5))
    assert "another root over 5 entries" in caught.value.why


def test_an_answer_with_more_than_signatures_is_not_taken(ground, client):
    line = WITNESS.cosign(checkpoint(5).text(), NOW)
    of_log = published(ground, 5)
    assert client(lambda _: HttpResponse(200, {}, f"more\n\n{line}".encode())).cosign(*of_log).cosignatures == ()
    assert len(client(lambda _: HttpResponse(200, {}, line.encode())).cosign(*of_log).cosignatures) == 1


def test_two_witnesses_and_two_keys_of_the_log_stand_in_one_note(ground, client):
    other = Cosigner("w.example", SigningKey.from_seed(bytes(32)))
    new = NoteSigner(LOG.name, SigningKey.from_seed(bytes(range(64, 96))))
    cosigners, asked = {WITNESS.name: WITNESS, other.name: other}, []

    def exchange(request):
        name = request.url.removeprefix("https://").removesuffix("/add-checkpoint")
        asked.append((name, AddCheckpoint.parse(request.body).note))
        text = parse_note(AddCheckpoint.parse(request.body).note).text
        return HttpResponse(200, {}, cosigners[name].cosign(text, NOW).encode())

    log_side, (_, hashes, rows) = client(exchange, WITNESS, other), published(ground, 5)
    signed = sign_checkpoint(checkpoint(5), new, LOG)
    cosigned = log_side.cosign(signed, hashes, rows)
    lines = [witness.cosign(checkpoint(5).text(), NOW) for witness in (WITNESS, other)]
    assert cosigned.note == signed.note + "".join(lines).encode()
    assert [(s.name, s.time_s) for s in cosigned.cosignatures] == [(WITNESS.name, NOW), (other.name, NOW)]
    assert sorted(asked) == sorted([(WITNESS.name, signed.note), (other.name, signed.note)])


def test_a_restored_backup_is_found_by_the_witness(witnessed, make_ground, tmp_path):
    """Database, blobs and high-water file are all of the old state: nothing at home remembers more."""
    with witnessed.create() as log:
        witnessed.fill(log, 9)
        log.publish()
    old = make_ground(tmp_path / "old")
    old.params = LedgerParams(
        highwater=tmp_path / "old" / "highwater", checkpoint_seconds=0, witnesses=witnessed.params.witnesses
    )
    log = old.create()
    old.fill(log, 4)
    with pytest.raises(LogRolledBack, match="witness w") as caught:
        log.publish()
    assert "cosigned 9 entries, and this log holds 4" in caught.value.why
    with pytest.raises(LedgerUnavailable):
        log.append(old.entry())
    old.tables.close()


@pytest.mark.parametrize("count", [9, 12], ids=["same size", "longer"])
def test_another_history_is_found_by_the_witness(witnessed, make_ground, tmp_path, count):
    with witnessed.create() as log:
        witnessed.fill(log, 9)
        log.publish()
    fork = make_ground(tmp_path / "fork")
    fork.params = LedgerParams(
        highwater=tmp_path / "fork" / "highwater", checkpoint_seconds=0, witnesses=witnessed.params.witnesses
    )
    log = fork.create()
    fork.fill(log, count)
    with pytest.raises(LogRolledBack, match="witness w"):
        log.publish()
    assert len(witnessed.store.evidence(LOG.name)) == 1
    fork.tables.close()


def test_another_publisher_that_was_faster_is_no_rollback(witnessed):
    first, second = witnessed.create(), witnessed.open(witnessed.open_tables())
    witnessed.fill(first, 3)
    signed = first.publish()
    witnessed.fill(second, 3)
    second.publish()
    client, hashes = first._publisher._witnesses, TileHashes(witnessed.blobs, 3)
    with witnessed.tables.write() as connection:
        connection.execute(ledger_cosignature.delete())
    assert client.cosign(signed, hashes, first._publisher._size).cosignatures == ()
    first.close()
    second.close()


@pytest.mark.parametrize("skew", [-601, -600, 600, 601])
def test_a_cosignature_of_another_time_is_not_taken(witnessed, skew):
    witnessed.store._clock = lambda: NOW + skew
    with witnessed.create() as log:
        witnessed.fill(log, 2)
        assert len(log.publish().cosignatures) == (abs(skew) == 600)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", "text/plain"),
        (200, "— example.com/stanch/witness AAAA\n".encode(), "text/plain"),
        (200, Cosigner("o.example", SigningKey.from_seed(bytes(32))).cosign("x\n", NOW).encode(), "text/plain"),
        (200, WITNESS.cosign("something else\n", NOW).encode(), "text/plain"),
        (200, b"\xff\xfe\n", "text/plain"),
        (409, b"3\n", "text/plain"),
        (409, b"03\n", "text/x.tlog.size"),
        (409, b"-1\n", "text/x.tlog.size"),
        (409, b"\xd9\xa7\n", "text/x.tlog.size"),
        (500, b"", "text/plain"),
        (500, b"3\n", "text/x.tlog.size"),
        (301, b"", "text/plain"),
    ],
)
def test_nonsense_of_a_witness_is_not_stored_and_stops_nothing(witnessed, monkeypatch, status, body, kind):
    asked = []

    def exchange(request):
        asked.append(request)
        return HttpResponse(status, {"content-type": kind}, body)

    with witnessed.create() as log:
        monkeypatch.setattr(log._publisher._witnesses, "_exchange", exchange)
        witnessed.fill(log, 5)
        assert log.publish().cosignatures == ()
        assert len(asked) == 1
        with witnessed.tables.read() as connection:
            assert connection.execute(ledger_cosignature.select()).all() == []


def test_a_claim_that_the_log_is_longer_stops_it(witnessed, monkeypatch):
    log = witnessed.create()
    reply = HttpResponse(409, {"content-type": "text/x.tlog.size"}, b"4000\n")
    monkeypatch.setattr(log._publisher._witnesses, "_exchange", lambda _request: reply)
    witnessed.fill(log, 5)
    with pytest.raises(LogRolledBack):
        log.publish()


def test_waiting_for_the_quorum(witnessed):
    with witnessed.create() as log:
        ref = log.append(witnessed.entry())
        assert log.require_quorum(ref, timeout_seconds=60).checkpoint.size == 1
        witnessed.network.down = True
        later = log.append(witnessed.entry())
        begun = time.monotonic()
        with pytest.raises(QuorumUnmet):
            log.require_quorum(later, timeout_seconds=0.3)
        assert time.monotonic() - begun < 5
        witnessed.network.down = False


def test_it_waits_for_a_quorum_and_asks_again(witnessed, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        witnessed.network.down = False
        log._publisher._witnesses._patience[witnessed.params.witnesses[0].key.vkey].until = 0

    with witnessed.create() as log:
        witnessed.network.down = True
        ref = log.append(witnessed.entry())
        monkeypatch.setattr(log_module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
        assert len(log.require_quorum(ref).cosignatures) == 1
        assert slept == [0.2]


def test_no_quorum_covers_an_entry_that_is_not_there(witnessed):
    with witnessed.create() as log:
        ref = log.append(witnessed.entry())
        with pytest.raises(NotFound, match="has no entry 1"):
            log.require_quorum(replace(ref, index=1))


def test_the_empty_log_can_be_cosigned(witnessed):
    with witnessed.create() as log:
        assert log.publish().checkpoint.root == EMPTY_ROOT
        assert len(log.publish().cosignatures) == 1


def test_over_a_real_server(served, ground):
    url, _ = served
    witness = Witness("w", WITNESS.verifier, url)
    ground.clock.seconds = time.time()
    ground.params = LedgerParams(highwater=ground.folder / "highwater", checkpoint_seconds=0, witnesses=(witness,))
    with ground.create() as log:
        for count in (3, 300):
            ground.fill(log, count)
            assert len(log.publish().cosignatures) == 1
