"""The guard that the settings of a model describe: its files are opened, its policy is compiled."""

from dataclasses import dataclass
from pathlib import Path

from stanch.config import GuardSettings
from stanch.crypto import canonical_json
from stanch.data import CanaryPlan
from stanch.errors import InvalidInput, VerificationError
from stanch.guard import Action, Guard, GuardPolicy
from stanch.scan import Dictionary, Recogniser, SpanIndex, load_pack, pack_digest
from stanch.terms import Digest, JsonValue
from stanch.workspace import Keyring
from stanch.workspace.indexes import open_index


@dataclass(frozen=True, slots=True)
class DescribedGuard:
    """A guard, and what it was made of.

    Attributes:
        guard: The guard.
        facts: Digests of its files and packs, its actions, and the digest of its allowed values. What the settings do
            not name is left out.
    """

    guard: Guard
    facts: dict[str, JsonValue]

    @property
    def digest(self) -> str:
        """SHA-256 of the facts as canonical JSON; it stands in the intent of every request."""
        return str(Digest.sha256(canonical_json(self.facts)))


def build_guard(settings: GuardSettings, folder: Path, keys: Keyring | None) -> DescribedGuard:
    """Return the guard of a model.

    Args:
        settings: What it looks for; relative paths start at ``folder``.
        folder: The workspace.
        keys: Those of the workspace; an index and dictionaries need them.

    Raises:
        InvalidInput: A file is missing or damaged, keys are missing, or as :class:`stanch.guard.GuardPolicy`.
        VerificationError: A file was changed, was made with another key, or is not of the digest that the settings say.
    """
    facts: dict[str, JsonValue] = {}
    index: SpanIndex | None = None
    canaries: tuple[str, ...] = ()
    dictionaries: tuple[Dictionary, ...] = ()
    if settings.index:
        index, digest = open_index(_needed(keys), folder / settings.index)
        facts["index"] = str(digest)
    if settings.canaries:
        canaries = CanaryPlan.load(folder / settings.canaries).tripwires
        facts["canaries"] = str(_digest(folder / settings.canaries))
    if settings.dictionaries:
        key = _needed(keys).scan_key("dictionary")
        dictionaries = tuple(Dictionary.load(folder / one, key=key) for one in settings.dictionaries)
        facts["dictionaries"] = [str(_digest(folder / one)) for one in settings.dictionaries]
    rules: tuple[Recogniser, ...] = ()
    for pack in settings.packs:
        rules += _read_pack(folder / pack.file, pack.digest)
    if settings.packs:
        facts["packs"] = [pack.digest for pack in settings.packs]
    if settings.actions:
        facts["actions"] = dict(sorted(settings.actions.items()))
    if settings.allow:
        facts["allow"] = str(Digest.sha256(canonical_json([*sorted(settings.allow)])))
    if settings.lead_hold:
        facts["lead_hold"] = True
    policy = GuardPolicy(
        index, canaries, dictionaries, rules,
        actions={name: Action(action) for name, action in settings.actions.items()}, allow=settings.allow,
        lead_hold=settings.lead_hold,
    )  # fmt: skip
    return DescribedGuard(Guard(policy), facts)


def _read_pack(path: Path, digest: str) -> tuple[Recogniser, ...]:
    rules = load_pack(path)
    if (found := str(pack_digest(rules))) != digest:
        raise VerificationError(
            f"{path}: not the pack that the settings name", why=f"its digest is {found}",
            next_step="see what changed, then write this digest into the settings",
        )  # fmt: skip
    return rules


def _needed(keys: Keyring | None) -> Keyring:
    if keys is None:
        raise InvalidInput("an index and dictionaries are opened with keys", next_step="work in their workspace")
    return keys


def _digest(path: Path) -> Digest:
    import hashlib  # noqa: PLC0415 - used here alone

    with path.open("rb") as file:
        return Digest("sha256", hashlib.file_digest(file, "sha256").digest())
