"""What lies in deploy/ names commands and settings that exist, and gives no part more than it needs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))  # the test folders are no packages

from command_lines import refuses

from stanch.cli.serve import serve
from stanch.config import load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "stanch.service"
ADMIN, SERVER = "admin", "server"
PROJECT = (ROOT / "pyproject.toml").read_text()


def compose():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def ours():
    """Return the services of the compose file that run stanch, without that of whoever administers."""
    found = compose()["services"]
    return {name: one for name, one in found.items() if one["image"] == "stanch" and name != ADMIN}


def image():
    """Return the instructions of the image: keyword and the rest."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(re.split(r"\s+", line, maxsplit=1)) for line in lines]


def unit():
    """Return the unit's settings by section: names and values in their order."""
    sections, section = {}, None
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            section.append(tuple(line.split("=", 1)))
    return sections


def unknown(words):
    """Return what of a command line ``stanch serve`` does not know."""
    flags = {flag for parameter in serve.params for flag in parameter.opts}
    return [word for word in words if word not in flags | {"serve", SERVER} and not word.startswith("/")]


def test_every_command_exists_with_its_flags():
    given = [words for name, words in unit()["Service"] if name.startswith("ExecStart")]
    commands = [shlex.split(words)[1:] for words in given]
    commands += [service["command"] for service in ours().values()]
    commands += [json.loads(rest) for word, rest in image() if word == "CMD"]
    assert len(commands) == 7
    for words in commands:
        assert "serve" in words
        assert unknown(words) == []
    assert unknown(["serve", "--gateway"]) == ["--gateway"]
    assert ("ENTRYPOINT", '["stanch"]') in image()


def admin_lines():
    """Return the command lines that the compose file asks an administrator to run."""
    lines = re.findall(r"compose run --rm (\S+) (.*)", (DEPLOY / "compose.yaml").read_text())
    assert {name for name, _ in lines} == {ADMIN}
    return [shlex.split(words) for _, words in lines]


def test_the_way_to_the_first_workspace_is_commands_that_exist():
    assert [refuses(words) for words in admin_lines()] == ["", ""]
    begin, add = admin_lines()
    assert begin[:2] == ["init", "/work"]
    assert begin[-1] == "/run/secrets/owner"
    assert add[add.index("--role") + 1] == SERVER
    secrets = {service: set(one["secrets"]) for service, one in compose()["services"].items() if "secrets" in one}
    assert secrets.pop(ADMIN) == {"owner", SERVER, "pgpass"}
    assert not any("owner" in given for given in secrets.values())


def test_what_serves_acts_as_a_server():
    commands = [one["command"] for one in ours().values()]
    commands += [shlex.split(words) for name, words in unit()["Service"] if name.startswith("ExecStart")]
    for words in commands:
        assert words[words.index("--as") + 1] == SERVER
    assert {volume.partition(":")[0] for one in ours().values() for volume in one["volumes"]} == {
        "./work", "./gateway", "./tls",
    }  # fmt: skip
    mounted = {name: one["volumes"][0] for name, one in ours().items()}
    assert {name for name, volume in mounted.items() if volume == "./gateway:/work"} == {"gateway-1", "gateway-2"}


def test_every_setting_is_one(tmp_path):
    for service in ours().values():
        settings = {name: value for name, value in service["environment"].items() if name.startswith("STANCH_")}
        found = load_config(tmp_path / "none", environ=settings, user_file=None)
        assert found.workspace.tables.startswith("postgresql://")
        assert found.workspace.blobs.startswith("s3://")
        assert found.gateway.listen == "0.0.0.0:8400"
        assert found.gateway.certificate
        assert found.console.url.startswith("https://")


def test_the_image_has_the_parts_that_it_runs_and_no_root():
    (named,) = [rest for word, rest in image() if word == "ARG"]
    extras = named.removeprefix("EXTRAS=").split(",")
    assert set(extras) == {"gateway", "watch", "console", "postgres", "s3", "aws"}
    assert any('".[$EXTRAS]"' in rest for _, rest in image())
    assert all(re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE) for extra in extras)
    assert ("USER", "10001:10001") in image()
    assert [rest for word, rest in image() if word == "VOLUME"] == ["/work"]


def test_the_set_is_two_gateways_console_and_watch_on_one_database_and_one_store():
    services, found = ours(), compose()
    assert sorted(flag for one in services.values() for flag in one["command"] if flag.endswith("-only")) == [
        "--console-only", "--gateway-only", "--gateway-only", "--watch-only",
    ]  # fmt: skip
    for service in services.values():
        assert (service["read_only"], service["user"], service["cap_drop"]) == (True, "10001:10001", ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["depends_on"]) <= set(found["services"])
        assert set(service["secrets"]) <= set(found["secrets"])
        assert int(service["stop_grace_period"].rstrip("s")) > 35  # stanch's own patience with answers on their way
    for service in found["services"].values():
        given = service.get("environment", {}).items()
        secret = [value for name, value in given if re.search("PASSWORD$|SECRET|ACCESS_KEY", name)]
        assert all(value.startswith("${") for value in secret)


def test_the_unit_is_valid_and_hardened(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "stanch.service"
    copy.write_text(UNIT.read_text().replace("/opt/stanch/bin/stanch", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)  # noqa: PLW1510 - the code is looked at
    assert (checked.returncode, checked.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", copy]
    judged = subprocess.run(words, capture_output=True, text=True)  # noqa: PLW1510 - the code is looked at
    assert judged.returncode == 0, judged.stdout  # exposure at most 2.0 of 10
    copy.write_text(copy.read_text().replace("ProtectSystem=strict", "ProtectSistem=strict"))
    wrong = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)  # noqa: PLW1510 - as above
    assert "ProtectSistem" in wrong.stderr


def test_the_unit_waits_longer_than_answers_and_does_not_repeat_what_does_not_help():
    service = dict(unit()["Service"])
    assert int(service["TimeoutStopSec"]) > 35
    assert service["RestartPreventExitStatus"].split() == ["2", "3"]
    assert service["KillMode"] == "mixed"


def test_the_build_takes_what_the_package_is_made_of_and_no_key(tmp_path):
    lines = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert (lines[0], lines[-1]) == ("*", "**/__pycache__")  # all is out; what is let in stands between
    let_in = [line.removeprefix("!") for line in lines[1:-1]]
    assert [f"!{name}" for name in let_in] == lines[1:-1]
    for name in let_in:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    assert set(let_in) == {"LICENSE", "README.md", "constraints.txt", "pyproject.toml", "src"}
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    built = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    held = set(zipfile.ZipFile(wheel).namelist())
    files = (path.relative_to(tmp_path / "src") for path in (tmp_path / "src" / "stanch").rglob("*") if path.is_file())
    assert {path.as_posix() for path in files} <= held
