"""Beginning a log, and what it holds of its parameters."""

import time
from dataclasses import replace
from threading import Event

import pytest

from stanch.crypto import SigningKey
from stanch.errors import Conflict, LogRolledBack
from stanch.ledger import Ledger, LedgerParams, TrustPolicy
from stanch.ledger.anchor_uri import open_anchor
from stanch.ledger.publish import Publisher
from stanch.store import CREATE


def rows(ground):
    with ground.tables.read() as connection:
        return connection.exec_driver_sql("SELECT origin FROM ledger_log").all()


@pytest.mark.parametrize("what", ["high-water file", "checkpoint"])
def test_either_memory_of_a_log_refuses_a_new_one_and_no_row_is_written(ground, what):
    if what == "checkpoint":
        ground.blobs.put("log/checkpoint", b"an earlier log's", mode=CREATE)
    else:
        ground.params.highwater.write_bytes(b"an earlier log's")
    with pytest.raises(LogRolledBack, match="checkpoints exist already") as caught:
        ground.create()
    assert "the database that belongs to them is missing" in caught.value.why
    assert rows(ground) == []


def test_a_database_takes_a_log_once(ground):
    ground.create().close()
    (ground.folder / "highwater").unlink()
    ground.blobs.delete("log/checkpoint")
    with pytest.raises(Conflict, match="the database holds it already"):
        ground.create()
    assert len(rows(ground)) == 1


def test_it_trusts_its_own_key_unless_a_policy_says_whom(ground):
    given = replace(ground.policy, witnesses=())
    with ground.create() as log:
        assert log.policy == TrustPolicy(log.verifiers)
    ground.params = replace(ground.params, policy=given)
    with ground.open() as log:
        assert log.policy is given


def test_its_anchors_are_those_of_the_parameters(ground):
    with ground.create() as log:
        assert (log.anchors.anchors, log.witnesses) == ((), ())
        assert log._publisher._anchors is log._publisher._witnesses is None  # nobody is asked
    anchor = open_anchor(f"file:{ground.folder / 'anchor'}", log_folder=ground.folder)
    ground.params = replace(ground.params, anchors=(anchor,))
    with ground.open() as log:
        assert log.anchors.anchors == (anchor,)


def test_a_checkpoint_a_second_and_an_anchor_an_hour(ground):
    params = LedgerParams(highwater=ground.params.highwater)
    assert (params.checkpoint_seconds, params.refresh_seconds, params.anchor_seconds) == (1, 150, 3600)


def test_its_verifier_is_that_of_the_present_key(ground):
    key = SigningKey.from_seed(bytes(range(1, 33)))
    with ground.create() as log:
        before = log.verifier
        with ground.tables.write() as connection:
            log.replace_key(key, connection)
        log.use_keys([key, ground.key])
        assert (log.verifier, log.verifiers) == (log.verifiers[0], (log.verifier, before))
        assert log.verifier != before


def test_publishing_brings_the_index_up_to_date(ground):
    with ground.create() as log:
        ground.fill(log, 3)
        log.publish()
        with ground.tables.read() as connection:
            assert connection.exec_driver_sql("SELECT max(idx) FROM ledger_index").scalar() == 2


def often(ground):
    """Let the log publish by itself, a hundred times a second."""
    ground.params = replace(ground.params, checkpoint_seconds=0.01)


def test_it_publishes_again_when_a_witness_or_an_anchor_is_due(ground, monkeypatch):
    often(ground)
    asked, third = [], Event()

    def publish(publisher):
        asked.append(publisher)
        if len(asked) == 3:
            third.set()
        return genuine(publisher)

    genuine = Publisher.publish
    monkeypatch.setattr(Publisher, "due", lambda *_: True)
    monkeypatch.setattr(Publisher, "publish", publish)
    with ground.create():
        assert third.wait(20)  # nothing was appended


def test_closing_waits_for_the_thread_that_publishes(ground, monkeypatch):
    often(ground)
    ended = []

    def slowly(log):
        log._closing.wait()
        time.sleep(0.2)
        ended.append(log)

    monkeypatch.setattr(Ledger, "_publish_often", slowly)
    with ground.create() as log:
        assert (log._timer.name, log._timer.daemon) == ("stanch-publisher", True)
    assert ended == [log]
