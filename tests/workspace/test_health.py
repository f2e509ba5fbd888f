"""The doctor: what is well is said to be, and each thing that is not is named on its own."""

import contextlib
import importlib.util
import re
import sqlite3
import time
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import life
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import servers
from stanch.access import Glasses, PolicyChange, PolicyVersions
from stanch.access.policy import default_text, missing_forbids
from stanch.crypto import SigningKey
from stanch.crypto.localkey import save_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.ledger import Cosigner, EntryQuery
from stanch.store import open_tables
from stanch.workspace import Workspace, health
from stanch.workspace.health import EXTRAS, examine
from stanch.workspace.health_check import State
from stanch.workspace.verbs_access import add_person, grant_role
from stanch.workspace.verbs_log import list_entries
from stanch.workspace.verbs_policy import activate_policies
from stanch.workspace.verbs_serve import serve_watch


@pytest.fixture
def folder(tmp_path):
    Workspace.init(tmp_path / "w").close()
    return tmp_path / "w"


def failed(folder):
    return {check.name: check.found for check in examine(folder) if check.state is State.FAILED}


def test_a_new_workspace_is_well_and_its_missing_watchers_are_warnings(folder):
    checks = examine(folder)
    assert failed(folder) == {}
    assert {check.name for check in checks if check.state is State.WARNING} == {"log", "witnesses", "anchors"}
    assert all(check.next_step for check in checks if check.state is not State.OK)
    assert {"python", "versions", "settings", "keys", "database", "acts"} <= {check.name for check in checks}


def test_without_a_workspace_the_environment_is_examined():
    assert [check.name for check in examine(None)] == ["python", "versions", "optional parts"]


def test_nothing_is_changed(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "stanch.db" not in path.name}
    examine(folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "stanch.db" not in path.name}
    assert before == after


@pytest.mark.parametrize("name", ["log.pem", "dataset.key", "people/owner.json"])
def test_a_key_that_others_may_read_is_named(folder, name):
    (folder / ".stanch" / "keys" / name).chmod(0o640)
    assert name in failed(folder)["keys"]


def test_a_public_key_of_another_is_named(folder):
    keys = folder / ".stanch" / "keys"
    (keys / "case.pub.pem").write_bytes((keys / "log.pub.pem").read_bytes())
    assert "case" in failed(folder)["keys"]


def test_settings_that_others_may_write_are_named_and_hide_nothing_else(folder):
    (folder / "stanch.toml").chmod(0o666)
    checks = examine(folder)
    assert failed(folder).keys() == {"settings"}
    assert "python" in {check.name for check in checks}


def test_a_missing_database_is_named(folder):
    (folder / ".stanch" / "stanch.db").unlink()
    found = failed(folder)
    assert found.keys() == {"database"}
    assert not (folder / ".stanch" / "stanch.db").exists()


def test_a_log_that_was_rolled_back_is_named(folder):
    database = folder / ".stanch" / "stanch.db"
    old = database.read_bytes()
    with Workspace.open(folder) as workspace:
        list_entries(workspace, EntryQuery(limit=1))
    assert failed(folder) == {}
    database.write_bytes(old)
    assert failed(folder).keys() == {"log"}


def test_acts_that_died_are_a_warning(folder):
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:
        connection.execute("INSERT INTO act_lease VALUES ('019b76da-a800-7000-8000-000000000000', 'h', 1, 1)")
    (acts,) = [check for check in examine(folder) if check.name == "acts"]
    assert acts.state is State.WARNING


def test_witnesses_and_anchors_that_are_configured_are_said(folder, tmp_path):
    settings = folder / "stanch.toml"
    text = settings.read_text().replace("[access]", f'anchors = ["file:{tmp_path}/x"]\n\n[access]')
    vkey = Cosigner("w.example", SigningKey.generate("ed25519")).verifier.vkey
    settings.write_text(text + f'\n[[ledger.witnesses]]\nvkey = "{vkey}"\nurl = "https://w.example"\n')
    assert failed(folder) == {}
    states = {check.name: check.state for check in examine(folder)}
    assert (states["witnesses"], states["anchors"]) == (State.OK, State.OK)


