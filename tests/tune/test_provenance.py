"""A run without privacy, described for provenance; the private one is in ``test_tune.py``."""

import pytest

from stanch.errors import Tampered
from stanch.sign import state_provenance
from stanch.terms import Digest
from stanch.tune import describe_run, verify_run
from stanch.tune.statement import RunFacts, state_no_privacy
from stanch.tune.verify import model_files


def test_a_run_without_privacy_states_neither_plan_nor_times(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    facts = RunFacts(
        files=model_files(tmp_path), base_digest=str(Digest.sha256(b"base")), dataset_root="ab" * 32, updates=3,
        dtype="float32", device="cpu", versions={"stanch": "0"},
    )  # fmt: skip
    (tmp_path / "statement.json").write_bytes(state_no_privacy(facts).to_json())
    run = describe_run(verify_run(tmp_path))
    assert [subject.name for subject in run.model] == ["adapter_config.json", "adapter_model.safetensors"]
    assert run.model[1].digest == Digest.sha256(b"weights")
    assert (run.method, run.base, run.dataset.hex) == ("lora", Digest.sha256(b"base"), "ab" * 32)
    assert (run.privacy, run.config, run.started, run.finished) == (None, None, None, None)
    assert run.invocation == f"urn:stanch:run:{Digest.sha256((tmp_path / 'statement.json').read_bytes()).hex}"
    assert str(tmp_path) not in state_provenance(run).to_bytes().decode()
    (tmp_path / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(Tampered):
        verify_run(tmp_path)
