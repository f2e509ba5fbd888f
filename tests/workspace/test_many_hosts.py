"""A workspace whose rows are in PostgreSQL and whose blobs are in S3, opened on two hosts."""

import shutil

import life
import pytest

from stanch.data import open_dataset
from stanch.errors import Conflict, InvalidInput, NotFound, NotPermitted
from stanch.ledger import EntryQuery
from stanch.store import open_tables
from stanch.workspace import Workspace
from stanch.workspace.opening import SETTINGS, STATE
from stanch.workspace.verbs_access import add_person
from stanch.workspace.verbs_data import take_stock
from stanch.workspace.verbs_log import list_entries, prove_entry, verify_log


@pytest.fixture
def settings(tmp_path, postgresql, s3):
    """A folder with nothing but settings that name a database and a bucket."""
    folder = tmp_path / "w"
    folder.mkdir()
    text = (
        f'[workspace]\ntables = "{postgresql.database()}"\nblobs = "{s3.uri()}"\n\n'
        '[ledger]\norigin = "example.com/shared"\n\n[access]\nprofile = "team"\n'
    )
    (folder / SETTINGS).write_text(text)
    return folder


def make(folder):
    with Workspace.init(folder, profile="team", owner="olga", passphrase=life.passphrase("olga")):
        pass
    return as_whom(folder, "olga")


def as_whom(folder, name):
    return Workspace.open(folder, principal=name, unlock=lambda: life.passphrase(name))


def test_two_hosts_act_on_one_record(settings, tmp_path):
    data = tmp_path / "tickets.jsonl"
    data.write_text('{"text": "one"}\n{"text": "two"}\n')
    with make(settings) as workspace:
        add_person(workspace, "dana", ("data_steward",))
        add_person(workspace, "ada", ("auditor",))
    other = shutil.copytree(settings, tmp_path / "other-host")
    for folder in (settings, other):
        with as_whom(folder, "dana") as workspace:
            take_stock(workspace, open_dataset(data, key=workspace.keys.secret("dataset")))
    with as_whom(settings, "olga") as workspace, pytest.raises(NotPermitted):
        take_stock(workspace, open_dataset(data, key=workspace.keys.secret("dataset")))
    with as_whom(other, "ada") as workspace:
        found = list_entries(workspace, EntryQuery(kind="data.manifest", limit=20))
        phases = [event["unmapped"]["stanch"]["phase"] for _, event in found]
        assert phases == ["intent", "outcome", "intent", "outcome", "denied"]
        _, proof = prove_entry(workspace, 0)
        assert proof.startswith(b"c2sp.org/tlog-proof@v1")
        report = verify_log(workspace)
    assert report.size > report.published > 10  # the last outcome is durable, and published when the workspace closes
    assert report.intents_open == ()
    state = {path.name for path in (settings / STATE).iterdir()}
    assert not {"stanch.db", "blobs"} & state


def test_one_person_alone_gets_no_shared_database(settings):
    text = (settings / SETTINGS).read_text()
    (settings / SETTINGS).write_text(text.replace('"team"', '"solo"'))
    with pytest.raises(InvalidInput, match="profile team"):
        Workspace.init(settings)
    assert [path.name for path in settings.iterdir()] == [SETTINGS]
    uri = text.split('"')[1]
    with pytest.raises(NotFound, match="empty"):
        open_tables(uri)
    (settings / SETTINGS).write_text(text)
    make(settings).close()
    (settings / SETTINGS).write_text(text.replace('"team"', '"solo"'))
    with pytest.raises(InvalidInput, match="profile team"):
        as_whom(settings, "olga")


def test_a_second_host_is_told_to_copy_the_keys(settings, tmp_path):
    other = shutil.copytree(settings, tmp_path / "other-host")
    make(settings).close()
    with pytest.raises(Conflict, match="the database holds it already") as caught:
        make(other)
    assert "copy stanch.toml and .stanch/keys" in caught.value.next_step
    assert [path.name for path in other.iterdir()] == [SETTINGS]
