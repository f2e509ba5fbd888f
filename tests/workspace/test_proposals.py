"""A proposal counts once its outcome is in the log, its number rises, and its file names no other model."""

import json
import shutil
from dataclasses import replace

import life
import numpy as np
import pytest

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, OutcomeNotRecorded, PolicyViolation, StoreError
from stanch.ledger import EntryQuery, Ledger, Phase, decode_entry
from stanch.sign import TrustedKeys
from stanch.terms import ArtifactRef, Digest
from stanch.weights import Tensor, open_adapter, write_safetensors
from stanch.workspace import verbs_release
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_deliver import deliver_copy
from stanch.workspace.verbs_receipt import receive
from stanch.workspace.verbs_release import propose_release, release_folder

OTHER = Digest.sha256(b"another model, which passed its gate")


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


def test_a_model_that_was_tuned_from_a_marked_copy_is_refused(case, stolen, tmp_path):
    generator = np.random.default_rng(3)
    tuned = shutil.copytree(stolen, tmp_path / "tuned")
    tensors = [
        Tensor.from_float32(name, values * (1 + 0.02 * generator.normal(size=values.shape).astype(np.float32)))
        for name, tensor in open_adapter(stolen).tensors.items()
        for values in [tensor.to_float32()]
    ]
    write_safetensors(tuned / "adapter_model.safetensors", tensors)
    with case.acting("dana") as dana:
        with pytest.raises(PolicyViolation, match="marked copy of release r1, that of acme"):
            propose_release(dana, replace(case.proposal("r2"), model=tuned))
        assert not release_folder(dana, "r2").exists()
        state = ReleaseState.load(release_folder(dana, "r1"))
        clean = shutil.copytree(state.model, tmp_path / "clean")
        propose_release(dana, replace(case.proposal("r3"), model=clean))
        state.folder.joinpath("release.json").write_bytes(
            state.folder.joinpath("release.json").read_bytes().replace(str(state.model).encode(), b"/absent")
        )
        propose_release(dana, replace(case.proposal("r4"), model=clean))
        *_, ref = dana.ledger.reader().query(EntryQuery(kind="release.propose", phase="outcome"))
        told = decode_entry(dana.ledger.reader().entry(ref.index))["unmapped"]["stanch"]["payload"]
        assert told["unscored"] == ["r1"]


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


def exchange(workspace, name, *, within):
    """Let a release's file name another model, alone or in its requests as well; return what puts that right."""
    path = release_folder(workspace, name) / "release.json"
    kept, other = path.read_bytes(), str(OTHER)
    document = json.loads(kept)
    document["digest"] = other
    for request in document["requests"].values() if within else ():
        request["model"] = other
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    return lambda: path.write_bytes(kept)


@pytest.mark.parametrize("within", [False, True])
def test_nothing_is_decided_about_a_model_that_the_log_does_not_name(case, tmp_path, within):
    """Otherwise whoever writes the file has a quarantined model go out under the name of one that is not."""
    copy, store = tmp_path / "copy", f"file:{tmp_path}/store"
    with case.acting("rolf") as rolf:
        case.create(rolf, copy)
        trusted = TrustedKeys(rolf.keys.publics("publisher"))
        rita = rolf.acting_as("rita", unlock=lambda: life.passphrase("rita"))
        acts = (
            lambda: case.create(rolf, tmp_path / "another"),
            lambda: case.approve(rita),
            lambda: deliver_copy(rolf, copy, store, trusted),
            lambda: receive(rolf, "r1", "acme", b"{}", SigningKey.generate("ed25519").public),
        )
        rolf.people.set_gate(ArtifactRef("model", case.material.model.name, OTHER), "passed")
        size = rolf.ledger.reader().size()
        mend = exchange(rolf, "r1", within=within)
        for act in acts:
            with pytest.raises(PolicyViolation):
                act()
        assert not (tmp_path / "another").exists()
        kinds = [json.loads(data)["unmapped"]["stanch"]["kind"] for _, data in rolf.ledger.reader().tail(size)]
        assert set(kinds) <= {"release.create"}
        mend()
        assert case.approve(rita).count == 1
