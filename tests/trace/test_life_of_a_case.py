import json
import os
import subprocess
import sys
import zipfile

import pytest
from trace_world import ADAPTER_FILE, CASE_KEY, HISTORY, LATER, PRINCIPAL, make_adapter, rewrite

from stanch.crypto import SigningKey
from stanch.errors import CustodyBroken, InvalidInput, NotFound
from stanch.trace import (
    Accused,
    Case,
    CasePlan,
    ErrorBudget,
    Inconclusive,
    NothingFound,
    PackForm,
    PackInvalid,
    PlanMismatch,
    Reason,
    decide,
    decision_to_json,
    error_sentence,
    examine,
    fix_plan,
    load_examination,
    verify_pack,
)
from stanch.weights import open_adapter, write_safetensors


def test_a_copy_leads_to_its_recipient_and_to_nobody_else(stolen):
    decision = stolen.decision
    assert isinstance(decision, Accused)
    assert [item.recipient for item in decision.recipients] == ["globex"]
    assert decision.recipients[0].z > 60
    assert decision.recipients[0].log10_p < -500
    assert decision.next_z < 6


def test_the_pack_verifies_here(evidence, stolen, world):
    found = verify_pack(evidence.path, key=CASE_KEY.public, vkey=world.log.vkey)
    assert [name for name, _ in found.accused] == ["globex"]
    assert found.accused[0][1] > 60
    assert (found.plan.n, found.plan.analyses, found.plan.epsilon) == (100, 24, "1e-9")
    assert found.plan == stolen.examination.plan.plan


