"""A model behind an OpenAI-compatible endpoint, asked for the log-probabilities of prompts: a black box.

Works with servers that answer ``/completions`` with ``echo`` and ``logprobs`` for prompts given as token ids (vLLM is
one). Such an answer holds each token's log-probability and the likeliest few, so all scores but Min-K%++ are
computed, and extraction under a decoding that those few decide. What the model is made of cannot be seen: a report of
it names no model, and no certificate is made from it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from stanch.audit.features import (
    Adapter,
    BoolArray,
    Continue,
    Features,
    Float32Array,
    HfTokenizer,
    Identified,
    ScorerIdentity,
    check_scorable,
    plan_batches,
    tokenizer_digest,
)
from stanch.audit.params import Decoding
from stanch.crypto import canonical_json, parse_json
from stanch.data import TokenRecord
from stanch.errors import ExternalError, InvalidInput
from stanch.store.http import HttpRequest, check_url, exchange
from stanch.terms import JsonValue

BATCH_TOKENS: Final = 4096
_BYTES_PER_LOGPROB = 200
_BUSY = frozenset({429, 500, 502, 503, 504})
_PAUSES = (1.0, 4.0, 16.0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served.

    Attributes:
        url: The API's root, for example ``https://models.example/v1``; plain ``http:`` to this very machine only.
        model: The model's name there.
        api_key: Sent as a bearer token, if given.
        top_logprobs: How many of the likeliest tokens the server gives for each position.
        timeout_seconds: For each answer.
    """

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    top_logprobs: int = 5
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if "?" in self.url:
            raise InvalidInput("URL: expected the API's root, found a query after it")
        if self.top_logprobs < 1:
            raise InvalidInput(f"top_logprobs: expected at least 1, found {self.top_logprobs}")

    def post(
        self, path: str, body: JsonValue, *, max_bytes: int, pause: Callable[[float], None] = time.sleep
    ) -> JsonValue:
        """Send JSON to ``path`` below the root and return the JSON of the answer; a busy server is asked again.

        Raises:
            ExternalError: It cannot be reached, stays busy, or answers with another status than 200, with more than
                ``max_bytes``, or with no JSON.
        """
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = HttpRequest("POST", f"{self.url.rstrip('/')}/{path}", headers, canonical_json(body))
        for seconds in (*_PAUSES, None):
            answer = exchange(request, timeout_seconds=self.timeout_seconds, max_bytes=max_bytes)
            if answer.status not in _BUSY or seconds is None:
                break
            pause(seconds)
        if answer.status != 200:
            raise ExternalError(
                f"the endpoint answered with status {answer.status}",
                next_step="check the model's name, the key and the server's log",
            )
        try:
            return parse_json(answer.body, what="answer of the endpoint", max_bytes=max_bytes, allow_halves=True)
        except InvalidInput as error:
            raise unusable("it is no JSON") from error


def unusable(why: str) -> ExternalError:
    """Return the error of an answer that says nothing."""
    return ExternalError("the endpoint gave no usable answer", why=why)


