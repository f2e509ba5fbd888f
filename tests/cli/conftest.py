"""Fixtures: a workspace of one person, and the command line run in this process."""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workspace"))  # the test folders are no packages

import life

from stanch.cli.frame import run
from stanch.crypto import SigningKey
from stanch.crypto.passphrase import Passphrase
from stanch.release import RemoteBundle, deliver
from stanch.scan import SpanIndex
from stanch.seal import SealParams, VolatileReleases, read_manifest, seal
from stanch.sign import TrustedKeys, sign_manifest
from stanch.workspace import Workspace
from stanch.workspace.verbs_log import verify_log
from stanch.workspace.verbs_model import pass_gate
from stanch.workspace.verbs_release import propose_release


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No settings of the user, no terminal, and the test's own folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _cheaply():
    with life.cheaply():
        yield


@dataclass(frozen=True)
class Shown:
    """What a command showed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def stanch(capsys):
    """Run ``stanch`` with the given words."""

    def call(*words):
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Shown(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A workspace whose owner let a model through the gate and proposed a release, and files of every kind."""
    folder = tmp_path_factory.mktemp("cli")
    material = life.make_material(folder / "material")
    case = life.Case(folder / "w", material, folder / "cert.json")
    with Workspace.init(case.folder) as workspace:
        life.certify(material.result, material.model, workspace.keys.signer("publisher"), case.certificate)
        pass_gate(workspace, material.model, case.certificate, life.POLICY)
        propose_release(workspace, case.proposal())
    sign = SigningKey.generate("p256")
    sign.save(folder / "sign.pem")
    (folder / "sign.pub.pem").write_bytes(sign.public.to_pem())
    (folder / "other.pub.pem").write_bytes(SigningKey.generate("p256").public.to_pem())
    material.acme.save(folder / "acme.key")
    material.other.save(folder / "other.key")
    material.acme.save(folder / "locked.key", passphrase=Passphrase("the passphrase"))
    params = SealParams(kind="adapter", lineage="acme/bot", release_number=1)
    recipients = [material.acme.recipient]
    seal(material.model, folder / "sealed", recipients, params, lambda data: sign_manifest(data, sign).to_bytes())
    (folder / "report.json").write_bytes(material.result.report.to_bytes())
    (folder / "scores.csv").write_bytes(material.result.table.to_csv())
    (folder / "wrong-scores.csv").write_bytes(life.make_table(1.0).to_csv())
    return SimpleNamespace(folder=folder, case=case, material=material)


LOG = (".stanch/anchors", ".stanch/blobs/log", ".stanch/stanch.db", ".stanch/ledger.highwater")


def digest_of(workspace):
    """Return the digest of all that a workspace keeps, but for its log, which also keeps what failed.

    The log's folders are not even listed: they grow with each command.
    """
    state, log = hashlib.sha256(), tuple(f"{workspace}/{name}" for name in LOG)
    for folder, inner, names in os.walk(workspace):
        inner[:] = sorted(name for name in inner if not f"{folder}/{name}".startswith(log))
        for path in sorted(f"{folder}/{name}" for name in names):
            if not path.startswith(log):
                data = Path(path).read_bytes()
                state.update(f"{path} {len(data)} ".encode() + data)
    return state.hexdigest()


@pytest.fixture(scope="module")
def files(template, tmp_path_factory):
    """The files of every kind, copied, and damaged ones."""
    folder = tmp_path_factory.mktemp("files")
    place = folder / "files"
    shutil.copytree(template.folder, place)
    made = SimpleNamespace(**{
        path.name.replace(".", "_").replace("-", "_"): path for path in place.iterdir()
    })  # fmt: skip
    made.place, made.model, made.base = place, template.material.model, template.material.base
    made.data, made.recipient = template.material.data, str(template.material.acme.recipient)
    made.missing, made.empty, made.text = place / "missing", place / "empty.jsonl", place / "text.json"
    made.empty.touch()
    made.text.write_text('{"something": "else"}\n')
    made.unreadable = place / "unreadable.jsonl"
    made.unreadable.write_text('{"text": "the first row"}\n{"text": "the secret of row two"\n')
    made.truncated = Path(shutil.copytree(made.sealed, place / "truncated"))
    body = max((path for path in made.truncated.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    body.write_bytes(body.read_bytes()[:-100])
    made.owner = made.w / ".stanch/keys/people/owner.json"
    made.zeros, made.store = "0" * 64, place / "store"
    trusted = TrustedKeys((SigningKey.load(made.sign_pem).public,))
    remote = RemoteBundle.at(f"file:{made.store}", read_manifest(made.sealed).bundle_id)
    deliver(made.sealed, remote, trusted, memory=VolatileReleases())
    made.store_uri = f"{remote.location}/{remote.bundle_id}"
    made.no_model = place / "no-model"
    made.no_model.mkdir()
    made.leak = life.certify(
        life.make_result(made.model, 4.0), made.model, SigningKey.load(made.w / ".stanch/keys/publisher.pem"),
        place / "leak.json",
    )  # fmt: skip
    made.out, made.name = folder / "out", f"<EMAIL:{'A' * 20}>"
    made.index = place / "part.index"
    with Workspace.open(made.w) as opened:
        SpanIndex.build(["a text"], key=opened.keys.secret("index")).save(made.index)
    return made


@pytest.fixture(scope="module")
def unchanged():
    """Assert that a workspace is as it was, but for its log, which is whole.

    Of the log that is asserted once, after the last test: an entry stays, and so does an act without an outcome, or
    its lease ran out meanwhile and whoever opened the workspace next recorded it as abandoned.
    """
    watched = set()

    class Watch:
        def __init__(self, workspace):
            self.workspace, self.before = workspace, digest_of(workspace)
            watched.add(workspace)

        def check(self):
            assert digest_of(self.workspace) == self.before

    yield Watch
    for workspace in watched:
        with Workspace.open(workspace) as opened:
            assert verify_log(opened).intents_open == ()
            assert [entry for entry in life.entries(opened) if entry[3] == "abandoned"] == []
