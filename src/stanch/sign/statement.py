"""in-toto Statement v1: subjects by digest, and a typed predicate about them."""

from dataclasses import dataclass
from typing import Self

from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.terms import Digest, JsonValue

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_MAX_SUBJECTS = 65_536


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing a statement is about: a name and its SHA-256 digest."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said (``predicate``, of ``predicate_type``) about which bytes (``subjects``, at least one)."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, JsonValue]

    def __post_init__(self) -> None:
        if not 1 <= len(self.subjects) <= _MAX_SUBJECTS:
            raise InvalidInput(f"a statement needs 1 to {_MAX_SUBJECTS} subjects, found {len(self.subjects)}")
        if len({subject.name for subject in self.subjects}) != len(self.subjects):
            raise InvalidInput("a statement names a subject twice")

    def to_bytes(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": s.name, "digest": {s.digest.algorithm: s.digest.hex}} for s in self.subjects],
                "predicateType": self.predicate_type,
                "predicate": self.predicate,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, what: str = "statement") -> Self:
        """Read a statement strictly.

        Raises:
            InvalidInput: It is not an in-toto v1 statement with SHA-256 subjects.
        """
        match parse_json(payload, what=what):
            case {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [*subjects],
                "predicateType": str(predicate_type),
                "predicate": dict(predicate),
                **extra,
            } if not extra:
                return cls(tuple(_read_subject(item, what) for item in subjects), predicate_type, predicate)
        raise InvalidInput(f"{what}: expected an in-toto Statement v1 with its four fields")


def _read_subject(item: JsonValue, what: str) -> Subject:
    match item:
        case {"name": str(name), "digest": {"sha256": str(value), **others}, **extra} if not others and not extra:
            return Subject(name, Digest.parse(f"sha256:{value}"))
    raise InvalidInput(f"{what}: each subject needs a name and one sha256 digest")


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """A statement whose signature and policy held; only :func:`stanch.sign.verify_bundle` makes one.

    Attributes:
        statement: What was said.
        signer_key_ids: Ids of the trusted keys whose signatures verified; never empty.
    """

    statement: Statement
    signer_key_ids: tuple[str, ...]
