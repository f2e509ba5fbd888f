"""A model that the gateway answers for, and the guard that stands before its answers."""

from dataclasses import dataclass, field

from stanch.gateway.budgets import default_protected_windows
from stanch.gateway.certified import RequiredCertificate
from stanch.gateway.dialect import Dialect
from stanch.gateway.upstream import NO_PAPERS, Papers
from stanch.gateway.watermark import NO_WATERMARK, Watermark
from stanch.guard import Guard
from stanch.terms import ArtifactRef, JsonValue


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model.

    Attributes:
        name: What clients ask for.
        ref: What it is in the log and in the policies.
        upstream: The URL of its server, without a path of the API.
        upstream_name: What its server calls it.
        dialects: What its server speaks.
        guard: The guard before its answers.
        guard_digest: Digest of what the guard was made of; it stands in every intent.
        dimensions: How many numbers an embedding of its has.
        vocabulary: How many tokens it knows.
        certificate: The leak certificate without which nothing is answered.
        watermark: Under which watermark its server is asked to write.
        guard_facts: What the guard was made of; the log says it when the gateway starts.
        papers: What its server is shown.
    """

    name: str
    ref: ArtifactRef
    upstream: str
    upstream_name: str
    dialects: tuple[Dialect, ...]
    guard: Guard
    guard_digest: str
    dimensions: int = 0
    vocabulary: int = 131_072
    certificate: RequiredCertificate | None = None
    watermark: Watermark = NO_WATERMARK
    guard_facts: dict[str, JsonValue] = field(default_factory=dict)
    papers: Papers = NO_PAPERS

    def url(self, dialect: Dialect) -> str:
        """Return the URL of one endpoint of its server."""
        return f"{self.upstream.rstrip('/')}/v1/{'chat/completions' if dialect == 'chat' else dialect}"

    @property
    def index(self) -> str:
        """The digest of the index of its training text; empty if there is none."""
        return str(self.guard_facts.get("index", ""))

    @property
    def protected_windows(self) -> int:
        """How many windows of its training text one principal may draw, where the settings name no number."""
        index = self.guard.policy.index
        return default_protected_windows(index.header.keys if index is not None else 0)
