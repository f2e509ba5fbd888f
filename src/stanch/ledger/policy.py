"""Trust policies (C2SP tlog-policy): which logs are trusted, and which witnesses must have cosigned a checkpoint.

A policy file has lines ``log <vkey> [<url>]``, ``witness <name> <vkey> [<url>]``, ``group <name> <k|any|all> <name>…``
and one ``quorum <name|none>``. Names are bytes to which nothing is done: two that look alike are different.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from stanch.errors import InvalidInput, QuorumUnmet
from stanch.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from stanch.ledger.note import COSIGNATURE, ED25519, NoteSignature, NoteVerifier

NO_QUORUM = "none"

_MAX_BYTES = 64 << 10
_MAX_NAMES = 256
_BLANK = re.compile("[ \t]+")
_COUNT = re.compile("[1-9][0-9]{0,3}")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: its name in the policy, its cosignature key, and where it is asked, if that is known."""

    name: str
    key: NoteVerifier
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """``threshold`` of the members, each a witness or another group."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Which logs a verifier trusts, and how many witnesses must have cosigned.

    Attributes:
        logs: Keys of the trusted logs; at least one.
        witnesses: The known witnesses.
        groups: Groups of them, each defined after its members.
        quorum: Name of the witness or group that must have cosigned, or ``none``.
    """

    logs: tuple[NoteVerifier, ...]
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NO_QUORUM

    def __post_init__(self) -> None:
        if not self.logs:
            raise InvalidInput("trust policy: names no log key", why="then nothing could ever verify")
        _check_keys("log", self.logs, ED25519)
        _check_keys("witness", [witness.key for witness in self.witnesses], COSIGNATURE)
        _check_names(self.witnesses, self.groups, self.quorum)

    @classmethod
    def of(cls, vkeys: Sequence[str], witnesses: Sequence[Witness] = ()) -> Self:
        """Return the policy that trusts the logs with the given vkeys, and needs all of the given witnesses."""
        logs = tuple(NoteVerifier.parse(vkey) for vkey in vkeys)
        if not witnesses:
            return cls(logs)
        everyone = Group("every witness", len(witnesses), tuple(witness.name for witness in witnesses))
        return cls(logs, tuple(witnesses), (everyone,), everyone.name)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a policy file.

        Raises:
            InvalidInput: It breaks a rule of the format; the line is named.
        """
        if len(data) > _MAX_BYTES:
            raise InvalidInput(f"trust policy: expected at most {_MAX_BYTES} bytes, found {len(data)}")
        if _FORBIDDEN.search(data):
            raise InvalidInput("trust policy: holds a control character other than tab and newline")
        if data and not data.endswith(b"\n"):
            raise InvalidInput("trust policy: its last line does not end in a newline")
        reader = _Reader()
        # Undecodable bytes stay apart from every decodable text, so a name is as opaque as the format asks for.
        for number, line in enumerate(data.decode(errors="surrogateescape").split("\n"), start=1):
            words = _BLANK.split(line.strip(" \t"))
            if words[0] and not words[0].startswith("#"):
                reader.read(words, number)
        if reader.quorum is None:
            raise InvalidInput("trust policy: has no quorum line", next_step="add one, for example: quorum none")
        return cls(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)

    @property
    def keys(self) -> tuple[NoteVerifier, ...]:
        """The keys of the logs and of the witnesses."""
        return (*self.logs, *(witness.key for witness in self.witnesses))

    def open(self, note: bytes, *, not_before_s: int = 0) -> SignedCheckpoint:
        """Check a signed checkpoint and its quorum.

        Args:
            note: The signed note with its cosignatures.
            not_before_s: Cosignatures made earlier (seconds since 1970) do not count.

        Raises:
            ProofInvalid: Not a well-formed checkpoint.
            NoTrustedSignature: No trusted log signed it, or a known key's signature does not verify.
            QuorumUnmet: Too few witnesses cosigned it.
        """
        signed = open_checkpoint(note, self.keys)
        self.require_quorum(signed.cosignatures, not_before_s=not_before_s)
        return signed

    def require_quorum(self, cosignatures: Iterable[NoteSignature], *, not_before_s: int = 0) -> None:
        """Raise :class:`stanch.errors.QuorumUnmet` unless the witnesses that cosigned make up the quorum."""
        counted = {(s.name, s.key_id) for s in cosignatures if s.time_s is not None and s.time_s >= not_before_s}
        present = {w.name for w in self.witnesses if (w.key.name, w.key.key_id) in counted}
        if self._met(self.quorum, present):
            return
        late = f" made since {not_before_s}" if not_before_s else ""
        raise QuorumUnmet(
            f"checkpoint: expected the quorum {_show(self.quorum)}, found {len(present)} known cosignatures{late}",
            why=f"cosigned: {', '.join(map(_show, sorted(present))) or 'nobody'}"[:400],
            next_step="ask for a newer checkpoint, or see whether the witnesses can be reached",
        )

    def overlap(self) -> int:
        """Return how many witnesses any two quorums have in common at least.

        With fewer than so many lying witnesses, no two histories can both reach the quorum. For k of n witnesses this
        is 2k − n.
        """
        shared = dict.fromkeys((witness.name for witness in self.witnesses), 1) | {NO_QUORUM: 0}
        for group in self.groups:
            both = max(0, 2 * group.threshold - len(group.members))
            shared[group.name] = sum(sorted(shared[member] for member in group.members)[:both])
        return shared[self.quorum]

    def _met(self, name: str, present: Collection[str]) -> bool:
        met = {witness.name: witness.name in present for witness in self.witnesses} | {NO_QUORUM: True}
        for group in self.groups:
            met[group.name] = sum(met[member] for member in group.members) >= group.threshold
        return met[name]


class _Reader:
    """What was read of a policy file so far."""

    def __init__(self) -> None:
        self.logs: list[NoteVerifier] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.names: set[str] = set()
        self.quorum: str | None = None

    def read(self, words: list[str], number: int) -> None:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(_parse_key(vkey, number))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._define(name, number)
                self.witnesses.append(Witness(name, _parse_key(vkey, number), "".join(url)))
            case ["group", name, threshold, *members] if members:
                self._refer(members, number)
                self._define(name, number)
                self.groups.append(Group(name, _threshold(threshold, len(members), number), tuple(members)))
            case ["quorum", name]:
                if self.quorum is not None:
                    raise _broken(number, "a second quorum line")
                self._refer([] if name == NO_QUORUM else [name], number)
                self.quorum = name
            case _:
                raise _broken(number, "expected a log, witness, group or quorum line with its parts")

    def _define(self, name: str, number: int) -> None:
        if name == NO_QUORUM or name in self.names:
            raise _broken(number, "a name that is taken")
        self.names.add(name)

    def _refer(self, names: list[str], number: int) -> None:
        if not self.names.issuperset(names):
            raise _broken(number, "a name that no line before defines")


def _parse_key(vkey: str, number: int) -> NoteVerifier:
    try:
        return NoteVerifier.parse(vkey)
    except InvalidInput as error:
        raise _broken(number, "not a key as name+hex+base64 with its right id") from error


def _threshold(text: str, members: int, number: int) -> int:
    if text in {"any", "all"}:
        return 1 if text == "any" else members
    if not _COUNT.fullmatch(text):
        raise _broken(number, "a threshold that is neither any, all nor a decimal")
    return int(text)


def _broken(number: int, why: str) -> InvalidInput:
    return InvalidInput(f"trust policy: line {number} breaks the format", why=why)


def _check_keys(what: str, keys: Sequence[NoteVerifier], kind: int) -> None:
    if any(key.kind != kind for key in keys):
        raise InvalidInput(f"trust policy: a {what} key is not of type {kind:02}")
    if len({key.key.raw for key in keys}) != len(keys):
        raise InvalidInput(f"trust policy: a {what} key stands there twice")


def _check_names(witnesses: Sequence[Witness], groups: Sequence[Group], quorum: str) -> None:
    names = [*(witness.name for witness in witnesses), *(group.name for group in groups)]
    if len(names) > _MAX_NAMES:
        raise InvalidInput(f"trust policy: expected at most {_MAX_NAMES} witnesses and groups, found {len(names)}")
    if len(set(names)) != len(names) or NO_QUORUM in names:
        raise InvalidInput("trust policy: a name stands for two things")
    known, members = {witness.name for witness in witnesses}, set[str]()
    for group in groups:
        if not 1 <= group.threshold <= len(group.members):
            raise InvalidInput(
                f"trust policy: group {_show(group.name)} asks for {group.threshold} of {len(group.members)} members"
            )
        for member in group.members:
            if member not in known or member in members:
                raise InvalidInput(
                    f"trust policy: {_show(member)} is not defined before its group, or is a member twice",
                    why="each witness may count in one way only",
                )
            members.add(member)
        known.add(group.name)
    if quorum not in known | {NO_QUORUM}:
        raise InvalidInput(f"trust policy: the quorum {_show(quorum)} is not defined")


def _show(name: str) -> str:
    """Return a name as it can be printed."""
    return name[:80].encode(errors="backslashreplace").decode()
