"""The command lines of the documents that stand without their output, run in their order against small things.

What a page leaves open is filled in here: a small model, a folder for a bucket, numbers and names that an earlier
command printed. Fences of the language ``console`` show their output and are compared with it (test_transcripts).
"""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import life
import pytest

from tiny_base import write_base

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from command_lines import fences  # noqa: E402 - beside this file

from stanch.crypto import SigningKey  # noqa: E402 - after the path is set
from stanch.crypto.identity import generate_identity  # noqa: E402 - same
from stanch.workspace import Workspace  # noqa: E402 - same
from stanch.workspace.verbs_model import pass_gate  # noqa: E402 - same
from stanch.workspace.verbs_release import propose_release  # noqa: E402 - same

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def lines(page):
    """Return the command lines of a page's fences without a language."""
    found = [line for language, body in fences(page.read_text()) if not language for line in body.splitlines()]
    return [line for line in found if line.startswith("stanch ")]


@dataclass
class Stage:
    """Folders of people, what stands for the words that a page leaves open, and where those are printed."""

    root: Path
    stanch: object
    chdir: object
    words: dict[str, str]
    printed: dict[str, str] = field(default_factory=dict)

    def folder(self, _words):
        """Return the folder of whoever types this."""
        return self.root

    def run(self, line):
        """Run a command line and note what it prints; files that it names are brought from the others' folders."""
        for word, value in self.words.items():
            line = line.replace(word, value)
        words = shlex.split(line, comments=True)[1:]
        here = self.folder(words)
        for before, word in pairwise(words):
            found = [other / word for other in self.root.iterdir() if (other / word).exists()]
            if found and before != "--out" and not (here / word).exists():
                (shutil.copytree if found[0].is_dir() else shutil.copy)(found[0], here / word)
        self.chdir(here)
        shown = self.stanch(*self.more(words))
        for word, pattern in self.printed.items():
            if word not in self.words and (found := re.search(pattern, shown.out + shown.err, re.MULTILINE)):
                self.words[word] = found[1]
        return shown

    def more(self, words):
        """Return the words with what this place needs besides."""
        return words


class People(Stage):
    """A publisher with a workspace, a recipient, and somebody who has none."""

    def folder(self, words):
        mine = {("release", verb) for verb in ("fetch", "open", "receive", "fetch-key", "redeem")}
        if tuple(words[:2]) in mine:
            return self.root / "acme"
        return self.root / ("plain" if words[0] in {"key", "seal"} or words[:2] == ["trace", "verify"] else "w")

    def more(self, words):
        if "--as" in words:
            return ["--passphrase-file", str(self.root / f"{words[words.index('--as') + 1]}.txt"), *words]
        return words


@pytest.fixture
def chdir(monkeypatch):
    return monkeypatch.chdir


def make_people(tmp_path, case, material):
    """Put what a publisher and a recipient have into their folders."""
    for name in ("acme", "plain"):
        (tmp_path / name).mkdir()
    publisher = (case.folder / ".stanch/keys/publisher.pub.pem").read_bytes()
    for name in ("acme", "w"):
        (tmp_path / name / "publisher.pub.pem").write_bytes(publisher)
    material.acme.save(tmp_path / "acme" / "acme.json")
    signer = SigningKey.generate("ed25519")
    signer.save(tmp_path / "acme" / "acme-sign.pem")
    (tmp_path / "w" / "acme-sign.pub.pem").write_bytes(signer.public.to_pem())
    with (case.folder / "stanch.toml").open("a") as file:
        file.write('\n[gate]\nrelease_context = "internal-api"\n')
    return {
        "s3://bucket/releases": f"file:{tmp_path}/store", "stanch1-x25519-…": str(material.acme.recipient),
        "/var/releases": str(tmp_path / "store"),
    }  # fmt: skip


PRINTED = {
    "BUNDLE-ID": r"/store/([0-9a-f]{64})", "517": r"leaf +(\d+)", "sha256:…": r"expected --request (sha256:[0-9a-f]+)",
}  # fmt: skip


