"""Build wheel and source distribution of the last commit, the same bytes anywhere, and sign them with stanch.

    python tools/build_dist.py dist --key publisher.pem

Needs git and hatchling. What is built is the commit, never the working tree; every time in the archives is that of the
commit. Both archives are built a second time, elsewhere and from the source distribution: bytes that differ end it, and
nothing is signed. The signature is ``dist/model.sig``: ``stanch sign verify dist --trust publisher.pub.pem`` checks it.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def git(*words: str) -> bytes:
    """Return what git says about the repository."""
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True).stdout  # noqa: S603, S607 - our words


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar archive, plain files and folders inside ``folder`` only; return the one folder that it holds."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


def build(source: Path, out: Path, epoch: str) -> list[Path]:
    """Build both archives of a source tree; return them by name."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("HATCH_")}
    found = subprocess.run(  # noqa: S603 - our words
        [sys.executable, "-m", "hatchling", "build", "--directory", str(out)],
        cwd=source, env=known | {"SOURCE_DATE_EPOCH": epoch}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode:
        sys.exit(f"error: hatchling could not build it\n{found.stderr}")
    return sorted(out.iterdir())


def build_twice(out: Path) -> list[Path]:
    """Build the last commit into ``out``, and again from its own source distribution; refuse if a byte differs."""
    epoch = git("log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "commit.tar").write_bytes(git("archive", "--format=tar", "--prefix=stanch/", "HEAD"))
        made = build(unpack(scratch / "commit.tar", scratch / "commit"), out, epoch)
        source = next(path for path in made if path.name.endswith(".tar.gz"))
        unpacked = unpack(source, scratch / "source")
        (unpacked / "PKG-INFO").unlink()  # hatchling writes its own beside any that it finds
        again = build(unpacked, scratch / "again", epoch)
        for one, other in zip(made, again, strict=True):
            if (one.name, one.read_bytes()) != (other.name, other.read_bytes()):
                sys.exit(f"error: {one.name} is not the same when it is built from the source distribution")
    return made


def stanch(*words: str) -> None:
    """Run this checkout's own command line."""
    where = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "stanch", *words], env=where, check=True)  # noqa: S603 - our words


def main() -> None:
    """Build, compare, sign, verify."""
    parser = argparse.ArgumentParser(description="Build, compare and sign what is published.")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--key", type=Path, required=True, help="the publisher's private signing key, as PEM")
    parser.add_argument("--trust", type=Path, help="its public key; beside the private one if not given")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    made = build_twice(asked.out)
    # SHA-256, so that the command line of model-signing reads it as well.
    stanch("sign", "create", str(asked.out), "--key", str(asked.key), "--hash", "sha256")
    stanch("sign", "verify", str(asked.out), "--trust", str(asked.trust or asked.key.with_suffix(".pub.pem")))
    print(f"commit     {git('rev-parse', 'HEAD').decode().strip()}")
    for path in made:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")


if __name__ == "__main__":
    main()
