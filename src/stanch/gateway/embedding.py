"""Embeddings: no guard can read them, so they need a permission of their own, a budget, and the form of numbers."""

import asyncio
import base64
import binascii
import math
from collections import Counter

import numpy as np
import orjson
from numpy.typing import NDArray

from stanch.gateway.act import Act, Prepared
from stanch.gateway.budgets import Amounts
from stanch.gateway.desk import EMBED, Desk
from stanch.gateway.fields import read_fields, unexpected
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.request import EmbeddingsRequest
from stanch.gateway.upstream import Upstream, read_whole
from stanch.terms import JsonValue

MAX_ANSWER = 16 << 20
_LIST = frozenset({"list"})
_ONE = frozenset({"embedding"})
Vectors = NDArray[np.float32]


class Embedding(Act[EmbeddingsRequest]):
    """Answers a request for embeddings."""

    kind = EMBED

    def __init__(self, desk: Desk, upstream: Upstream, prepared: Prepared[EmbeddingsRequest]) -> None:
        super().__init__(desk, upstream, prepared)
        self._body = b""
        self._tokens = 0
        self._vectors = 0

    async def end(self) -> None:
        """Send the answer."""
        await self._given.exchange.answer(self._body)

    async def _answer(self) -> None:
        async with self._asked("application/json") as pieces:
            text = await read_whole(pieces, most=MAX_ANSWER)
        request, model = self._given.request, self._given.model
        size = min(request.dimensions or model.dimensions, model.dimensions)
        vectors, tokens = await asyncio.to_thread(read_vectors, text, (request.vectors, size), self._dropped)
        self._tokens, self._vectors = tokens, len(vectors)
        self._body = await asyncio.to_thread(write_vectors, vectors, request, self._tokens)

    def _reserved(self) -> Amounts:
        return Amounts(tokens=self._prompt_size(), vectors=self._given.request.vectors)

    def _used(self) -> Amounts:
        return Amounts(tokens=max(self._tokens, self._prompt_size()), vectors=self._vectors)

    def _counted(self) -> tuple[int, int]:
        return self._tokens, 0

    def _outcome(self) -> dict[str, JsonValue]:
        return super()._outcome() | {"vectors": self._vectors, "prompt_tokens": self._tokens}


def read_vectors(text: str, shape: tuple[int, int], dropped: Counter[str]) -> tuple[Vectors, int]:
    """Read a server's answer: as many vectors as were asked for, each of the declared dimension, all numbers finite.

    Returns:
        The vectors in order, and how many tokens the server counted.

    Raises:
        UpstreamProtocol: It is no such answer.
        UpstreamFailed: The server says that it failed.
    """
    fields = read_fields(text, dropped)
    if fields.has("error"):
        raise UpstreamFailed("the model's server answered with an error")
    fields.closed("object", _LIST)
    fields.skip("model", "id", "created")
    vectors, seen = np.zeros(shape, np.float32), set()
    for item in fields.objects("data", most=shape[0]):
        item.closed("object", _ONE)
        index = item.count("index", below=shape[0])
        if index is None or index in seen:
            raise unexpected("$.data.index")
        seen.add(index)
        vectors[index] = _vector(item.value("embedding"), shape[1])
        item.close()
    if len(seen) != shape[0]:
        raise unexpected("$.data")
    tokens = 0
    if (usage := fields.object("usage")) is not None:
        tokens = usage.count("prompt_tokens") or 0
        usage.count("total_tokens")
        usage.close()
    fields.close()
    return vectors, tokens


def write_vectors(vectors: Vectors, request: EmbeddingsRequest, tokens: int) -> bytes:
    """Return the gateway's answer. Numbers are rounded to 32 bits, so that they hold no more than what they say."""
    if request.encoding_format == "base64":
        written: list[object] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        written = [*vectors]
    data = [{"object": "embedding", "index": index, "embedding": item} for index, item in enumerate(written)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _vector(value: JsonValue, size: int) -> Vectors:
    """Return a vector from a list of numbers, or from base64 of little-endian float32.

    Raises:
        UpstreamProtocol: It is neither, or not of this size, or holds what is not finite.
    """
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise unexpected("$.data.embedding") from None
        if len(data) != 4 * size:
            raise unexpected("$.data.embedding")
        vector = np.frombuffer(data, "<f4").astype(np.float32)
    else:
        if not isinstance(value, list) or len(value) != size or not all(map(_is_number, value)):
            raise unexpected("$.data.embedding")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            vector = np.array(value, np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise unexpected("$.data.embedding")
    return vector


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