@pytest.mark.parametrize(("needed", "state", "said"), [(3, "ok", "under 2 "), (2, "warning", "even if no witness")])
def test_how_many_witnesses_may_lie_is_said(folder, needed, state, said):
    vkeys = [
        Cosigner(name, SigningKey.generate("ed25519")).verifier.vkey for name in ("a.example", "b.example", "c", "d")
    ]
    with Workspace.open(folder) as workspace:
        log = workspace.ledger.verifier.vkey
    lines = [f"log {log}", *(f"witness {n} {v} https://{n}.example" for n, v in zip("abcd", vkeys, strict=True))]
    lines += [f"group all {needed} a b c d", "quorum all", ""]
    (folder / "policy").write_text("\n".join(lines))
    settings = folder / "stanch.toml"
    settings.write_text(settings.read_text().replace("[ledger]", '[ledger]\npolicy = "policy"', 1))
    (check,) = [check for check in examine(folder) if check.name == "witnesses"]
    assert (check.state, said in check.found, f"share {2 * needed - 4} of" in check.found) == (state, True, True), check


def test_every_optional_part_is_looked_for():
    parts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(EXTRAS) == set(parts) - {"all", "bench", "dev"}


def test_a_witness_with_a_malformed_key_is_named(folder):
    with (folder / "stanch.toml").open("a") as file:
        file.write('\n[[ledger.witnesses]]\nvkey = "w"\nurl = "https://w.example"\n')
    assert failed(folder).keys() == {"log"}


def warnings(folder, **options):
    found = [check for check in examine(folder, **options) if check.state is State.WARNING]
    return {check.name: check.found for check in found}


def test_settings_of_the_environment_are_said(folder):
    (settings,) = [
        check
        for check in examine(folder, environ={"STANCH_GATEWAY__LISTEN": "127.0.0.1:8081"})
        if check.name == "settings"
    ]
    assert settings.state is State.OK
    assert settings.found.endswith("; from the environment STANCH_GATEWAY__LISTEN")


def test_keys_of_a_team_that_no_passphrase_locks_are_a_warning(folder, tmp_path):
    assert "keys" not in warnings(folder)
    Workspace.init(
        tmp_path / "team", profile="team", owner="ada", passphrase=Passphrase("correct horse battery")
    ).close()
    assert "keys" not in warnings(tmp_path / "team")
    keys = tmp_path / "team/.stanch/keys/people"
    save_local_key(keys / "bob.json", SigningKey.generate("ed25519"))
    assert "no passphrase locks the keys of bob:" in warnings(tmp_path / "team")["keys"]


def test_policies_that_lack_a_shipped_forbid_are_a_warning(folder):
    assert "policies" not in warnings(folder)
    text = '@id("mine") permit (principal, action, resource);'
    with Workspace.open(folder) as workspace:
        without = missing_forbids(text)
        versions = PolicyVersions(workspace.tables)
        change = PolicyChange(workspace.ledger.origin, text, without, versions.active())
        versions.activate(change, by="p_x", now_ms=1)
    assert "two-people" in warnings(folder)["policies"]


def test_policies_that_permit_nothing_to_a_role_that_somebody_holds_are_a_warning(folder):
    """As a set of one's own does that an older release shipped no such role for."""
    without_server = re.sub(r'@id\("role-server"\)\npermit \(.*?\);\n', "", default_text(), flags=re.DOTALL)
    assert without_server != default_text()
    with Workspace.open(folder) as workspace:
        activate_policies(workspace, without_server)
        assert "policies" not in warnings(folder)
        grant_role(workspace, add_person(workspace, "box", []), "server", 30)
    assert "permits nothing to server, which somebody holds" in warnings(folder)["policies"]
    with Workspace.open(folder) as workspace:
        activate_policies(workspace, f'{without_server} @id("all") permit (principal, action, resource);')
    assert "policies" not in warnings(folder)


def test_a_log_without_an_act_compares_nothing_and_says_so(folder):
    (rights,) = [check.found for check in examine(folder) if check.name == "rights"]
    assert "nothing was compared" in rights


def test_emergency_rights_that_are_open_are_a_warning(folder):
    with Workspace.open(folder) as workspace:
        glasses = Glasses(workspace.tables)
        glass = glasses.open_glass(workspace.people.session.principal, act="a", reason_commitment="c", minutes=5)
    assert glass.id in warnings(folder)["emergency"]
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:  # longer than any act gives
        connection.execute("UPDATE glass SET until_ms = until_ms + 3600000, reviewed_by = principal")
    assert "emergency" not in warnings(folder)
    with Workspace.open(folder) as workspace:
        assert Glasses(workspace.tables).open_of(glass.principal) is None


def test_a_review_that_is_overdue_fails(folder):
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:
        (principal,) = connection.execute("SELECT id FROM principal").fetchone()
        row = ("gl_1", principal, "act", "00", 1, 2, 3)
        connection.execute(
            "INSERT INTO glass (id, principal, act, reason_commitment, from_ms, until_ms, review_due_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)", row,
        )  # fmt: skip
    assert "gl_1" in failed(folder)["reviews"]


