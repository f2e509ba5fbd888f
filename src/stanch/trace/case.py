"""A case: one suspect, taken into custody under its digests and never altered."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import msgspec

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic
from stanch.errors import Conflict, CustodyBroken, InvalidInput
from stanch.terms import Digest, JsonValue
from stanch.trace.custody import Act, Custody, Item, extend_custody, read_custody, utc
from stanch.weights import directory_digest, walk_files

SCHEMA = "urn:stanch:trace-case:v1"
CASE_FILE = "case.json"
_CASE_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,63}")
_CHUNK = 1 << 20


class _CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: Literal["urn:stanch:trace-case:v1"]
    case: str
    opened: str
    description: str
    discovered: str
    received_from: str
    suspect: str
    suspect_files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Intake:
    """What is known when a suspect arrives.

    Attributes:
        case_id: Name of the case: 3 to 64 of a–z, 0–9 and ``-``.
        description: What the suspect is, in plain words.
        discovered: When it was found.
        received_from: From whom it was received.
        actor: Who takes it into custody.
    """

    case_id: str
    description: str
    discovered: datetime
    received_from: str
    actor: str


@dataclass(frozen=True, slots=True)
class Case:
    """An opened case.

    Attributes:
        folder: Where the case lies.
        id: Its name.
        suspect: Digest over all files of the suspect.
        files: SHA-256 (hex) of each file of the suspect, by its name.
        discovered: When it was found, ``YYYY-MM-DDTHH:MM:SSZ``.
        opened: When it was taken into custody, likewise.
        description: What it is, in plain words.
        received_from: From whom it was received.
    """

    folder: Path
    id: str
    suspect: Digest
    files: dict[str, str]
    discovered: str
    opened: str
    description: str
    received_from: str

    @property
    def suspect_folder(self) -> Path:
        """The suspect's copy in custody."""
        return self.folder / "suspect"

    @property
    def custody_file(self) -> Path:
        """The chain of custody."""
        return self.folder / "custody.jsonl"

    @property
    def digest(self) -> Digest:
        """SHA-256 of the case file."""
        return Digest.sha256(self.file.read_bytes())

    @property
    def file(self) -> Path:
        """The case file."""
        return self.folder / CASE_FILE

    def custody(self) -> Custody:
        """Return the verified chain of custody.

        Raises:
            CustodyBroken: It is broken, empty, or a line is about other files than the suspect's.
        """
        custody = read_custody(self.custody_file, self.id)
        if not custody.lines or custody.lines[0].action != "acquired":
            raise CustodyBroken(f"{self.custody_file}: the chain does not begin with taking the suspect into custody")
        for line in custody.lines:
            if {item.name: item.sha256 for item in line.items} != self.files:
                raise CustodyBroken(f"{self.custody_file}: line {line.n} is about other files than the suspect's")
        return custody

    def items(self) -> list[Item]:
        """Return the suspect's files as custody items."""
        return [Item(name, (self.suspect_folder / name).stat().st_size, digest) for name, digest in self.files.items()]

    def extend(self, act: Act) -> Custody:
        """Write down an act on the suspect."""
        return extend_custody(self.custody_file, self.id, act, self.items())

    def check_suspect(self) -> None:
        """Re-hash the suspect.

        Raises:
            CustodyBroken: A file of the suspect changed since it was taken into custody.
        """
        found = directory_digest(self.suspect_folder)
        if found.root != self.suspect or {name: digest for name, _size, digest in found.files} != self.files:
            changed = [name for name, _size, digest in found.files if self.files.get(name) != digest]
            raise CustodyBroken(
                f"{self.suspect_folder}: the suspect is not what was taken into custody",
                why=f"changed or added: {', '.join(changed) or 'none; a file is missing'}",
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes of this machine from examining the case until the block is left, or the process ends.

        Raises:
            Conflict: Another one does.
        """
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    f"case {self.id}: another process examines it", next_step="wait until that has ended"
                ) from error
            yield
        finally:
            os.close(handle)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open an existing case and verify its custody and its suspect.

        Raises:
            InvalidInput: The folder holds no case.
            CustodyBroken: The chain or the suspect was changed.
        """
        case = cls.read(folder)
        case.custody()
        case.check_suspect()
        return case

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what the case file says; neither the custody nor the suspect is looked at.

        Raises:
            InvalidInput: The folder holds no case.
        """
        path = folder / CASE_FILE
        if not path.is_file():
            raise InvalidInput(
                f"{folder}: expected a case folder with {CASE_FILE}", next_step="stanch trace run SUSPECT"
            )
        try:
            file = msgspec.convert(parse_json(path.read_bytes(), what=str(path)), _CaseFile)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{path}: not a case file", why=str(error)) from error
        return cls(
            folder, file.case, Digest.parse(file.suspect), file.suspect_files, file.discovered, file.opened,
            file.description, file.received_from,
        )  # fmt: skip


def is_case_id(text: str) -> bool:
    """Say whether a case may be called so: 3 to 64 of a–z, 0–9 and ``-``."""
    return _CASE_ID.fullmatch(text) is not None


def open_case(folder: Path, suspect: Path, intake: Intake, *, opened: datetime) -> Case:
    """Copy ``suspect`` (a folder, one safetensors file or one GGUF file) into custody and start its chain.

    Raises:
        InvalidInput: The suspect does not exist or holds no weights, the case exists already, or its id is malformed.
    """
    if not is_case_id(intake.case_id):
        raise InvalidInput("a case id has 3 to 64 of a-z, 0-9 and '-', and starts with a letter or digit")
    sources = dict(_suspect_files(suspect))
    if not any(name.endswith((".safetensors", ".gguf")) for name in sources):
        raise InvalidInput(
            f"{suspect}: no weights found",
            why="expected at least one .safetensors or .gguf file; pickles are never loaded",
        )
    if folder.exists():
        raise InvalidInput(
            f"{folder}: exists already",
            next_step=f"go on with it: stanch trace run {intake.case_id}; or choose another case id",
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "suspect").mkdir(parents=True, mode=0o700)
    digests = {name: _copy(path, partial / "suspect" / name) for name, path in sorted(sources.items())}
    case = Case(
        partial, intake.case_id, directory_digest(partial / "suspect").root, digests, utc(intake.discovered),
        utc(opened), intake.description, intake.received_from,
    )  # fmt: skip
    fields: dict[str, JsonValue] = {
        "schema": SCHEMA,
        "case": case.id,
        "opened": case.opened,
        "description": case.description,
        "discovered": case.discovered,
        "received_from": case.received_from,
        "suspect": str(case.suspect),
        "suspect_files": dict(digests),
    }
    write_atomic(case.file, canonical_json(fields), mode=0o600)
    case.extend(Act(intake.actor, "acquired", opened, f"received from {intake.received_from}"))
    partial.rename(folder)
    sync_folder(folder.parent)
    return Case.load(folder)


def _suspect_files(suspect: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of each regular file; links and special files are refused."""
    if suspect.is_file() and not suspect.is_symlink():
        yield suspect.name, suspect
        return
    if not suspect.is_dir():
        raise InvalidInput(f"{suspect}: no such file or folder")
    yield from sorted(walk_files(suspect), key=lambda pair: pair[1])


def _copy(source: Path, target: Path) -> str:
    """Copy one file durably and return the SHA-256 (hex) of what was copied."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    hasher = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            hasher.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o400)
    return hasher.hexdigest()
