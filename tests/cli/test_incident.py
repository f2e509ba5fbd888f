"""``stanch incident task | done | custody`` and ``stanch tune derived``: what is typed is done and shown again."""

import hashlib

from stanch.ledger import EntryQuery, decode_entry
from stanch.weights import directory_digest
from stanch.workspace import Workspace


def test_a_task_is_given_and_done_and_evidence_changes_hands(stanch, tmp_path):
    place = tmp_path / "w"
    assert stanch("init", place).code == 0

    def say(*words):
        return stanch("--workspace", place, "incident", *words, "--json").json["data"]

    incident = say("open", "--discovered-at", "2026-01-02T03:04Z")["incident"]
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"an image of the disk")
    given = say("task", incident, "tell the customer", "--who", "owner", "--due", "2026-01-03")
    (task,) = given["tasks"]
    assert task["task"] in given["entries"]
    assert say("done", incident, str(task["task"]))["tasks"][0]["done_ms"] > task["due_ms"]
    what = ("--what", "the disk", "--holder", "owner", "--since")
    assert say("custody", incident, disk, *what, "2026-01-02T03:05Z")["custody"][0]["digest"] == (
        f"sha256:{hashlib.sha256(b'an image of the disk').hexdigest()}"
    )
    backwards = stanch("--workspace", place, "incident", "custody", incident, disk, *what, "2026-01-01")
    assert (backwards.code, "before who holds it now took it" in backwards.err) == (2, True)
    for number in "12":
        (tmp_path / number / "disk").mkdir(parents=True)
        (tmp_path / number / "disk" / "image").write_text(number)
        held = say("custody", incident, tmp_path / number, *what, "2026-01-02T03:06Z")["custody"][-1]
        assert held["digest"] == str(directory_digest(tmp_path / number).root)
    shown = stanch("--workspace", place, "incident", "show", incident).out
    assert f"task       {task['task']} of p_" in shown
    assert ": tell the customer" in shown
    assert "since 2026-01-02 03:05Z: the disk" in shown
    say("task", incident, "x\ncontained  revoke_key", "--who", "owner", "--due", "2026-01-03")
    assert "\ncontained" not in stanch("--workspace", place, "incident", "show", incident).out
    assert "words" not in str(given)
    assert "customer" not in str(given)  # what others may be told holds no words of a person


def test_what_a_model_was_made_from_is_stated(stanch, files, tmp_path):
    place, words = tmp_path / "w", ("tune", "derived", files.model, "--from", files.base, "--how", "merged")
    assert stanch("init", place).code == 0
    assert stanch("--workspace", place, *words, "--json").json["data"] == {
        "model": str(directory_digest(files.model).root), "how": "merged",
    }  # fmt: skip
    with Workspace.open(place) as workspace:
        reader = workspace.ledger.reader()
        told = [
            decode_entry(reader.entry(ref.index))["unmapped"]["stanch"]
            for ref in reader.query(EntryQuery(kind="model.derive", phase="outcome"))
        ]
    assert [one["payload"]["source"] for one in told] == [str(directory_digest(files.base).root)]
    assert told[0]["subject"][0]["name"] == files.model.name
