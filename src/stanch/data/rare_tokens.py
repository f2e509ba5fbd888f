"""Rare tokens that a vocabulary has already, for canaries that end with one (arXiv 2503.06808). It is never resized."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from stanch.data.canaries import rare_token_templates
from stanch.data.canary_text import SECRET
from stanch.data.dataset import Dataset
from stanch.data.plan import CanaryPlan
from stanch.data.tokens import ChatTokenizer, tokenise_canary
from stanch.errors import InvalidInput

_RESERVED = re.compile("reserved|unused|extra_id", re.IGNORECASE)
_SHORTEST = 3


class VocabularyTokenizer(ChatTokenizer, Protocol):
    """What is used of a ``transformers`` fast tokenizer to look through its vocabulary."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return the id of every token."""
        ...

    def get_added_vocab(self) -> Mapping[str, int]:
        """Return the id of every added token."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        ...


def find_rare_tokens(
    dataset: Dataset, tokenizer: VocabularyTokenizer, count: int, *, templates: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return ``count`` tokens that occur in no record: reserved ones first, then those with the highest ids.

    A byte-pair vocabulary learns its rarest tokens last, so they have the highest ids. Each is one token after each of
    the answers (the shipped ones, or ``templates``) up to its slot.

    Raises:
        InvalidInput: There are not so many.
    """
    used = {token for record in dataset for field in record.fields for token in _ids(tokenizer, field.text)}
    heads = [text.removesuffix(SECRET) for text in rare_token_templates(templates)]
    known = [_ids(tokenizer, head) for head in heads]
    found: list[str] = []
    for token, text in _candidates(tokenizer):
        if len(found) == count:
            break
        if token in used or text in found:
            continue
        if all(_ids(tokenizer, head + text) == [*ids, token] for head, ids in zip(heads, known, strict=True)):
            found.append(text)
    if len(found) < count:
        raise InvalidInput(
            f"canaries: expected {count} rare tokens, found {len(found)} in the vocabulary",
            why="a rare token occurs in no record and stays one token at the end of an answer",
            next_step="plan fewer canaries of the kind rare-token",
        )
    return tuple(found)


def require_single_tokens(plan: CanaryPlan, tokenizer: ChatTokenizer) -> None:
    """Check that what is scored of each ``rare-token`` canary is one token.

    Raises:
        InvalidInput: It is not, as the chat template writes it; the canary is named by id.
    """
    for canary in plan.canaries:
        if canary.kind == "rare-token":
            start, end = tokenise_canary(canary, tokenizer).span
            if end - start != 1:
                raise InvalidInput(f"canary {canary.id}: its rare token is not one token in the rendered conversation")


def _candidates(tokenizer: VocabularyTokenizer) -> Iterator[tuple[int, str]]:
    added, template = tokenizer.get_added_vocab(), tokenizer.chat_template or ""
    for text, token in sorted(added.items(), key=lambda item: item[1]):
        if _RESERVED.search(text) and text not in template and token != tokenizer.eos_token_id:
            yield token, text
    for token in sorted(set(tokenizer.get_vocab().values()) - set(added.values()), reverse=True):
        text = tokenizer.decode([token])
        word = text.strip()
        if len(word) >= _SHORTEST and word.isalnum() and text.rstrip() == text:
            yield token, text


def _ids(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, return_offsets_mapping=False)["input_ids"])
