"""What is published: everything of the package is in the wheel, it works alone, and it is the same bytes each time."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "stanch"
MISSING = [name for name in ("hatchling", "pip") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed")


def run(*words, cwd=None, **environment):
    found = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{found.stdout}\n{found.stderr}"
    return found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", out, cwd=ROOT)
    (found,) = out.iterdir()
    return found


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    ours = {
        f"stanch/{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert all(archive.read(name) == (ROOT / "src" / name).read_bytes() for name in held & ours)
        licence = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert held == ours
    for part in ("py.typed", "scan/packs/names.bin", "access/default.cedar", "console/templates/base.html",
                 "console/static/console.js", "trace/verifier/README.txt", "mark/gaussian.bin"):  # fmt: skip
        assert f"stanch/{part}" in held
    assert licence


@pytest.mark.nightly
def test_it_installs_without_a_network_and_works_where_the_sources_are_not(wheel, tmp_path):
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check",
        "--target", tmp_path / "site", wheel)  # fmt: skip
    stanch, where = tmp_path / "site" / "bin" / "stanch", {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(stanch, "--version", cwd=tmp_path, **where).split()[-1] == version
    place = run(sys.executable, "-c", "import stanch; print(stanch.__file__)", cwd=tmp_path, **where)
    assert Path(place.strip()).is_relative_to(tmp_path)
    run(stanch, "init", "work", cwd=tmp_path, **where)  # reads the policies and their schema
    (tmp_path / "mail.jsonl").write_text('{"text": "Use postgres://crm:tr0ub4dor-3xK@db.acme.test/crm"}\n')
    scan = [stanch, "--json", "--workspace", "work", "scan", "mail.jsonl"]  # reads the rule packs
    found = subprocess.run(scan, cwd=tmp_path, env=os.environ | where, capture_output=True, check=False)
    assert (found.returncode, b'"findings"' in found.stdout) == (1, True), found


@pytest.mark.nightly
def test_a_commit_is_built_to_the_same_bytes_anywhere_and_signed(tmp_path):
    key = tmp_path / "publisher.pem"
    run(sys.executable, "-m", "stanch", "key", "new", "--kind", "sign", "--out", key, PYTHONPATH=str(ROOT / "src"))
    build = [sys.executable, ROOT / "tools" / "build_dist.py"]
    shown = [
        run(*build, tmp_path / "one", "--key", key, TZ="UTC"),
        run("/bin/sh", "-c", 'umask 077; exec "$@"', "sh", *build, tmp_path / "two", "--key", key, TZ="Asia/Tokyo"),
    ]
    assert shown[0].splitlines()[-2:] == shown[1].splitlines()[-2:]
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["sig", "whl", "gz"]
    for name in names[1:]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    pytest.importorskip("model_signing", reason="model-signing is not installed")
    verify = [sys.executable, "-m", "model_signing", "verify", "key", tmp_path / "one"]
    verify += ["--signature", tmp_path / "one" / "model.sig", "--public_key", key.with_suffix(".pub.pem")]
    run(*verify)
    (tmp_path / "one" / names[1]).write_bytes(b"another wheel")
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0
    ours = [sys.executable, "-m", "stanch", "sign", "verify", tmp_path / "one", "--trust", key.with_suffix(".pub.pem")]
    assert subprocess.run(ours, capture_output=True, check=False).returncode == 1
