"""Draws canaries: kinds and tiers, secrets, the texts around them, and coins, all from one seed."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from stanch.crypto import RandomBytes, hkdf_sha256, hmac_sha256, random_bytes
from stanch.data.canary_text import ANSWERS, SECRET, KeyedStream, as_text, ask, compose
from stanch.data.chat import ChatForm, ChatTurn, conversation_row
from stanch.data.dataset import Dataset
from stanch.data.plan import KINDS, SEED_SIZE, Canary, CanaryPlan, coins
from stanch.data.shingles import Hashes, fold_texts, folded_text, shingles
from stanch.data.tree import dataset_root
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

MAX_CANARIES = 16_384
_MAX_SIMILARITY = 0.5
_MAX_ATTEMPTS = 64
_MIN_BITS = 20
_ROUNDING = 1e-9
_MAX_COPIES = 64
_ROUNDS = 8
_MIN_ANSWER = 16

Embeddings = Literal["trained", "frozen", "force-frozen"]
"""Whether the tuning changes the embeddings; LoRA does not, unless told to."""


class CanaryWriter(Protocol):
    """The base model, as it writes the answers of synthetic canaries."""

    def answer(self, prompts: Sequence[tuple[ChatTurn, ...]], seed: bytes) -> list[str]:
        """Return a text sampled at temperature 1.0 after each of the prompts; equal seeds give equal texts."""
        ...


@dataclass(frozen=True, slots=True)
class CanarySpec:
    """Which canaries to draw.

    Attributes:
        n: Number of canaries; about half of them will be inserted.
        kinds: Share of each kind (``KINDS``); together 1.
        repetitions: Copies that are inserted when a coin says so: 1 for a formal bound, (1, 4, 16, 64) for the curve of
            memorisation. Each kind's canaries are spread evenly over them.
        alphabet: The symbols of the secrets.
        secret_length: Symbols in a secret; log2 R = length · log2(alphabet size) bits for exposure.
        prompts: What the user may say, with or without ``{name}``; empty: the shipped support requests.
        templates: What the assistant may answer, each with one ``{secret}``; empty: the shipped answers.
        system: A system turn that all canaries start with, or empty.
        rare_tokens: Tokens of the vocabulary for the kind ``rare-token``, one a canary
            (:func:`stanch.data.rare_tokens.find_rare_tokens`).
        embeddings: Whether the tuning changes the embeddings. Frozen ones hardly learn a rare token, so such canaries
            would tell of no leak; ``force-frozen`` plans them nevertheless.
    """

    n: int = 512
    kinds: Mapping[str, float] = field(default_factory=lambda: {"secret": 1.0})
    repetitions: tuple[int, ...] = (1,)
    alphabet: str = "0123456789"
    secret_length: int = 12
    prompts: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    system: str = ""

    rare_tokens: tuple[str, ...] = field(default=(), repr=False)
    embeddings: Embeddings = "frozen"

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_CANARIES:
            raise InvalidInput(f"canaries: expected 1 to {MAX_CANARIES} canaries")
        copies = self.repetitions
        if not copies or len(set(copies)) != len(copies) or not all(1 <= count <= _MAX_COPIES for count in copies):
            raise InvalidInput(f"canaries: expected distinct repetitions from 1 to {_MAX_COPIES}")
        shares = self.kinds.values()
        if not set(self.kinds) <= set(KINDS) or not all(0 < share <= 1 for share in shares) or not self.kinds:
            raise InvalidInput(f"canaries: expected shares above 0 of {', '.join(KINDS)}")
        if abs(math.fsum(shares) - 1) > _ROUNDING:
            raise InvalidInput("canaries: expected shares of kinds that add up to 1")
        self._check_rare_tokens()
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

    def _check_rare_tokens(self) -> None:
        wanted = self.counts().get("rare-token", 0)
        if wanted and self.embeddings == "frozen":
            raise InvalidInput(
                "canaries: expected trained embeddings for the kind rare-token",
                why="LoRA leaves the embeddings frozen, and a model with frozen ones hardly learns a rare token",
                next_step="train the embeddings and say so, take another kind, or force it with force-frozen",
            )
        if wanted > len(set(self.rare_tokens)):
            raise InvalidInput(
                f"canaries: expected {wanted} distinct rare tokens, found {len(set(self.rare_tokens))}",
                next_step="plan fewer canaries of the kind rare-token",
            )

    def counts(self) -> dict[str, int]:
        """Return how many canaries each kind gets: shares of n, rounded by the largest remainder, in a fixed order."""
        exact = {kind: self.kinds[kind] * self.n for kind in KINDS if kind in self.kinds}
        found = {kind: math.floor(share + _ROUNDING) for kind, share in exact.items()}
        for kind in sorted(exact, key=lambda kind: found[kind] - exact[kind])[: self.n - sum(found.values())]:
            found[kind] += 1
        return found

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
    writer: CanaryWriter | None = None,
    rng: RandomBytes = random_bytes,
) -> CanaryPlan:
    """Draw a plan for ``dataset``: kinds, tiers and texts are made the same way for all, before any coin is looked at.

    Args:
        dataset: What the canaries will be inserted into. The plan holds its root: under the dataset key if it was
            opened with one, otherwise under a key derived from the seed, so that the root tells nobody anything.
        spec: Which canaries.
        preregistration: What the audit will compute; becomes part of the commitment.
        tokenizer_digest: Digest of the tokenizer that tuning and audit will use.
        base_digest: Digest of the base model.
        writer: The base model; needed by the kind ``synthetic``.
        rng: Source of the 32-byte seed; the system's generator.

    Raises:
        InvalidInput: The rows' form cannot hold the canaries, there are too few templates for so many, or synthetic
            ones have no writer, or one that says the same again and again.
    """
    seed = rng(SEED_SIZE)
    return CanaryPlan(
        canaries=_Drawing(dataset, spec, seed, writer).draw(),
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


def assign(spec: CanarySpec, seed: bytes) -> list[tuple[str, int]]:
    """Return kind and copies of each canary, by a keyed shuffle that knows nothing of the coins."""
    key = hmac_sha256(seed, b"stanch/tier/v1")
    order = sorted(range(spec.n), key=lambda index: hmac_sha256(key, index.to_bytes(8, "little")))
    found = [("", 0)] * spec.n
    for kind, count in spec.counts().items():
        for place, index in enumerate(order[:count]):
            found[index] = (kind, spec.repetitions[place % len(spec.repetitions)])
        del order[:count]
    return found


@dataclass(frozen=True, slots=True)
class _Text:
    """What a canary says, and what of it is scored."""

    said: tuple[ChatTurn, ...]
    scored: str

    def shingles(self) -> Hashes:
        return shingles(fold_texts(turn.content for turn in self.said if turn.role != "system"))

    def is_sound(self) -> bool:
        """Tell whether what is scored stands there once."""
        return "".join(turn.content for turn in self.said).count(self.scored) == 1


class _Drawing:
    """One plan's canaries in the making."""

    def __init__(self, dataset: Dataset, spec: CanarySpec, seed: bytes, writer: CanaryWriter | None) -> None:
        self._dataset, self._spec, self._seed, self._writer = dataset, spec, seed, writer
        self._key = hmac_sha256(seed, b"stanch/canary-text/v1")
        self._similar = _Similarity()
        self._plain = dataset.chat in {ChatForm.TEXT, ChatForm.FIELDS}

    def draw(self) -> tuple[Canary, ...]:
        spec, assigned = self._spec, assign(self._spec, self._seed)
        texts: dict[int, _Text] = {}
        tokens = self._shuffled_tokens()
        for index, (kind, _) in enumerate(assigned):
            if kind == "secret":
                texts[index] = self._attempt(index, self._secret)
            elif kind == "rare-token":
                texts[index] = self._attempt(index, partial(self._rare_token, tokens.pop()))
        texts |= self._synthetic([index for index, (kind, _) in enumerate(assigned) if kind == "synthetic"])
        conversation_row(self._shape(texts[0].said), self._dataset.chat, ("",))
        return tuple(
            Canary(f"c{i:05d}", kind, self._shape(texts[i].said), texts[i].scored, copies, f"x{copies}", member)
            for i, ((kind, copies), member) in enumerate(zip(assigned, coins(self._seed, spec.n), strict=True))
        )

    def _shape(self, said: tuple[ChatTurn, ...]) -> tuple[ChatTurn, ...]:
        return as_text(said) if self._plain else said

    def _stream(self, index: int, attempt: int) -> KeyedStream:
        return KeyedStream(self._key, index.to_bytes(8, "little") + attempt.to_bytes(8, "little"))

    def _attempt(self, index: int, make: Callable[[KeyedStream], _Text]) -> _Text:
        for attempt in range(_MAX_ATTEMPTS):
            text = make(self._stream(index, attempt))
            if text.is_sound() and self._similar.admit(text.shingles()):
                return text
        raise InvalidInput(
            f"canaries: too few prompts and templates for {self._spec.n} canaries that differ from each other",
            why=f"no two may share half of their word sequences, and {index} was the most that could be drawn",
            next_step="ask for fewer canaries, or give more prompts and templates",
        )

    def _secret(self, stream: KeyedStream) -> _Text:
        spec = self._spec
        secret = "".join(stream.choose(spec.alphabet) for _ in range(spec.secret_length))
        said = compose(stream, secret=secret, prompts=spec.prompts, templates=spec.templates, system=spec.system)
        return _Text(said, secret)

    def _rare_token(self, token: str, stream: KeyedStream) -> _Text:
        """Return an answer that ends with ``token``, where another would give the secret."""
        spec = self._spec
        cut = rare_token_templates(spec.templates)
        return _Text(compose(stream, secret=token, prompts=spec.prompts, templates=cut, system=spec.system), token)

    def _shuffled_tokens(self) -> list[str]:
        key = hmac_sha256(self._seed, b"stanch/rare-token/v1")
        return sorted(dict.fromkeys(self._spec.rare_tokens), key=lambda token: hmac_sha256(key, token.encode()))

    def _synthetic(self, pending: list[int]) -> dict[int, _Text]:
        """Let the base model answer until each answer differs from all records and other canaries."""
        found: dict[int, _Text] = {}
        for attempt in range(_ROUNDS if pending else 0):
            written = dict(zip(pending, self._written(pending, attempt), strict=True))
            near = self._near_records(list(written.values()))
            for (index, text), is_near in zip(written.items(), near, strict=True):
                enough = sum(character.isalnum() for character in text.scored) >= _MIN_ANSWER
                if enough and not is_near and text.is_sound() and self._similar.admit(text.shingles()):
                    found[index] = text
            pending = [index for index in pending if index not in found]
            if not pending:
                break
        if pending:
            raise InvalidInput(
                f"canaries: the base model wrote too few texts that differ; {len(pending)} are missing",
                why="each must have 16 letters or digits and be unlike every record and every other canary",
                next_step="ask for fewer canaries, give other prompts, or use another base model",
            )
        return found

    def _written(self, pending: Sequence[int], attempt: int) -> Iterator[_Text]:
        if self._writer is None:
            raise InvalidInput("canaries: the kind synthetic needs the base model", next_step="give a writer")
        prompts = [
            ask(self._stream(index, attempt), prompts=self._spec.prompts, system=self._spec.system) for index in pending
        ]
        shown = [as_text(said) for said in prompts] if self._plain else prompts
        seed = hmac_sha256(self._key, b"synthetic" + attempt.to_bytes(8, "little"))
        for said, answer in zip(prompts, self._writer.answer(shown, seed), strict=True):
            yield _Text((*said, ChatTurn("assistant", answer)), answer)

    def _near_records(self, texts: Sequence[_Text]) -> list[bool]:
        """Tell of each text whether it is within the similarity limit of a record."""
        drawn = _Similarity()
        for text in texts:
            drawn.add(text.shingles())
        near: set[int] = set()
        for record in self._dataset:
            near |= drawn.near(shingles(folded_text(record)))
        return [number in near for number in range(len(texts))]


def rare_token_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Return the answers, or the shipped ones, each cut after its slot."""
    return tuple(text[: text.index(SECRET) + len(SECRET)] for text in templates or ANSWERS)


class _Similarity:
    """Keeps canaries apart: refuses a text that is too similar to one admitted before."""

    def __init__(self) -> None:
        self._holders: dict[int, list[int]] = {}
        self._sizes: list[int] = []

    def admit(self, found: Hashes) -> bool:
        """Add a text if nothing that was added is too similar; tell whether it was."""
        if self.near(found):
            return False
        self.add(found)
        return True

    def add(self, found: Hashes) -> None:
        """Add a text."""
        for item in found.tolist():
            self._holders.setdefault(item, []).append(len(self._sizes))
        self._sizes.append(len(found))

    def near(self, found: Hashes) -> set[int]:
        """Return the numbers of the added texts that are too similar."""
        common = Counter(holder for item in found.tolist() for holder in self._holders.get(item, ()))
        return {
            holder
            for holder, count in common.items()
            if count >= _MAX_SIMILARITY * (len(found) + self._sizes[holder] - count)
        }
