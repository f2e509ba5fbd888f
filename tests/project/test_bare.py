"""The core alone: every public module imports, and the help costs nothing heavy."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("STANCH_BARE") or ROOT / ".venv-bare" / "bin" / "python")
HEAVY = (
    "starlette",
    "jinja2",
    "apprise",
    "torch",
    "transformers",
    "peft",
    "faker",
    "dp_accounting",
    "gguf",
    "psycopg",
    "obstore",
)
NOT_FOR_HELP = (*HEAVY, "numpy", "scipy", "sqlalchemy", "cedarpy", "hyperscan", "uvicorn", "aiohttp", "cryptography")

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="`make test` makes the bare environment .venv-bare")

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import stanch
done = []
for module in pkgutil.walk_packages(stanch.__path__, "stanch."):
    name = module.name
    # The console as a whole is an extra: its pages stand on a framework.
    if name.rpartition(".")[2].endswith("_torch") or name == "stanch.__main__" or name.startswith("stanch.console."):
        continue
    importlib.import_module(name)
    done.append(name)
print(json.dumps({"done": done, "heavy": [m for m in %r if m in sys.modules]}))
"""

HELP = """
import sys
sys.argv = ["stanch", "--help"]
import contextlib, io, json
from stanch.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main()
print(json.dumps({"lines": len(out.getvalue().splitlines()), "heavy": [m for m in %r if m in sys.modules]}))
"""


def ask(script):
    process = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_every_public_module_imports_without_any_extra():
    answer = ask(IMPORT_ALL % (HEAVY,))
    modules = {str(path.relative_to(ROOT / "src").with_suffix("")).replace("/", ".") for path in
               (ROOT / "src" / "stanch").rglob("*.py")}  # fmt: skip
    expected = {
        m.removesuffix(".__init__")
        for m in modules
        if not m.endswith(("_torch", "__main__"))
        and m != "stanch.__init__"
        and not (m.startswith("stanch.console.") and m != "stanch.console.__init__")
    }
    assert expected - set(answer["done"]) == set()
    assert answer["heavy"] == []


def test_the_help_imports_nothing_heavy():
    answer = ask(HELP % (NOT_FOR_HELP,))
    assert answer["lines"] > 20
    assert answer["heavy"] == []


def test_a_missing_part_is_named_with_its_install_line(tmp_path):
    spec = tmp_path / "SPEC.toml"
    spec.write_text('[base]\npath = "."\n[data]\nuri = "x.jsonl"\nunit = "record"\n')
    (tmp_path / "x.jsonl").write_text('{"text": "one"}\n')
    init = subprocess.run([PYTHON, "-m", "stanch", "init", "w"], cwd=tmp_path, capture_output=True, check=False)
    assert init.returncode == 0, init.stderr
    command = [PYTHON, "-m", "stanch", "--json", "--workspace", "w", "tune", "run", str(spec)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    answer = json.loads(process.stdout)
    assert process.returncode == 4, answer
    assert "pip install 'stanch[train]'" in answer["error"]["next"]
