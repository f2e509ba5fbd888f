"""Traces and figures for an OpenTelemetry collector: OTLP/HTTP in JSON. No text, and nobody's name.

OpenTelemetry Protocol 1.9, "OTLP/HTTP", JSON encoding. Names are those of the semantic conventions for generative AI,
version 1.37, which are marked "Development" and stand here alone.
"""

import itertools
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from stanch.crypto import random_bytes
from stanch.errors import ExternalError
from stanch.gateway.dialect import Dialect
from stanch.store.http import HttpRequest, exchange
from stanch.terms import JsonValue

SEND_SECONDS = 10.0
_MOST_SPANS = 4096
_PATIENCE = 5.0
_OPERATIONS: dict[Dialect, str] = {"completions": "text_completion", "embeddings": "embeddings"}
_SCOPE: JsonValue = {"name": "stanch.gateway"}
_RESOURCE: JsonValue = {"attributes": [{"key": "service.name", "value": {"stringValue": "stanch-gateway"}}]}
_BOUNDS: dict[str, tuple[float, ...]] = {
    "gen_ai.client.operation.duration": tuple(0.01 * 2**power for power in range(14)),
    "gen_ai.client.token.usage": tuple(float(4**power) for power in range(14)),
}
_UNITS = {"gen_ai.client.operation.duration": "s", "gen_ai.client.token.usage": "{token}"}
_SERVER, _CUMULATIVE, _FAILED = 2, 2, 2
_LATER = frozenset({429, 502, 503, 504})
"""Answers after which the same may be sent again (OTLP/HTTP, "Retryable Response Codes")."""


class _Refused(ExternalError):
    """The collector does not want this, now or later."""


class Operation(NamedTuple):
    """One request that was answered or failed.

    Attributes:
        dialect: What was spoken.
        model: The model's name in the settings.
        request: Id of the request, which stands in the log, too.
        parent: Ids of the trace and of the span that the client named; empty if none.
        seconds: How long it took.
        tokens: Of the prompt and of the answer.
        verdict: Of the guard; empty for vectors.
        error: Short name of the failure, or nothing.
    """

    dialect: Dialect
    model: str
    request: str
    parent: tuple[str, str]
    seconds: float
    tokens: tuple[int, int]
    verdict: str = ""
    error: str = ""


@dataclass(slots=True)
class _Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Telemetry:
    """What happened since the start, and the requests that no collector was told of yet. For all threads.

    Args:
        endpoint: The collector's URL, to which ``/v1/traces`` and ``/v1/metrics`` are added.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._began = time.time_ns()
        self._spans: deque[JsonValue] = deque(maxlen=_MOST_SPANS)  # the oldest go first where nobody takes them
        self._figures: dict[tuple[str, tuple[tuple[str, str], ...]], _Histogram] = {}
        self._lock = threading.Lock()

    def note(self, done: Operation) -> None:
        """Take an operation that has just ended."""
        about = {"gen_ai.operation.name": _OPERATIONS.get(done.dialect, "chat"), "gen_ai.request.model": done.model,
                 "gen_ai.provider.name": "stanch"} | ({"error.type": done.error} if done.error else {})  # fmt: skip
        with self._lock:
            self._spans.append(_span(done, about))
            self._count("gen_ai.client.operation.duration", about, done.seconds)
            for kind, tokens in zip(("input", "output"), done.tokens, strict=True):
                self._count("gen_ai.client.token.usage", about | {"gen_ai.token.type": kind}, tokens)

    def send(self) -> None:
        """Tell the collector. What it does not take now is told again; figures are sums since the start.

        Raises:
            ExternalError: It cannot be reached or refuses.
        """
        with self._lock:
            spans, figures = [*self._spans], self._metrics()
            self._spans.clear()
        try:
            if spans:
                self._post("traces", {"resourceSpans": [_wrapped("scopeSpans", {"spans": spans})]})
        except _Refused:  # the same would be refused again
            raise
        except ExternalError:
            with self._lock:
                room = _MOST_SPANS - len(self._spans)
                self._spans.extendleft(reversed(spans[max(0, len(spans) - room) :]))
            raise
        finally:
            if figures:
                self._post("metrics", {"resourceMetrics": [_wrapped("scopeMetrics", {"metrics": figures})]})

    def _count(self, name: str, about: dict[str, str], value: float) -> None:
        key = name, tuple(about.items())
        self._figures.setdefault(key, _Histogram(_BOUNDS[name])).add(value)

    def _metrics(self) -> list[JsonValue]:
        now, found = str(time.time_ns()), list[JsonValue]()
        for name, group in itertools.groupby(sorted(self._figures), key=lambda key: key[0]):
            points: list[JsonValue] = [
                {
                    "attributes": _attributes(dict(about)), "startTimeUnixNano": str(self._began), "timeUnixNano": now,
                    "count": str(sum(one.counts)), "sum": one.total, "explicitBounds": [*one.bounds],
                    "bucketCounts": [str(count) for count in one.counts],
                }
                for about, one in ((key[1], self._figures[key]) for key in group)
            ]  # fmt: skip
            histogram: JsonValue = {"aggregationTemporality": _CUMULATIVE, "dataPoints": points}
            found.append({"name": name, "unit": _UNITS[name], "histogram": histogram})
        return found

    def _post(self, what: str, body: JsonValue) -> None:
        url, headers = f"{self._endpoint}/v1/{what}", {"content-type": "application/json"}
        answer = exchange(HttpRequest("POST", url, headers, orjson.dumps(body)), timeout_seconds=_PATIENCE)
        if not 200 <= answer.status < 300:
            error = ExternalError if answer.status in _LATER else _Refused
            raise error("the OpenTelemetry collector refused", why=f"status {answer.status}")


def _span(done: Operation, about: dict[str, str]) -> JsonValue:
    trace, parent = done.parent
    end = time.time_ns()
    told = about | {"stanch.request.id": done.request} | ({"stanch.verdict": done.verdict} if done.verdict else {})
    counts = zip(("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"), done.tokens, strict=True)
    numbers: list[JsonValue] = [{"key": name, "value": {"intValue": str(count)}} for name, count in counts]
    more: dict[str, JsonValue] = {"parentSpanId": parent} if parent else {}
    if done.error:
        more["status"] = {"code": _FAILED}
    return more | {
        "traceId": trace or random_bytes(16).hex(), "spanId": random_bytes(8).hex(), "kind": _SERVER,
        "name": f"{about['gen_ai.operation.name']} {done.model}", "endTimeUnixNano": str(end),
        "startTimeUnixNano": str(end - int(done.seconds * 1e9)), "attributes": [*_attributes(told), *numbers],
    }  # fmt: skip


def _attributes(values: dict[str, str]) -> list[JsonValue]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in values.items()]


def _wrapped(what: str, content: dict[str, JsonValue]) -> JsonValue:
    return {"resource": _RESOURCE, what: [{"scope": _SCOPE} | content]}
