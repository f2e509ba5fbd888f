"""A database that was set back to an earlier state is named so, with the next step, on SQLite and on PostgreSQL."""

import pytest

from stanch.crypto import Frontier, leaf_hash
from stanch.errors import LogRolledBack
from stanch.ledger.fsck import fsck

BEFORE, AFTER = 3, 6
_FREE = {
    "sqlite": ("DROP TRIGGER ledger_entry_no_update", "DROP TRIGGER ledger_entry_no_delete"),
    "postgresql": ("ALTER TABLE ledger_entry DISABLE TRIGGER USER",),
}


@pytest.fixture
def rolled_back(either):
    """Return a log whose rows are those of its first checkpoint, although a second was published, and that second."""
    ground = either
    with ground.create() as log:
        ground.fill(log, BEFORE)
        log.publish()
        ground.fill(log, AFTER - BEFORE)
        second = log.publish()
        leaves = [leaf_hash(data) for _, data in log.reader().tail(0, BEFORE)]
    with ground.tables.write() as connection:
        for statement in _FREE[ground.tables.dialect]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("DELETE FROM ledger_index WHERE idx >= ?", (BEFORE,))
        connection.exec_driver_sql("DELETE FROM ledger_entry WHERE idx >= ?", (BEFORE,))
        connection.exec_driver_sql("DELETE FROM ledger_checkpoint WHERE size > ?", (BEFORE,))
        connection.exec_driver_sql(
            "UPDATE ledger_log SET size = ?, frontier = ?", (BEFORE, Frontier().append(leaves).to_bytes())
        )
    return ground, second


def forget(ground):
    """Set what lies beside the database back as well: published checkpoint and high-water file."""
    ground.params.highwater.unlink()
    ground.blobs.delete("log/checkpoint")


def test_opening_names_it_while_the_published_checkpoint_is_there(rolled_back):
    ground, _ = rolled_back
    with pytest.raises(LogRolledBack, match="was rolled back") as caught:
        ground.open()
    assert f"it holds {BEFORE} entries, but log/checkpoint was signed over {AFTER}" in caught.value.why
    assert "stanch log recover" in caught.value.next_step


def test_opening_names_it_by_the_high_water_file_alone(rolled_back):
    ground, _ = rolled_back
    ground.blobs.delete("log/checkpoint")
    with pytest.raises(LogRolledBack, match="was rolled back") as caught:
        ground.open()
    assert f"highwater was signed over {AFTER}" in caught.value.why


def test_a_kept_checkpoint_names_it_when_all_else_was_set_back(rolled_back):
    ground, second = rolled_back
    forget(ground)
    with ground.open() as log:  # the limit: nobody here remembers
        assert log.publish().checkpoint.size == BEFORE
    assert fsck(ground.reader(), ground.policy).conclusion == "self-consistent only"
    with pytest.raises(LogRolledBack, match=rf"was rolled back: expected {AFTER} entries") as caught:
        fsck(ground.reader(), ground.policy, anchors=[second.note])
    assert f"entries {BEFORE} to {AFTER - 1} were cut off" in caught.value.why
    assert "stanch log recover" in caught.value.next_step