def make_publisher(tmp_path):
    """Make a workspace of one person, whose model passed the gate."""
    made = life.make_material(tmp_path / "material")
    material = replace(made, model=made.copy_model(tmp_path / "w" / "out"))
    case = life.Case(tmp_path / "w", material, tmp_path / "w" / "report" / "leakcert.json")
    case.certificate.parent.mkdir()
    with Workspace.init(case.folder) as workspace:
        life.certify(material.result, material.model, workspace.keys.signer("publisher"), case.certificate)
        pass_gate(workspace, material.model, case.certificate, life.POLICY)
    return material, case


def test_a_copy_goes_out_signed_for(tmp_path, stanch, chdir):
    material, case = make_publisher(tmp_path)
    words = make_people(tmp_path, case, material) | {"MODEL": str(material.base)}
    words[" --holdout kept-out.jsonl"] = ""  # no model runs here; test_release_marks.py measures one
    material.copy_model(tmp_path / "plain" / "model")
    stage = People(tmp_path, stanch, chdir, words, dict(PRINTED))
    for line in lines(ROOT / "docs/guides/release.md"):
        assert (shown := stage.run(line)).code == 0, (line, shown)


def test_two_people_release_a_copy(tmp_path, stanch, chdir):
    case = life.make_proposed(tmp_path, life.make_material(tmp_path / "material"), life.Files())
    words = make_people(tmp_path, case, case.material)
    for name in life.APPROVERS:
        (tmp_path / f"{name}.txt").write_bytes(f"the passphrase of {name}".encode())
        (tmp_path / f"{name}.txt").chmod(0o600)
        case.material.identities[name].save(case.folder / f"{name}.json")
    stage = People(tmp_path, stanch, chdir, words, dict(PRINTED))
    for line in lines(ROOT / "docs/access.md"):
        asked = "release approve" in line and "--request" not in line
        own = line.replace("stanch1-x25519-…", str(case.material.identities["rita"].recipient))
        assert (shown := stage.run(own if "register" in line else line)).code == (2 if asked else 0), (line, shown)


def test_a_copy_travels_without_a_workspace(tmp_path, stanch, chdir):
    material = life.make_material(tmp_path / "material")
    for name in ("model", "home", "data"):
        shutil.copytree(material.model, tmp_path / name)
    shutil.copytree(material.base, tmp_path / "base")
    material.acme.save(tmp_path / "acme.json")
    SigningKey.generate("p256").save(tmp_path / "publisher.pem")
    (tmp_path / "publisher.pub.pem").write_bytes(SigningKey.load(tmp_path / "publisher.pem").public.to_pem())
    words = {
        "s3://bucket/releases": f"file:{tmp_path}/store", "stanch1-x25519-…": str(material.acme.recipient),
        "/home /data s3://backups": "home data",
    }  # fmt: skip
    stage = Stage(tmp_path, stanch, chdir, words, dict(PRINTED))
    for line in lines(ROOT / "docs/delivery.md"):
        if "release fetch" in line:
            shutil.rmtree(tmp_path / "acme.sealed")
        assert (shown := stage.run(line)).code == (1 if "--fingerprint" in line else 0), (line, shown)


def test_a_copy_that_surfaced_is_followed_back(tmp_path, stanch, chdir):
    material, case = make_publisher(tmp_path)
    words = make_people(tmp_path, case, material)
    with Workspace.open(case.folder) as workspace:
        propose_release(workspace, case.proposal(name="spring"))
        words["LOG_KEY"] = workspace.ledger.verifier.vkey
    words["CASE_KEY"] = str(case.folder / ".stanch/keys/case.pub.pem")
    expert = generate_identity()
    expert.save(tmp_path / "plain" / "expert.key")
    words['"$EXPERT"'] = str(expert.recipient)
    stage = People(tmp_path, stanch, chdir, words, {"CASE": r"^case (\S+)"})
    chdir(case.folder)
    assert (made := stanch("release", "create", "spring", "--to", "acme", "--out", "copy")).code == 0, made
    key = ("--trust", "publisher.pub.pem", "--identity", "../acme/acme.json")
    opened = stanch("seal", "unseal-unsafe", "copy", *key, "--out", "suspect")
    assert opened.code == 0, opened
    for line in lines(ROOT / "docs/guides/trace.md"):
        if "trace hunt" in line:  # needs somebody who serves a model: test_trace_hunt.py runs this very line
            continue
        assert (shown := stage.run(line)).code == (1 if "trace run" in line else 0), (line, shown)


