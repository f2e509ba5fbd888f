"""What a monitoring system may read: counts and times. No label says who asked, and none holds text."""

from collections.abc import Callable, Iterable

from stanch.errors import MissingExtraError
from stanch.guard import GuardPolicy

ENDPOINT_OTHERS = "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CHARS = (0, 8, 16, 32, 64, 128, 256, 1024, 4096)


class Metrics:
    """The figures of one process.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415 - an optional part
        except ImportError as error:
            raise MissingExtraError("gateway") from error
        self._registry = registry = CollectorRegistry()
        name = "stanch_gateway_{}".format

        def counter(what: str, meaning: str, *labels: str) -> Counter:
            return Counter(name(what), meaning, labels, registry=registry)

        def histogram(what: str, meaning: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
            return Histogram(name(what), meaning, buckets=tuple(buckets), registry=registry)

        self.requests = counter("requests_total", "Answered requests.", "endpoint", "status")
        self.verdicts = counter("verdicts_total", "Verdicts of the guard, by kind of finding.", "verdict", "kind")
        self.refusals = counter("budget_refusals_total", "Requests that a used-up budget refused.", "budget")
        self.dropped = counter("fields_dropped_total", "Fields of model servers that were left out.", "dialect")
        self.ttft = histogram("ttft_seconds", "From the request to the first frame with text.")
        self.guard = histogram("guard_seconds", "Reading, guarding and rebuilding one answer.")
        self.commit = histogram("intent_commit_seconds", "From the request to its durable intent.")
        self.held = histogram("held_chars", "The most characters that the guard held back in one answer.", _CHARS)
        self.active = Gauge(name("active_streams"), "Requests that are answered now.", registry=registry)
        self._guards = Gauge(
            name("guard"), "Of each model: the digest of its guard, and what that looks for besides the recognisers.",
            ("model", "digest", "windows", "canaries", "terms"), registry=registry,
        )  # fmt: skip
        self.ready = Gauge(
            name("model_ready"), "Of each model: whether it could be answered for when readiness was last asked for.",
            ("model",), registry=registry,
        )  # fmt: skip
        self._queue = Gauge(name("queue_depth"), "Entries that wait to be written.", registry=registry)

    def tell_guard(self, model: str, digest: str, policy: GuardPolicy) -> None:
        """Tell which guard stands before a model's answers."""
        windows = policy.index.header.keys if policy.index is not None else 0
        terms = sum(map(len, policy.dictionaries))
        self._guards.labels(model, digest, windows, len(policy.canaries), terms).set(1)

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Ask ``depth`` for the length of the log's queue whenever somebody reads."""
        self._queue.set_function(depth)

    def page(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        from prometheus_client import generate_latest  # noqa: PLC0415 - see above

        return generate_latest(self._registry)


CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