def test_a_standby_that_no_commit_waits_for_is_a_warning(postgresql):
    psycopg = pytest.importorskip("psycopg")
    with contextlib.closing(open_tables(postgresql.database(), create=True)) as tables:
        assert health._database(tables).state is State.OK
        where = {"host": "127.0.0.1", "port": postgresql.port, "user": servers.USER, "replication": "true"}
        with psycopg.connect(**where, autocommit=True):  # what a standby opens to receive changes
            found = health._database(tables)
    assert (found.state, "a commit waits for none of them" in found.found) == (State.WARNING, True)
    assert "synchronous_standby_names" in found.next_step


def found(folder, name, **options):
    return [(check.state, check.found) for check in examine(folder, **options) if check.name == name]


SERVED = f'\n[[gateway.models]]\nname = "bot"\ndigest = "sha256:{"0" * 64}"\nupstream = "http://127.0.0.1:1"\n'
SINK = '\n[[alerts.sinks]]\nname = "duty"\nkind = "webhook"\nurl = "https://example.org/"\n'


def add_settings(folder, text):
    settings = folder / "stanch.toml"
    settings.write_text(settings.read_text() + text)


def test_who_serves_without_a_watch_and_tells_nobody_is_warned(folder):
    assert found(folder, "watch") == found(folder, "alerts") == []  # nothing is served
    add_settings(folder, SERVED)
    assert "no watch runs" in warnings(folder)["watch"]
    assert "no sink is set" in warnings(folder)["alerts"]
    add_settings(folder, SINK)
    assert found(folder, "alerts") == [(State.OK, "tells duty")]
    seen = []
    with Workspace.open(folder) as workspace:
        serve_watch(workspace, ["D1"], lambda: seen.extend(found(folder, "watch")))
    assert seen == [(State.OK, "runs")]
    assert "watch" in warnings(folder)


def test_notices_that_were_given_up_are_a_warning(folder):
    add_settings(folder, SINK)
    now_ms = int(time.time() * 1000)
    with sqlite3.connect(folder / ".stanch" / "stanch.db") as connection:
        for number, days in enumerate((1, 8)):  # an old one was seen
            row = (f"k{number}", "a", "duty", b"{}", 9, now_ms - days * 86_400_000, 0, "dead", "refused")
            connection.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    assert warnings(folder)["alerts"].startswith("1 notices")


def test_certificates_that_end_are_named_in_time(folder):
    add_settings(folder, '\n[console]\ncertificate = "tls.pem"\n')
    assert "cannot be read" in failed(folder)["TLS of the console"]
    (folder / "tls.pem").write_text("nonsense")
    assert "expected a certificate" in failed(folder)["TLS of the console"]
    end = datetime(2030, 6, 20, tzinfo=UTC)
    (folder / "tls.pem").write_bytes(make_certificate(end))
    for days, state in ((15, State.OK), (13, State.WARNING), (-1, State.FAILED)):
        clock = (end - timedelta(days=days)).timestamp
        assert [state for state, _ in found(folder, "TLS of the console", clock=clock)] == [state]


def make_certificate(end):
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(end - timedelta(days=90)).not_valid_after(end)
    )  # fmt: skip
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_leak_certificate_that_the_gateway_requires_is_looked_at(folder, material):
    add_settings(folder, SERVED + 'require_certificate = "leakcert.json"\n')
    assert "leakcert.json" in failed(folder)["certificate of bot"]
    with Workspace.open(folder) as workspace:
        signer = workspace.keys.signer("publisher")
    life.certify(material.result, material.model, signer, folder / "leakcert.json")
    ((state, text),) = found(folder, "certificate of bot")
    assert (state, text[:11]) == (State.OK, "good until ")
    end = datetime.fromisoformat(text[11:]).replace(tzinfo=UTC)
    ((state, _),) = found(folder, "certificate of bot", clock=(end - timedelta(days=3)).timestamp)
    assert state is State.WARNING


def test_grants_that_end_soon_are_named(folder):
    assert found(folder, "grants") == [(State.OK, "none ends within 14 days")]
    with Workspace.open(folder) as workspace:
        add_person(workspace, "server", [])
        grant_role(workspace, "server", "server", 13)
    assert warnings(folder)["grants"].startswith("1 end within 14 days: server of server on ")


def test_a_part_that_the_settings_need_is_missed(folder, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in {"uvicorn", "apprise"} else real(name)
    )
    assert "optional parts" not in failed(folder)
    add_settings(folder, SERVED)
    (missed,) = [check for check in examine(folder) if check.state is State.FAILED]
    assert ("gateway" in missed.found, missed.next_step) == (True, "pip install 'stanch[gateway]'")