def test_every_page_with_such_lines_is_run_here():
    here = Path(__file__).read_text()
    pages = [str(page.relative_to(ROOT)) for page in PAGES if lines(page)]
    assert len(pages) == 7
    assert [page for page in pages if f'ROOT / "{page}"' not in here] == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of two small layers with a tokenizer of bytes."""
    return write_base(tmp_path_factory.mktemp("tiny"))


def make_tuner(tmp_path, tiny):
    """Make a workspace beside a file of conversations, and the plan of the page on tuning, made small."""
    Workspace.init(tmp_path).close()
    life.make_data(tmp_path / "support.jsonl")
    (plan,) = (body for language, body in fences((ROOT / "docs/guides/tune.md").read_text()) if language == "toml")
    small = '[method]\nrank = 2\nalpha = 4\nlayers = [1]\n[train]\nsteps = 3\nbatch = 4\ndtype = "float32"\n'
    (tmp_path / "support.toml").write_text(plan.replace("models/smollm2", str(tiny)) + small)


@pytest.mark.nightly  # to load torch and peft takes longer than the other pages together
def test_a_model_is_tuned(tmp_path, stanch, chdir, tiny):
    make_tuner(tmp_path, tiny)
    shutil.copy(tmp_path / "support.jsonl", tmp_path / "train.jsonl")
    stage = Stage(tmp_path, stanch, chdir, {})
    for line in lines(ROOT / "docs/guides/tune.md"):
        assert (shown := stage.run(line)).code == 0, (line, shown)


def test_the_first_page_begins(tmp_path, stanch, chdir, tiny):
    life.make_data(tmp_path / "support.jsonl")
    stage = Stage(tmp_path, stanch, chdir, {"MODEL": str(tiny)})
    for line in lines(ROOT / "README.md")[:4]:  # init, scan, canaries plan and inject; what follows takes minutes
        assert (shown := stage.run(line)).code == 0, (line, shown)


ANSWERS = {"NO LEAK DETECTED": 0, "LEAK PROVEN": 1, "INCONCLUSIVE": 5, "BLOCKED": 1, "UNDECIDED": 5}
"""What audit and gate say first, and its exit code. Of so few rows no gate is sure: one in 1,000 could come out."""


def require_answer(line, shown):
    """Require that an audit or the gate ends with the code of what it says, and anything else with 0."""
    said = next((code for answer, code in ANSWERS.items() if shown.out.startswith(answer)), None)
    wanted = said if line.startswith("stanch audit") else 0
    assert wanted is not None, (line, shown)
    assert shown.code == wanted, (line, shown)


@pytest.mark.nightly
def test_the_first_page_goes_from_data_to_the_gate(tmp_path, stanch, chdir, tiny):
    make_tuner(tmp_path, tiny)
    shutil.rmtree(tmp_path / ".stanch")
    (tmp_path / "stanch.toml").unlink()
    life.make_data(tmp_path / "held.jsonl", 50)
    stage = Stage(tmp_path, stanch, chdir, {"MODEL": str(tiny)})
    for line in lines(ROOT / "README.md"):
        require_answer(line, stage.run(line))
    shutil.move(tmp_path / "report", tmp_path / "report-without-holdout")
    for line in lines(ROOT / "docs/guides/audit.md"):
        require_answer(line, stage.run(line))
