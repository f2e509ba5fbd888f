import json
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stanch.data import Dataset, open_dataset

Row = dict[str, Any]
WriteRows = Callable[..., Path]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrstx"]


@pytest.fixture
def key() -> bytes:
    """The dataset key of the goldens."""
    return bytes(range(32))


@pytest.fixture
def prose() -> Callable[[random.Random, int], str]:
    """Make a text of random words."""
    return lambda rng, count: " ".join(rng.choices(_WORDS, k=count))


@pytest.fixture
def chat_row() -> Callable[[str, str], Row]:
    """Make a row of the form `messages`."""
    return lambda question, answer: {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    }


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL."""

    def write(rows: list[Row], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def chats(write_rows: WriteRows, chat_row, prose, key: bytes) -> Dataset:
    """Two hundred conversations of random words."""
    rng = random.Random(7)
    return open_dataset(write_rows([chat_row(prose(rng, 20), prose(rng, 30)) for _ in range(200)]), key=key)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with one merge, so that one token covers the two characters `34`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)} | {"34": len(alphabet)}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[("3", "4")]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )


@pytest.fixture
def errors_text() -> Callable[[BaseException], str]:
    """All that a user or a log could see of an error: message, hints, traceback with causes, and attached objects."""

    def text(error: BaseException) -> str:
        parts = ["".join(traceback.format_exception(error))]
        seen: BaseException | None = error
        while seen is not None:
            parts += [repr(seen.args), repr({name: str(value) for name, value in vars(seen).items()})]
            parts += [str(getattr(seen, "doc", ""))]
            seen = seen.__cause__ or seen.__context__
        return "\n".join(parts)

    return text
