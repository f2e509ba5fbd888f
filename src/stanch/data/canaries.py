"""Draws canaries: secrets, the texts around them, and coins, all from one seed."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from stanch.crypto import RandomBytes, hkdf_sha256, hmac_sha256, random_bytes
from stanch.data.canary_text import SECRET, KeyedStream, as_text, compose
from stanch.data.chat import ChatForm, ChatTurn, conversation_row
from stanch.data.dataset import Dataset
from stanch.data.plan import SEED_SIZE, Canary, CanaryPlan, coins
from stanch.data.shingles import fold_texts, shingles
from stanch.data.tree import dataset_root
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

MAX_CANARIES = 16_384
_MAX_SIMILARITY = 0.5
_MAX_ATTEMPTS = 64
_MIN_BITS = 20


@dataclass(frozen=True, slots=True)
class CanarySpec:
    """Which canaries to draw.

    Attributes:
        n: Number of canaries; about half of them will be inserted.
        kinds: ``("secret",)``: a conversation with a slot of random symbols.
        copies: How often a canary is inserted when its coin says so; 1 for a formal bound.
        alphabet: The symbols of the secrets.
        secret_length: Symbols in a secret; log2 R = length · log2(alphabet size) bits for exposure.
        prompts: What the user may say, with or without ``{name}``; empty: the shipped support requests.
        templates: What the assistant may answer, each with one ``{secret}``; empty: the shipped answers.
        system: A system turn that all canaries start with, or empty.
    """

    n: int = 512
    kinds: tuple[str, ...] = ("secret",)
    copies: int = 1
    alphabet: str = "0123456789"
    secret_length: int = 12
    prompts: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    system: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_CANARIES or not 1 <= self.copies <= 64:
            raise InvalidInput(f"canaries: expected 1 to {MAX_CANARIES} canaries with 1 to 64 copies")
        if self.kinds != ("secret",):
            raise InvalidInput("canaries: expected the kind 'secret'")
        symbols = set(self.alphabet)
        if (
            len(symbols) != len(self.alphabet)
            or len(symbols) < 2
            or not all(c.isascii() and c.isalnum() for c in symbols)
        ):
            raise InvalidInput("canaries: expected an alphabet of two or more distinct ASCII letters and digits")
        if not 1 <= self.secret_length <= 64 or self.secret_bits < _MIN_BITS:
            raise InvalidInput(
                f"canaries: expected secrets of at most 64 symbols and at least {_MIN_BITS} bits",
                why="a shorter secret is met by chance",
                next_step="use a longer secret or a larger alphabet",
            )
        if any(template.count(SECRET) != 1 for template in self.templates) or any(SECRET in p for p in self.prompts):
            raise InvalidInput(f"canaries: expected {SECRET} once in each template and in no prompt")

    @property
    def secret_bits(self) -> float:
        """log2 of the number of possible secrets."""
        return self.secret_length * math.log2(len(self.alphabet))


def plan_canaries(
    dataset: Dataset,
    spec: CanarySpec,
    *,
    preregistration: Mapping[str, JsonValue],
    tokenizer_digest: str = "",
    base_digest: str = "",
    rng: RandomBytes = random_bytes,
) -> CanaryPlan:
    """Draw a plan for ``dataset``: every text is made the same way, before any coin is looked at.

    Args:
        dataset: What the canaries will be inserted into. The plan holds its root: under the dataset key if it was
            opened with one, otherwise under a key derived from the seed, so that the root tells nobody anything.
        spec: Which canaries.
        preregistration: What the audit will compute; becomes part of the commitment.
        tokenizer_digest: Digest of the tokenizer that tuning and audit will use.
        base_digest: Digest of the base model.
        rng: Source of the 32-byte seed; the system's generator.

    Raises:
        InvalidInput: The rows' form cannot hold the canaries, or there are too few templates for so many.
    """
    seed = rng(SEED_SIZE)
    return CanaryPlan(
        canaries=_draw(spec, seed, dataset.chat),
        seed=seed,
        symbols=spec.alphabet,
        dataset_root=plan_root(dataset, seed),
        tokenizer_digest=tokenizer_digest,
        base_digest=base_digest,
        preregistration=dict(preregistration),
    )


def plan_root(dataset: Dataset, seed: bytes) -> str:
    """Return the root that a plan with ``seed`` names its dataset by."""
    key = dataset.key if dataset.key is not None else hkdf_sha256(seed, info=b"stanch/canary-dataset/v1", length=32)
    return dataset_root(dataset, key)


def _draw(spec: CanarySpec, seed: bytes, form: ChatForm) -> tuple[Canary, ...]:
    key = hmac_sha256(seed, b"stanch/canary-text/v1")
    similar = _Similarity()
    plain = form in {ChatForm.TEXT, ChatForm.FIELDS}
    drawn = []
    for index, member in enumerate(coins(seed, spec.n)):
        for attempt in range(_MAX_ATTEMPTS):
            stream = KeyedStream(key, index.to_bytes(8, "little") + attempt.to_bytes(8, "little"))
            secret = "".join(stream.choose(spec.alphabet) for _ in range(spec.secret_length))
            said = compose(stream, secret=secret, prompts=spec.prompts, templates=spec.templates, system=spec.system)
            if "".join(turn.content for turn in said).count(secret) == 1 and similar.admit(said):
                break
        else:
            raise InvalidInput(
                f"canaries: too few prompts and templates for {spec.n} canaries that differ from each other",
                why=f"no two may share half of their word sequences, and {index} was the most that could be drawn",
                next_step="ask for fewer canaries, or give more prompts and templates",
            )
        messages = as_text(said) if plain else said
        drawn.append(Canary(f"c{index:05d}", "secret", messages, secret, spec.copies, f"x{spec.copies}", member))
    conversation_row(drawn[0].messages, form, ("",))
    return tuple(drawn)


class _Similarity:
    """Keeps canaries apart: refuses a text that is too similar to one admitted before."""

    def __init__(self) -> None:
        self._holders: dict[int, list[int]] = {}
        self._sizes: list[int] = []

    def admit(self, messages: tuple[ChatTurn, ...]) -> bool:
        found = shingles(fold_texts(turn.content for turn in messages if turn.role != "system")).tolist()
        common = Counter(holder for item in found for holder in self._holders.get(item, ()))
        for holder, count in common.items():
            if count >= _MAX_SIMILARITY * (len(found) + self._sizes[holder] - count):
                return False
        for item in found:
            self._holders.setdefault(item, []).append(len(self._sizes))
        self._sizes.append(len(found))
        return True
