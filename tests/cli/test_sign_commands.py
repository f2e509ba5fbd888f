"""The commands of ``stanch sign``, what they print and how they end."""

import json

import pytest

from stanch.crypto import SigningKey
from stanch.sign import PROVENANCE_TYPE, Bundle, PredicateType, TrustedKeys, all_of, verify_bundle
from stanch.tune.statement import RunFacts, state_no_privacy
from stanch.tune.verify import model_files


@pytest.fixture
def bot(tmp_path):
    """A folder to sign, and the keys of two publishers."""
    for name in ("a", "b"):
        key = SigningKey.generate("p256")
        key.save(tmp_path / f"{name}.pem")
        (tmp_path / f"{name}.pub").write_bytes(key.public.to_pem())
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot/config.json").write_text("{}")
    return tmp_path / "bot"


def test_a_signed_folder_is_verified_until_a_file_changes(stanch, bot):
    made = stanch("--json", "sign", "create", "bot", "--key", "a.pem", "--hash", "sha256")
    assert (made.code, made.json["data"]["signature"]) == (0, "bot/model.sig")
    again = stanch("sign", "create", "bot", "--key", "a.pem")
    assert (again.code, "not replaced" in again.err) == (2, True)
    checked = stanch("--json", "sign", "verify", "bot", "--trust", "a.pub").json["data"]
    assert (checked["files"], checked["hash"], checked["name"]) == (1, "sha256", "bot")
    assert stanch("sign", "verify", "bot", "--trust", "b.pub").code == 1
    (bot / "new.txt").write_text("")
    refused = stanch("--json", "sign", "verify", "bot", "--trust", "a.pub")
    assert (refused.code, refused.json["error"]["slug"]) == (1, "directory-mismatch")
    assert refused.json["error"]["why"] == "unlisted: new.txt"


@pytest.mark.usefixtures("bot")
def test_two_signers_reach_a_threshold_of_two(stanch, tmp_path):
    keys = "".join(f'[[keys]]\nname = "{n}"\npem = """{(tmp_path / f"{n}.pub").read_text()}"""\n' for n in ("a", "b"))
    (tmp_path / "trust.toml").write_text("threshold = 2\n" + keys)
    assert stanch("sign", "create", "bot", "--key", "a.pem").code == 0
    assert stanch("sign", "create", "bot", "--key", "b.pem", "--out", "b.sig").code == 0
    alone = stanch("sign", "verify", "bot", "--trust", "trust.toml")
    assert (alone.code, "expected 2, found 1" in alone.err) == (1, True)
    both = stanch(
        "--json",
        "sign",
        "verify",
        "bot",
        "--trust",
        "trust.toml",
        "--signature",
        "bot/model.sig",
        "--signature",
        "b.sig",
    )
    assert len(both.json["data"]["key_ids"]) == 2


def test_intake_lists_every_finding_and_fails(stanch, bot):
    assert stanch("sign", "intake", "bot").out.startswith("ok         1 files")
    (bot / "run\n.py").write_text("")
    (bot / "x.pt").write_bytes(b"\x80\x02.")
    shown = stanch("sign", "intake", "bot")
    assert (shown.code, len(shown.out.splitlines())) == (1, 6)
    rows = [json.loads(line) for line in stanch("sign", "intake", "bot", "--jsonl").out.splitlines()]
    assert [(row["path"], row["kind"]) for row in rows] == [
        ("run\n.py", "code"),
        ("run\n.py", "name"),
        ("x.pt", "pickle"),
    ]
    assert stanch("--json", "sign", "intake", "bot").json["ok"] is False


def test_the_provenance_of_a_run_is_signed_once(stanch, bot, tmp_path):
    (bot / "adapter_config.json").write_text("{}")
    facts = RunFacts(
        files=model_files(bot), base_digest="sha256:" + "00" * 32, dataset_root="11" * 32, updates=1, dtype="float32",
        device="cpu", versions={},
    )  # fmt: skip
    (bot / "statement.json").write_bytes(state_no_privacy(facts).to_json())
    made = stanch("sign", "provenance", "bot", "--key", "a.pem", "--out", "p.json")
    assert (made.code, "2 files, lora, no differential privacy" in made.out) == (0, True)
    bundle = Bundle.parse((tmp_path / "p.json").read_bytes())
    trusted = TrustedKeys((SigningKey.load(tmp_path / "a.pem").public,))
    assert len(verify_bundle(bundle, all_of(trusted, PredicateType(PROVENANCE_TYPE))).statement.subjects) == 2
    assert stanch("sign", "provenance", "bot", "--key", "a.pem", "--out", "p.json").code == 2
    (bot / "config.json").write_text("{ }")
    assert stanch("sign", "provenance", "bot", "--key", "a.pem", "--out", "q.json").code == 1
