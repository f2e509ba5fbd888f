"""Who asks the gate does not choose its limits, and the log says which were used."""

import life
import pytest

from stanch.audit import GatePolicy, parse_policy
from stanch.errors import PolicyViolation
from stanch.ledger import EntryQuery, decode_entry
from stanch.workspace import verbs_model, verbs_release
from stanch.workspace.opening import SETTINGS

LIMITS = '\n[gate]\nrelease_context = "partner"\nmax_extraction_rate = 0.002\n'
STRICT = parse_policy({"release_context": "partner", "max_extraction_rate": 0.002})


@pytest.fixture
def strict(case):
    """The team with a ``[gate]`` in its settings."""
    settings = case.folder / SETTINGS
    settings.write_text(settings.read_text() + LIMITS)
    return case


def told(workspace, kind):
    """Return the payload of the newest intent of a kind, and the result of its outcome."""
    reader = workspace.ledger.reader()
    ref = next(reader.query(EntryQuery(kind=kind, phase="intent", newest_first=True)))
    done = next(reader.query(EntryQuery(act=ref.act, phase="outcome")))
    intent, outcome = (decode_entry(reader.entry(index))["unmapped"]["stanch"] for index in (ref.index, done.index))
    return intent["payload"], outcome.get("result", "")


def test_the_gate_refuses_limits_looser_than_the_workspaces_and_records_all(strict):
    with strict.acting("dana") as workspace:
        for lax in (life.POLICY, parse_policy({"release_context": "partner", "max_extraction_rate": 0.5})):
            with pytest.raises(PolicyViolation, match="looser than the workspace's"):
                verbs_model.pass_gate(workspace, strict.material.model, strict.certificate, lax)
            payload, result = told(workspace, "audit.gate")
            assert payload["policy"] == lax.to_payload()
            assert result == "failed"
        verbs_model.pass_gate(workspace, strict.material.model, strict.certificate, STRICT)
        payload, _ = told(workspace, "audit.gate")
        assert payload["policy"]["release_context"] == "partner"
        assert payload["policy"]["max_extraction_rate"] == "0.002"
        assert set(payload["policy"]) == set(GatePolicy.__struct_fields__)


def test_a_copy_is_made_under_no_looser_limits_either(strict, tmp_path):
    with strict.acting("rolf") as workspace:
        with pytest.raises(PolicyViolation, match="release_context = internal-api is looser"):
            strict.create(workspace, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        assert told(workspace, "release.create")[0]["policy"] == life.POLICY.to_payload()
        terms = verbs_release.CopyTerms(policy=STRICT, approvers=life.APPROVERS)
        verbs_release.create_release(workspace, "r1", "acme", tmp_path / "copy", terms)
        assert told(workspace, "release.create")[0]["policy"] == STRICT.to_payload()


def test_without_limits_of_the_workspace_any_policy_may_ask(case):
    with case.acting("dana") as workspace:
        verbs_model.pass_gate(workspace, case.material.model, case.certificate, life.POLICY)
        assert told(workspace, "audit.gate")[0]["policy"]["release_context"] == "internal-api"
