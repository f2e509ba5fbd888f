"""A proposal counts once its outcome is in the log, its number rises, and its file names no other model."""

import pytest

from stanch.errors import InvalidInput, OutcomeNotRecorded, PolicyViolation, StoreError
from stanch.ledger import Ledger, Phase
from stanch.workspace import verbs_release
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_release import propose_release, release_folder


def cut_off(monkeypatch, kind):
    """Let the log take no outcome of a kind that says ``done``; return what puts that right."""
    real = Ledger.append_nowait

    def append(self, entry, *, within=None):
        if entry.phase is Phase.OUTCOME and entry.act.kind == kind and entry.result == "done":
            raise StoreError("the disk is full")
        return real(self, entry, within=within)

    monkeypatch.setattr(Ledger, "append_nowait", append)
    return lambda: monkeypatch.setattr(Ledger, "append_nowait", real)


def test_a_proposal_whose_outcome_is_not_in_the_log_is_withdrawn_and_no_copy_is_made_of_it(case, tmp_path, monkeypatch):
    mend = cut_off(monkeypatch, "release.propose")
    with case.acting("dana") as dana:
        with pytest.raises(OutcomeNotRecorded):
            propose_release(dana, case.proposal("r9"))
        assert not release_folder(dana, "r9").exists()
        monkeypatch.setattr(ReleaseState, "destroy", lambda _self: None)  # as if it had been killed just before
        with pytest.raises(OutcomeNotRecorded):
            propose_release(dana, case.proposal("r9"))
        mend()
        propose_release(dana, case.proposal("r10"))
    with case.acting("rolf") as rolf:
        with pytest.raises(PolicyViolation, match="did not come to its end"):
            case.create(rolf, tmp_path / "out", name="r9")
        assert not (tmp_path / "out").exists()
        assert case.create(rolf, tmp_path / "out", name="r10").path.exists()


def test_of_two_proposals_at_once_the_later_one_fails(case, monkeypatch):
    real, chosen, left = verbs_release.prove_commitment, verbs_release._rising, []

    def meanwhile(*arguments):
        monkeypatch.setattr(verbs_release, "prove_commitment", real)
        with case.acting("dana") as other:
            # As if it had chosen its number before the first one's intent was there.
            monkeypatch.setattr(verbs_release, "_rising", lambda *given, **when: chosen(*given, **when) if when else 2)
            with pytest.raises(InvalidInput, match="above 2, found 2"):
                propose_release(other, case.proposal("r3"))
            left.append(release_folder(other, "r3").exists())
        return real(*arguments)

    monkeypatch.setattr(verbs_release, "prove_commitment", meanwhile)
    with case.acting("dana") as dana:
        (first, *_) = propose_release(dana, case.proposal("r2")).facts.requests.values()
        assert first.release_number == 2
        assert left == [False]
        monkeypatch.setattr(verbs_release, "_rising", chosen)
        (later, *_) = propose_release(dana, case.proposal("r3")).facts.requests.values()
        assert later.release_number == 3
