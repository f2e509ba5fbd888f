import json
import os
import subprocess
import sys

import pytest
from trace_world import CASE_KEY, LATER, NOW, PRINCIPAL, RECIPIENTS, make_adapter, rewrite

from stanch.errors import CustodyBroken, InvalidInput, NotFound
from stanch.trace import (
    Accused,
    Case,
    CasePlan,
    ErrorBudget,
    Inconclusive,
    NothingFound,
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


def test_a_copy_leads_to_its_recipient_and_to_nobody_else(world, stolen):
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
    assert (found.plan.n, found.plan.analyses, found.plan.epsilon) == (4, 8, "1e-9")
    assert found.plan == stolen.examination.plan.plan


def test_the_pack_verifies_in_another_process_with_numpy_alone(evidence, world, key_file, tmp_path):
    import zipfile

    with zipfile.ZipFile(evidence.path) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verifier/verify.py"))
    # Whatever but numpy and the standard library is imported, the run fails.
    guard = (
        "import sys, runpy\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top not in sys.stdlib_module_names and top not in ('numpy', '_distutils_hack'):\n"
        "            raise ImportError('forbidden: ' + name)\n"
        "sys.meta_path.insert(0, Guard())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-c", guard, str(tmp_path / "verify.py"), str(evidence.path)]
    run = subprocess.run(
        [*command, "--key", str(key_file), "--log", world.log.vkey],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    names = [line.split()[0] for line in run.stdout.splitlines()]
    assert names == ["pack", "log", "commitment", "plan", "custody", "score", "decoys", "verified"]
    assert "globex" in run.stdout
