"""Named entities by spaCy (extra ``ner``), with a model that the user names; none is ever downloaded.

Only sentences with a capitalised word are read, and of the model only what finds entities.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from stanch.errors import InvalidInput, MissingExtraError
from stanch.scan.finder import Span
from stanch.terms import JsonValue, Severity

if TYPE_CHECKING:
    from spacy.language import Language

LABELS: Mapping[str, str] = MappingProxyType({"PERSON": "person", "PER": "person"})
"""Kinds by the labels of spaCy's models for persons."""

SCORE = 0.6
_UNNEEDED = ("tagger", "morphologizer", "parser", "senter", "lemmatizer", "attribute_ruler", "textcat")
_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]*")
_LONGEST = 10_000


def open_spacy(model: str, labels: Mapping[str, str] = LABELS) -> "SpacyFinder":
    """Open a model that is installed under a name, or lies in a folder.

    Raises:
        InvalidInput: There is no such model.
        MissingExtraError: The extra ``ner`` is not installed.
    """
    try:
        import spacy  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("ner") from error
    try:
        pipeline = spacy.load(model, exclude=_UNNEEDED)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"no spaCy model {model[:100]!r} can be opened",
            why="stanch downloads none",
            next_step="install a model you trust, pinned by its hash",
        ) from error
    return SpacyFinder(pipeline, labels)


class SpacyFinder:
    """A loaded pipeline as a finder of the labels it is given kinds for."""

    def __init__(self, pipeline: "Language", labels: Mapping[str, str] = LABELS) -> None:
        self._pipeline = pipeline
        self._labels = dict(labels)

    @property
    def name(self) -> str:
        """See :class:`stanch.scan.finder.Finder`."""
        return "spacy"

    @property
    def kinds(self) -> frozenset[str]:
        """See :class:`stanch.scan.finder.Finder`."""
        return frozenset(self._labels.values())

    @property
    def severity(self) -> Severity:
        """See :class:`stanch.scan.finder.Finder`."""
        return Severity.MEDIUM

    def find(self, text: str) -> list[Span]:
        """See :class:`stanch.scan.finder.Finder`."""
        wanted = [(match[0], match.start()) for match in _SENTENCE.finditer(text) if _has_capital(match[0])]
        pieces = [
            (sentence[first : first + _LONGEST], start + first)
            for sentence, start in wanted
            for first in range(0, len(sentence), _LONGEST)
        ]
        return [
            Span(start + entity.start_char, start + entity.end_char, self._labels[entity.label_], SCORE)
            for document, start in self._pipeline.pipe(pieces, as_tuples=True)
            for entity in document.ents
            if entity.label_ in self._labels
        ]

    def facts(self) -> JsonValue:
        """See :class:`stanch.scan.finder.Finder`."""
        meta, labels = self._pipeline.meta, [f"{label}={kind}" for label, kind in sorted(self._labels.items())]
        return [f"{meta['lang']} {meta['name']} {meta['version']}", *self._pipeline.pipe_names, *labels]


def _has_capital(sentence: str) -> bool:
    return any(word[0].isupper() for word in sentence.split())
