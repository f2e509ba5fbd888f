"""A terminal, a clock that can be wrong, and a small life: a team that released a model to two recipients."""

import contextlib
import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workspace"))  # the test folders are no packages

import life

from stanch.cli.frame import run
from stanch.crypto import SigningKey

PEOPLE = {
    "dana": "--role data_steward --role ml_engineer",
    "rita": "--role release_manager --key rita.pub.pem",
    "rolf": "--role release_manager --key rolf.pub.pem",
    "ada": "--role auditor",
    "ines": "--role incident_lead",
}
LOCKED = ("olga", "rita", "rolf")
RECIPIENTS = ("acme", "bolt")
DATABASE = Path("team/.stanch/stanch.db")
STORE = Path("store")


@dataclass(frozen=True)
class Shown:
    """What a command showed: its exit code and its words."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        """The result that ``--json`` printed."""
        return json.loads(self.out)["data"]

    @property
    def slug(self):
        """The name of the error that ``--json`` printed."""
        return json.loads(self.out)["error"]["slug"]


def stanch(line):
    """Run a line as somebody types it after ``stanch``, in this process; its output is what a process would print."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(shlex.split(line))
    return Shown(code, out.getvalue(), err.getvalue())


def team(name, line):
    """Run a line in the team's workspace as one of its people."""
    return stanch(_as(name, line))


def _as(name, line):
    key = f"--passphrase-file {name}.txt " if name in LOCKED else ""
    return f"--workspace team --as {name} {key}{line}"


def done(shown):
    """Return what a command showed that must have worked."""
    assert shown.code == 0, shown
    return shown


def process(line, *before, **options):
    """Run a line as a process of its own, after the words ``before``."""
    words = [*before, sys.executable, "-m", "stanch", *shlex.split(line)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, **options)
    return Shown(ended.returncode, ended.stdout, ended.stderr)


def change(statement, *values):
    """Change the database as somebody does who has the file; return the rows of a question."""
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        found = connection.execute(statement, values).fetchall()
        connection.commit()
    return found


def unguard(table):
    """Drop the triggers that keep a table as it is: they bind programs, not whoever owns the file."""
    for (name,) in change("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?", table):
        change(f"DROP TRIGGER {name}")


def flip(path, where=-1):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)


def put_back(source, target):
    """Replace a folder by an older copy of it."""
    shutil.rmtree(target)
    shutil.copytree(source, target)


def request_of(recipient):
    """Return what exactly is to be approved for a recipient's copy, as its approvers are shown it."""
    shown = team("rita", f"release approve r1 --to {recipient} --identity rita.key")
    return next(word for word in shown.err.split() if word.startswith("sha256:") and "--request" in shown.err)


def live(folder):
    """Play the life of a model in ``folder``: a team, a model, two approvals, two copies, a bucket."""
    material = life.make_material(folder / "material")
    material.model.rename(folder / "model")
    material.base.rename(folder / "base")
    for name in LOCKED:
        (folder / f"{name}.txt").write_text(f"the passphrase of {name}")
        (folder / f"{name}.txt").chmod(0o600)
    (folder / "gate.toml").write_text('[gate]\nrelease_context = "internal-api"\n')
    with contextlib.chdir(folder):
        made = done(stanch("init team --profile team --owner olga --owner-passphrase-file olga.txt --json"))
        Path("log.vkey").write_text(made.data["vkey"])
        for name in life.APPROVERS:  # each on a machine of the own
            done(stanch(f"key new --kind person --new-passphrase-file {name}.txt --out {name}.json"))
            shutil.move(f"{name}.json", "team/.stanch/keys/people")
        for name, words in PEOPLE.items():
            done(team("olga", f"access add {name} {words}"))
        to = {name: done(stanch(f"key new --out {name}.key --json")).data["recipient"]
              for name in (*life.APPROVERS, *RECIPIENTS)}  # fmt: skip
        for name in life.APPROVERS:
            done(team(name, f"access key register {to[name]}"))
        signer = SigningKey.load(Path("team/.stanch/keys/publisher.pem"))
        life.certify(life.make_result(Path("model")), Path("model"), signer, Path("leakcert.json"))
        shutil.copy("team/.stanch/keys/publisher.pub.pem", "pub.pem")
        done(team("dana", "audit gate model --cert leakcert.json --policy gate.toml"))
        done(team("dana", "release propose model --base base --cert leakcert.json --name r1 --lineage acme/bot "
                          + " ".join(f"--to {name}={to[name]}" for name in RECIPIENTS)))  # fmt: skip
        for name in RECIPIENTS:
            release(name, to[name])


def release(name, to, release="r1"):
    """Let rolf make a recipient's copy, both approve it, and rita deliver it."""
    made = team("rolf", f"release create {release} --to {name} --approver rita --approver rolf --policy gate.toml "
                        f"--out {name}.sealed --json")  # fmt: skip
    request = done(made).data["request"]
    for approver in life.APPROVERS:
        words = f"release approve {release} --to {name} --identity {approver}.key --request {request}"
        done(team(approver, f"{words} --out {approver}-for-{name}.json"))
    sent = done(team("rita", f"release deliver {name}.sealed file:store --before-receipt --json")).data
    facts = {"uri": sent["uri"], "request": request, "to": to}
    Path(f"{name}.json").write_text(json.dumps(facts))


def facts(name):
    """Return URI, request and public key of a recipient's copy."""
    return json.loads(Path(f"{name}.json").read_text())


def get(name, out="got"):
    """Let a recipient fetch a copy and redeem it; return what each command showed."""
    fetched = stanch(f"release fetch {facts(name)['uri']} --trust pub.pem --out {out}")
    return fetched, stanch(f"release redeem {out} --identity {name}.key --trust pub.pem")


def open_as(identity, bundle="got", more=""):
    """Open a copy with an identity."""
    return stanch(f"--json release open {bundle} --identity {identity}.key --trust pub.pem {more}")


def verify_log(more=""):
    """Verify the log with its key as it was noted when it began."""
    return stanch(f"--json --workspace team --as ada log verify --vkey {Path('log.vkey').read_text()} {more}")


class Later:
    """A machine whose clock is not this one's: the same terminal, so many days ahead of it or behind."""

    def __init__(self):
        source = Path(__file__).with_name("later.py")
        where = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=where
        )

    def __call__(self, days, line):
        """Run a line on that machine."""
        asked = {"folder": str(Path.cwd()), "seconds": days * 86_400, "line": line}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Shown(*json.loads(self.process.stdout.readline()))

    def team(self, days, name, line):
        """Run a line in the team's workspace as one of its people."""
        return self(days, _as(name, line))

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
