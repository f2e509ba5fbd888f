"""Who may look at cases, what they see, and the report of a case that accuses nobody."""

import json
from dataclasses import replace

import life
import pytest

from stanch.cli.frame import run
from stanch.errors import CustodyBroken, InvalidInput, NotPermitted, VerificationError
from stanch.ledger import decode_entry
from stanch.mark import embed
from stanch.trace import Accused, NothingFound
from stanch.workspace import verbs_case, verbs_trace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_access import add_person, grant_role
from stanch.workspace.verbs_glass import break_glass
from stanch.workspace.verbs_release import release_folder
from stanch.workspace.verbs_trace import Suspect

HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def looked_at(proposed, ground, tmp_path_factory):
    """A team with lea, a legal reader, leo, who may trace, and three cases: two decided, one only opened."""
    folder = tmp_path_factory.mktemp("cases")
    case = replace(proposed, folder=ground.copy(proposed.folder, folder / "w"))
    with case.acting("olga") as workspace:
        add_person(workspace, "lea", ("legal_reader",))
        add_person(workspace, "leo", ("incident_lead",))
        grant_role(workspace, "rita", "break_glass", 3)
    with case.acting("ines") as workspace:
        state = ReleaseState.load(release_folder(workspace, "r1"))
        plan = state.mark_plan()
        copy = embed(state.model, folder / "copy", plan, state.copy_key(plan, "acme")).path
        for name, path in (("theft", copy), ("original", state.model)):
            verbs_trace.trace_suspect(workspace, known(workspace, name, path), "r1")
        verbs_trace.take_suspect(workspace, known(workspace, "waiting", copy))
    return case


@pytest.fixture
def kept(looked_at, ground, tmp_path):
    """The same, for a test that changes it."""
    return replace(looked_at, folder=ground.copy(looked_at.folder, tmp_path / "kept"))


def known(workspace, name, path):
    return Suspect(path=path, case=name, description=HOSTILE, received_from="a host", discovered=workspace.now())


def last(workspace):
    reader = workspace.ledger.reader()
    return decode_entry(reader.entry(reader.size() - 2))["unmapped"]["stanch"]


@pytest.mark.parametrize("name", ["lea", "ada", "ines"])
def test_whoever_may_read_cases_sees_them_and_the_look_is_recorded(looked_at, name):
    with looked_at.acting(name) as workspace:
        rows = {row.id: (str(row.standing.state), row.standing.verdict) for row in verbs_case.find_cases(workspace)}
        assert rows == {
            "theft": ("examined", "accused"), "original": ("examined", "nothing"), "waiting": ("acquired", "")
        }  # fmt: skip
        view = verbs_case.show_case(workspace, "theft")
        ours = last(workspace)
        told = (ours["phase"], ours["kind"], ours["subject"][0]["name"])
        assert told == ("intent", "trace.show", "theft")
        assert isinstance(view.decision, Accused)
        assert [who.recipient for who in view.decision.recipients] == ["acme"]
        assert [line.action for line in view.custody.lines] == ["acquired", "examined"]
        assert view.plan == view.examination.plan
        waiting = verbs_case.show_case(workspace, "waiting")
        assert (waiting.plan, waiting.decision) == (None, None)


def test_a_legal_reader_reads_and_does_nothing_else(looked_at, tmp_path):
    with looked_at.acting("lea") as workspace:
        with pytest.raises(NotPermitted):
            verbs_trace.continue_case(workspace, "waiting", "r1")
        with pytest.raises(NotPermitted):
            verbs_trace.write_case_report(workspace, verbs_trace.load_case(workspace, "theft"), tmp_path / "a.html")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nina", "dana", "olga"])
def test_nobody_else_sees_a_case_and_the_refusal_is_recorded(looked_at, name):
    with looked_at.acting(name) as workspace:
        start = workspace.ledger.reader().size()
        for look in (verbs_case.find_cases, lambda w: verbs_case.show_case(w, "theft")):
            with pytest.raises(NotPermitted):
                look(workspace)
        refused = [("denied", "trace.read"), ("denied", "trace.show")]
        assert [entry[:2] for entry in life.entries(workspace, start)] == refused


def test_an_emergency_lets_somebody_read_a_case(kept):
    with kept.acting("rita") as workspace:
        with pytest.raises(NotPermitted):
            verbs_case.show_case(workspace, "theft")
        break_glass(workspace, "the lead is away", 15)
        assert verbs_case.show_case(workspace, "theft").standing.verdict == "accused"


@pytest.mark.parametrize("name", ["", "..", "../releases/r1", "theft.partial", "theft/../original", "x" * 300])
def test_what_is_no_case_is_not_looked_for(looked_at, name):
    with looked_at.acting("lea") as workspace, pytest.raises(InvalidInput, match="there is no case"):
        verbs_case.show_case(workspace, name)