class EndpointScorer(Identified):
    """A served model, with the tokenizer that it was tuned with.

    Args:
        endpoint: Where it is served.
        tokenizer: A fast tokenizer; prompts are sent as its ids.
        pause: Waits a number of seconds before a busy server is asked again.
    """

    def __init__(
        self, endpoint: Endpoint, tokenizer: HfTokenizer, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._endpoint = endpoint
        self._tokenizer = tokenizer
        self._vocabulary = int(tokenizer.backend_tokenizer.get_vocab_size())
        self._pause = pause
        self._identity = ScorerIdentity("", (), "", "", tokenizer_digest(tokenizer), "unknown", "endpoint")

    @property
    def switchable(self) -> bool:
        """Never: what it is made of is not known."""
        return False

    @property
    def white_box(self) -> bool:
        """The likeliest tokens alone are at hand."""
        return False

    @property
    def token_budget(self) -> int:
        """How many padded tokens one of its requests may hold."""
        return BATCH_TOKENS

    @property
    def sampling(self) -> Decoding:
        """Plain sampling over the whole vocabulary: the decoding that any server's answers decide."""
        return Decoding(top_k=self._vocabulary, temperature=1.0)

    def features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding, adapter: Adapter = "on"
    ) -> Iterator[Features]:
        """Yield the features of every record; ``mu`` and ``sigma`` are not a number.

        Raises:
            InvalidInput: The server gives too few log-probabilities, or none of prompts.
            ExternalError: It cannot be reached, is busy, or gives no usable answer.
        """
        if adapter == "off":
            self.require_adapter_off()
        plain = decoding.temperature == 1 and decoding.top_k >= self._vocabulary
        if not plain and decoding.top_k > self._endpoint.top_logprobs:
            raise InvalidInput(
                f"the decoding looks at the {decoding.top_k} likeliest tokens, the server gives "
                f"{self._endpoint.top_logprobs}",
                why="whether a token would be drawn could not be told",
                next_step="audit with plain sampling, or with as many tokens as the server gives",
            )
        for batch in plan_batches(records, self.token_budget):
            for record, choice in zip(batch, self._ask(batch), strict=True):
                yield self._read(record, choice, None if plain else decoding)

    def paired_features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding
    ) -> Iterator[tuple[Features, Features]]:
        """Refuse: there is no adapter to switch off."""
        del records, decoding
        self.require_adapter_off()
        yield from ()

    def continuations(self, prefix: Sequence[int]) -> Continue:
        """Refuse: the whole distribution is not at hand."""
        del prefix
        raise InvalidInput("an endpoint does not give the whole distribution of the next token")

    def complete(
        self, prompts: Sequence[Sequence[int]], length: int, *, adapter: Adapter = "on"
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the number of each prompt and the likeliest ``length`` tokens after it.

        The server answers with text, which is cut into tokens anew: where they come out otherwise, that counts against
        a find.
        """
        if adapter == "off":
            self.require_adapter_off()
        for number, prompt in enumerate(prompts):
            (choice,) = self._post([prompt], {"max_tokens": length, "temperature": 0})
            text = choice.get("text")
            if not isinstance(text, str):
                raise unusable("a completion is no text")
            coded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=False)
            yield number, tuple(coded["input_ids"])

    def require_adapter_off(self) -> None:
        """Refuse: there is no adapter to switch off."""
        raise InvalidInput(
            "a served model has no adapter that can be switched off", next_step="serve the base model as well"
        )

    def _ask(self, batch: Sequence[TokenRecord]) -> list[dict[str, JsonValue]]:
        for record in batch:
            check_scorable(record)
        wanted: dict[str, JsonValue] = {
            "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": self._endpoint.top_logprobs,
        }  # fmt: skip
        return self._post([record.ids for record in batch], wanted)

    def _read(self, record: TokenRecord, choice: Mapping[str, JsonValue], decoding: Decoding | None) -> Features:
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            raise InvalidInput(
                "the server gives no log-probabilities of a prompt",
                why="it does not know echo with logprobs",
                next_step="serve the model with vLLM, or audit its folder",
            )
        own, tops = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
        count = len(record.ids)
        # One token was asked for besides the prompt; some servers leave it out.
        if not isinstance(own, list) or not isinstance(tops, list) or len(own) != len(tops):
            raise unusable("log-probabilities are missing")
        if len(own) not in (count, count + 1):
            raise unusable("there are not as many log-probabilities as tokens were sent")
        lp, hit, lq = [], [], []
        for place in range(*record.span):
            value, likeliest = self._number(own[place]), self._likeliest(tops[place])
            lp.append(value)
            hit.append(value >= likeliest[0])
            lq.append(value if decoding is None else self._drawn(value, likeliest, decoding))
        missing: Float32Array = np.full(len(lp), np.nan, dtype=np.float32)
        hits: BoolArray = np.array(hit, dtype=np.bool_)
        return Features(
            record.id, record.span[0], np.array(lp, dtype=np.float32), missing, missing, hits,
            np.array(lq, dtype=np.float32),
        )  # fmt: skip

    def _drawn(self, value: float, likeliest: Sequence[float], decoding: Decoding) -> float:
        """Return the token's log-probability under the decoding; a tie with the last drawable token is drawable."""
        if len(likeliest) < decoding.top_k:
            raise unusable("it gives fewer of the likeliest tokens than it was asked for")
        top = [one / decoding.temperature for one in likeliest[: decoding.top_k]]
        own = value / decoding.temperature
        if own < top[-1]:
            return -math.inf
        return own - top[0] - math.log(math.fsum(math.exp(one - top[0]) for one in top))

    def _likeliest(self, tops: JsonValue) -> list[float]:
        if not isinstance(tops, dict) or not tops:
            raise unusable("the likeliest tokens are missing")
        return sorted((self._number(value) for value in tops.values()), reverse=True)

    def _number(self, value: JsonValue) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 1e-3:
            raise unusable("a log-probability is no number below zero")
        return min(float(value), 0.0)

    def _post(self, prompts: Sequence[Sequence[int]], wanted: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
        """Return the server's choices in the order of the prompts."""
        body: dict[str, JsonValue] = {"model": self._endpoint.model, "prompt": [list(ids) for ids in prompts], **wanted}
        tokens = sum(map(len, prompts)) + len(prompts)
        limit = (1 << 20) + tokens * (self._endpoint.top_logprobs + 2) * _BYTES_PER_LOGPROB
        answer = self._endpoint.post("completions", body, max_bytes=limit, pause=self._pause)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list):
            raise unusable("there are no choices in it")
        found: dict[Any, dict[str, JsonValue]] = {}
        for choice in choices:
            if isinstance(choice, dict) and type(choice.get("index")) is int:
                found[choice["index"]] = choice
        if len(choices) != len(prompts) or found.keys() != set(range(len(prompts))):
            raise unusable("there is not one choice for each prompt")
        return [found[number] for number in range(len(prompts))]