def test_the_pack_verifies_in_another_process_with_numpy_alone(evidence, world, key_file, tmp_path):
    with zipfile.ZipFile(evidence.path) as archive:
        for name in ("verify.py", "primitives.py"):
            (tmp_path / name).write_bytes(archive.read(f"verifier/{name}"))
    # Whatever but numpy and the standard library is imported, the run fails.
    guard = (
        "import sys, runpy\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top not in sys.stdlib_module_names and top not in ('numpy', 'primitives', '_distutils_hack'):\n"
        "            raise ImportError('forbidden: ' + name)\n"
        "sys.meta_path.insert(0, Guard())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-c", guard, str(tmp_path / "verify.py"), str(evidence.path)]
    run = subprocess.run(
        [*command, "--key", str(key_file), "--log", world.log.vkey],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    names = [line.split()[0] for line in run.stdout.splitlines()]
    assert names == [
        "pack",
        "log",
        "commitment",
        "plan",
        "custody",
        "receipts",
        "score",
        "decoys",
        "unchecked",
        "verified",
    ]
    assert "globex" in run.stdout


def test_copies_that_were_averaged_lead_to_all_their_recipients(world, tmp_path):
    suspect = rewrite(
        tmp_path / "mean", [world.copy("acme"), world.copy("umbrella é")], lambda stack: stack.mean(axis=0)
    )
    examined = world.examine(suspect)
    assert {item.recipient for item in examined.decision.recipients} == {"acme", "umbrella é"}
    pack = world.pack(examined, tmp_path / "pack.zip")
    found = verify_pack(pack.path, key=CASE_KEY.public, vkey=world.log.vkey)
    assert {name for name, _ in found.accused} == {"acme", "umbrella é"}


def test_an_innocent_suspect_names_nobody(world, tmp_path):
    examined = world.examine(make_adapter(tmp_path / "innocent", 77))
    assert isinstance(examined.decision, NothingFound)
    assert not examined.decision.unmarked_original
    assert examined.decision.next_z < examined.examination.plan.plan.threshold
    assert "int8" in examined.decision.power
    with pytest.raises(InvalidInput, match="nobody is accused"):
        world.pack(examined, tmp_path / "pack.zip")
    assert not (tmp_path / "pack.zip").exists()


def test_the_unmarked_original_is_named_as_such(world):
    decision = world.examine(world.release.original).decision
    assert isinstance(decision, NothingFound)
    assert decision.unmarked_original


def test_a_suspect_of_which_little_matches_is_inconclusive(world, tmp_path):
    decision = world.examine(make_adapter(tmp_path / "other", 5, modules=3)).decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.TOO_LITTLE_MATCHED


def test_a_small_part_of_a_copy_still_names_its_recipient(world, tmp_path):
    kept = list(open_adapter(world.copy("globex")).tensors.values())[:2]
    suspect = make_adapter(tmp_path / "s", 5, modules=1)
    write_safetensors(suspect / ADAPTER_FILE, kept)
    examined = world.examine(suspect)
    assert examined.examination.detection.matched < 0.1
    assert [item.recipient for item in examined.decision.recipients] == ["globex"]


def test_the_result_states_its_bound(stolen):
    plan = stolen.examination.plan.plan
    said = decision_to_json(stolen.decision, stolen.examination)
    assert said["verdict"] == "accused"
    assert (
        said["sentence"]
        == error_sentence(plan)
        == (
            "The probability, over the secret keys, that any innocent recipient, of 100 that the batch may have, "
            "would be accused of any suspect file in 24 analyses is at most 1e-9."
        )
    )
    assert json.dumps(said)


def test_an_examination_is_read_back_as_it_was(stolen):
    case = Case.load(stolen.case.folder)
    assert load_examination(case) == stolen.examination
    assert decide(case, load_examination(case), HISTORY) == stolen.decision


def test_a_case_that_was_not_examined_says_so(world, tmp_path):
    with pytest.raises(NotFound, match="not examined"):
        load_examination(world.open_case(make_adapter(tmp_path / "s", 3)))


def test_a_plan_is_for_one_case_and_one_suspect(world, stolen, tmp_path):
    other = world.open_case(make_adapter(tmp_path / "s", 4))
    with pytest.raises(PlanMismatch, match="another case"):
        examine(other, stolen.examination.plan, world.release, actor=PRINCIPAL, at=LATER)


def test_a_plan_reads_back_and_refuses_what_does_not_follow(stolen):
    plan = stolen.examination.plan.plan
    assert CasePlan.parse(plan.to_bytes()) == plan
    for before, after in ((b'"n":100', b'"n":4'), (b'"rounds":2', b'"rounds":3'), (b'"case":', b'"extra":1,"case":')):
        changed = plan.to_bytes().replace(before, after, 1)
        assert changed != plan.to_bytes()
        with pytest.raises(InvalidInput):
            CasePlan.parse(changed)
    with pytest.raises(InvalidInput, match="format 1"):
        CasePlan.parse(plan.to_bytes().replace(b"trace-plan:v2", b"trace-plan:v1"))


def test_a_suspect_that_changes_in_custody_is_noticed(world, tmp_path):
    case = world.open_case(make_adapter(tmp_path / "s", 6))
    plan, _ = world.log_plan(fix_plan(case, world.release, epsilon="1e-9", budget=ErrorBudget()))
    config = case.suspect_folder / "adapter_config.json"
    config.chmod(0o600)
    config.write_bytes(config.read_bytes() + b"\n")
    with pytest.raises(CustodyBroken, match="not what was taken into custody"):
        examine(case, plan, world.release, actor=PRINCIPAL, at=LATER)
    with pytest.raises(CustodyBroken):
        Case.load(case.folder)
    assert not (case.folder / "examination.json").exists()


def test_a_suspect_that_changes_after_the_examination_decides_nothing(world, tmp_path):
    examined = world.examine(make_adapter(tmp_path / "s", 7))
    (examined.case.suspect_folder / "added.txt").write_text("x")
    decision = examined.decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.CUSTODY_BROKEN


def test_equal_input_gives_equal_packs(world, stolen, evidence, tmp_path):
    again = world.pack(stolen, tmp_path / "again.zip")
    assert again.digest == evidence.digest
    assert again.path.read_bytes() == evidence.path.read_bytes()
    assert again.path.stat().st_mode & 0o777 == 0o600


def test_a_pack_is_never_replaced_and_parts_that_do_not_belong_together_leave_none(world, stolen, evidence, tmp_path):
    with pytest.raises(InvalidInput, match="exists already"):
        world.pack(stolen, evidence.path)
    other = world.examine(world.copy("acme"))
    with pytest.raises(PackInvalid) as caught:
        world.pack(stolen, tmp_path / "mixed.zip", proofs=other.proofs)
    assert caught.value.step == "plan"
    assert list(tmp_path.iterdir()) == []
    p256 = SigningKey.generate("p256")
    with pytest.raises(InvalidInput, match="Ed25519"):
        world.pack(stolen, tmp_path / "p256.zip", form=PackForm(p256))


def test_the_report_shows_what_it_must_and_escapes_what_it_shows(world, tmp_path):
    examined = world.examine(world.copy("initech"), description="<script>alert(1)</script>")
    pack = world.pack(examined, tmp_path / "pack.zip")
    with zipfile.ZipFile(pack.path) as archive:
        page = archive.read("report.html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "Content-Security-Policy" in page
    assert error_sentence(examined.examination.plan.plan) in page
    assert str(examined.case.suspect) in page
    for title in ("The question", "What was received", "The method", "The result", "What this does not show"):
        assert f"<h2>{title}</h2>" in page
    assert "<svg" in page
    # No key of the accused stands in what people read.
    leaf = world.release.commitment.leaf_of("initech")
    assert leaf.subkey.hex() not in page
