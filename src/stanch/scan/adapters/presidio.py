"""Presidio both ways (extra ``presidio``): its recognisers as a finder of ours, and our scanner as one of its.

No analyzer engine is built here, because that would fetch a language model; and what asks the network is refused, or,
for the list of public suffixes, made to use the copy that lies in the package.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from stanch.errors import InvalidInput, MissingExtraError
from stanch.scan.adapters.foreign import foreign_kind
from stanch.scan.finder import Span
from stanch.scan.policy import LITERAL_KIND
from stanch.scan.scanner import Scanner
from stanch.terms import JsonValue, Severity

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer, RecognizerResult
    from presidio_analyzer.nlp_engine import NlpArtifacts

ORIGIN = "presidio"


class PresidioFinder:
    """Presidio's recognisers as a finder; their entities are kinds such as ``presidio-us-bank-number``.

    Only recognisers that need no language model make sense here: they are called without its artefacts.
    """

    def __init__(self, recognizers: Sequence["EntityRecognizer"]) -> None:
        """Take the recognisers.

        Raises:
            InvalidInput: One of them asks a service.
            MissingExtraError: The extra ``presidio`` is not installed.
        """
        try:
            from presidio_analyzer import RemoteRecognizer  # noqa: PLC0415 - an optional part
        except ImportError as error:
            raise MissingExtraError("presidio") from error
        for recognizer in recognizers:
            if isinstance(recognizer, RemoteRecognizer):
                raise InvalidInput(
                    f"Presidio's {_name(recognizer)} asks a service", why="a scan opens no connection",
                    next_step="leave it out",
                )  # fmt: skip
        self._recognizers = tuple(_offline(recognizer) for recognizer in recognizers)
        entities = {entity for recognizer in recognizers for entity in recognizer.supported_entities}
        self._kinds = {entity: foreign_kind(ORIGIN, entity) for entity in sorted(entities)}

    @property
    def name(self) -> str:
        """See :class:`stanch.scan.finder.Finder`."""
        return ORIGIN

    @property
    def kinds(self) -> frozenset[str]:
        """See :class:`stanch.scan.finder.Finder`."""
        return frozenset(self._kinds.values())

    @property
    def severity(self) -> Severity:
        """See :class:`stanch.scan.finder.Finder`."""
        return Severity.MEDIUM

    def find(self, text: str) -> list[Span]:
        """See :class:`stanch.scan.finder.Finder`."""
        spans = []
        for recognizer in self._recognizers:
            # Without artefacts of a model, as the recognisers themselves allow.
            results = recognizer.analyze(text, recognizer.supported_entities, None)  # type: ignore[arg-type]  # see above
            spans += [Span(r.start, r.end, self._kinds[r.entity_type], r.score) for r in results or []]
        return spans

    def facts(self) -> JsonValue:
        """See :class:`stanch.scan.finder.Finder`."""
        names: list[JsonValue] = [f"{_name(r)} {r.supported_language} {r.version}" for r in self._recognizers]
        return [version("presidio-analyzer"), *names]


def _offline(recognizer: "EntityRecognizer") -> "EntityRecognizer":
    """Return a recogniser that does the same without looking up the list of public suffixes."""
    from presidio_analyzer.predefined_recognizers import EmailRecognizer  # noqa: PLC0415 - an optional part
    from tldextract import TLDExtract  # noqa: PLC0415 - comes with it

    if not isinstance(recognizer, EmailRecognizer):
        return recognizer
    extract = TLDExtract(cache_dir=None, suffix_list_urls=())

    class OfflineEmailRecognizer(EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    return OfflineEmailRecognizer(
        patterns=recognizer.patterns,  # type: ignore[has-type]  # Presidio leaves it open
        context=recognizer.context,
        supported_language=recognizer.supported_language,
        supported_entity=recognizer.supported_entities[0],
        name=_name(recognizer),
    )


def presidio_recognizer(scanner: Scanner, *, language: str = "en") -> "EntityRecognizer":
    """Return a recogniser for Presidio's registry that finds what a scanner finds; ``us-ssn`` is its ``US_SSN``.

    Raises:
        MissingExtraError: The extra ``presidio`` is not installed.
    """
    try:
        from presidio_analyzer import EntityRecognizer, RecognizerResult  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("presidio") from error
    kinds = {rule.kind: _entity(rule.kind) for rule in scanner.policy.active()}
    kinds |= {kind: _entity(kind) for finder in scanner.policy.finders for kind in finder.kinds}
    kinds[LITERAL_KIND] = _entity(LITERAL_KIND)

    class StanchRecognizer(EntityRecognizer):
        """Our findings as Presidio's results."""

        def load(self) -> None:
            """Do nothing: the scanner is loaded."""

        def analyze(
            self,
            text: str,
            entities: list[str],
            nlp_artifacts: "NlpArtifacts | None" = None,  # noqa: ARG002 - Presidio's signature
        ) -> "list[RecognizerResult]":
            """Return the findings of the wanted entities."""
            return [
                RecognizerResult(kinds[f.kind], f.start, f.end, f.score)
                for f in scanner.scan(text).findings
                if kinds[f.kind] in entities
            ]

    return StanchRecognizer(sorted(set(kinds.values())), name="StanchRecognizer", supported_language=language)


def _name(recognizer: "EntityRecognizer") -> str:
    return str(recognizer.name)  # type: ignore[has-type]  # Presidio leaves it open


def _entity(kind: str) -> str:
    return kind.upper().replace("-", "_")
