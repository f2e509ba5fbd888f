"""An export makes its folder itself, for its owner alone, and removes none that somebody else made meanwhile."""

import stat

import pytest

from stanch.errors import InvalidInput
from stanch.ledger import Ledger
from stanch.trace.incident_report import Audience
from stanch.workspace import Workspace
from stanch.workspace.exported import exporting
from stanch.workspace.verbs_incident import export_incident, open_incident
from stanch.workspace.verbs_incident_report import write_report
from stanch.workspace.verbs_log import export_log

EXPORTS = {
    "log": lambda w, _key, out: export_log(w, out, "jsonl"),
    "incident": export_incident,
    "report": lambda w, key, out: write_report(w, key, Audience.CUSTOMER, out),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("w") / "w") as workspace:
        yield workspace, open_incident(workspace, 0).id


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_a_folder_that_another_made_meanwhile_stays(opened, tmp_path, monkeypatch, export):
    (workspace, key), out, publish = opened, tmp_path / "out", Ledger.publish

    def meanwhile(self):
        out.mkdir(exist_ok=True)
        (out / "precious").write_text("another's")
        return publish(self)

    monkeypatch.setattr(Ledger, "publish", meanwhile)
    with pytest.raises(InvalidInput, match="cannot be written"):
        export(workspace, key, out)
    assert [path.name for path in out.iterdir()] == ["precious"]
    monkeypatch.undo()
    export(workspace, key, tmp_path / "other")
    assert (tmp_path / "other" / "proofs").is_dir()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_not_written_to_its_end_is_removed(tmp_path, error):
    out, raised = tmp_path / "out", InvalidInput if isinstance(error, OSError) else KeyboardInterrupt

    def write(proofs):
        assert {stat.S_IMODE(path.stat().st_mode) for path in (out, proofs)} == {0o700}
        raise error

    with pytest.raises(raised), exporting(out) as proofs:
        write(proofs)
    assert not out.exists()