def test_a_case_whose_files_say_something_else_than_the_log_is_not_shown(kept):
    with kept.acting("ines") as workspace:
        cases = workspace.state / "cases"
        (cases / "original" / "custody.jsonl").write_bytes(b"{}\n")
        with pytest.raises(CustodyBroken):
            verbs_case.show_case(workspace, "original")
        examination = cases / "theft" / "examination.json"
        fields = json.loads(examination.read_bytes())
        for score in fields["detection"]["scores"]:
            score |= {"accused": False}
        examination.write_text(json.dumps(fields))
        for read in (verbs_case.show_case, verbs_trace.load_case):
            with pytest.raises(VerificationError, match="files say nothing, the log recorded accused"):
                read(workspace, "theft")
        (cases / "waiting" / "case.json").write_text("{}")
        rows = {row.id: row for row in verbs_case.find_cases(workspace)}
        assert rows["waiting"].case is None
        assert "not a case file" in rows["waiting"].trouble


def test_a_case_that_found_nothing_has_a_report(looked_at, tmp_path):
    with looked_at.acting("ines") as workspace:
        traced = verbs_trace.load_case(workspace, "original")
        assert isinstance(traced.decision, NothingFound)
        for ending in ("html", "json", "pdf"):
            verbs_trace.write_case_report(workspace, traced, tmp_path / f"report.{ending}")
        assert last(workspace)["kind"] == "trace.report"
    page = (tmp_path / "report.html").read_text()
    assert "<strong>Nobody is accused</strong>" in page
    assert "unmarked original itself" in page
    assert "<script" not in page
    told = json.loads((tmp_path / "report.json").read_bytes())
    assert (told["schema"], told["result"]["verdict"]) == ("urn:stanch:trace-report:v1", "nothing")
    assert [section["title"] for section in told["sections"]] == [
        "The question", "What was received", "What was examined", "What was found", "What this does not show",
        "The method", "How to repeat this",
    ]  # fmt: skip
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def shell(case, name, *words):
    return ["--workspace", str(case.folder), "--as", name, *words]


def refusal(capsys):
    return capsys.readouterr().err


def test_the_commands_list_show_and_go_on(kept, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(shell(kept, "lea", "trace", "cases")) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split()[:2] == ["waiting", "acquired"]
    assert "\x1b" not in told
    assert run(shell(kept, "lea", "trace", "show", "theft", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)["data"]
    assert (shown["state"], shown["result"]["accused"][0]["recipient"]) == ("examined", "acme")
    assert run(shell(kept, "lea", "trace", "show", "waiting")) == 0
    told = capsys.readouterr().out
    assert "next       stanch trace run waiting --release NAME" in told
    assert "\x1b" not in told
    assert run(shell(kept, "nina", "trace", "show", "theft")) == 3
    assert run(shell(kept, "lea", "trace", "show", "nonsense")) == 2
    capsys.readouterr()
    assert run(shell(kept, "leo", "trace", "run", "waiting")) == 2
    assert "has no plan yet" in refusal(capsys)
    assert run(shell(kept, "leo", "trace", "run", "waiting", "--release", "r1", "--case", "other")) == 2
    assert "--case cannot be given again" in refusal(capsys)
    (tmp_path / "waiting").mkdir()
    assert run(shell(kept, "leo", "trace", "run", "waiting", "--release", "r1")) == 2
    assert "write ./waiting for the file" in refusal(capsys)
    assert run(shell(kept, "leo", "trace", "run", "./waiting")) == 2
    assert "--release is missing" in refusal(capsys)
    (tmp_path / "waiting").rmdir()
    assert run(shell(kept, "leo", "trace", "run", "waiting", "--release", "r1")) == 1
    assert "this says: the suspect was made from the copy sealed to acme" in capsys.readouterr().out
    assert run(shell(kept, "leo", "trace", "run", "waiting")) == 2
    assert "stanch trace show waiting" in refusal(capsys)


def test_a_case_is_opened_planned_and_run_by_commands_of_their_own(kept, capsys):
    suspect = str(kept.folder / ".stanch" / "cases" / "theft" / "suspect")
    words = ("--case", "by-steps", "--description", "seen twice", "--received-from", "a host")
    assert run(shell(kept, "lea", "trace", "open", suspect, *words)) == 3
    assert run(shell(kept, "leo", "trace", "open", suspect, *words)) == 0
    assert "next       stanch trace plan by-steps --release NAME" in capsys.readouterr().out
    assert run(shell(kept, "leo", "trace", "plan", "by-steps", "--release", "nonsense")) == 2
    entries = []
    for _ in range(2):  # the second time finds the plan of the first
        assert run(shell(kept, "leo", "--json", "trace", "plan", "by-steps", "--release", "r1")) == 0
        entries.append(json.loads(capsys.readouterr().out)["data"]["entry"])
    assert entries[0] == entries[1]
    assert run(shell(kept, "leo", "trace", "run", "by-steps")) == 1
    assert run(shell(kept, "leo", "trace", "plan", "by-steps", "--release", "r1")) == 2
    assert "decided already" in refusal(capsys)
