"""The keyed index of training text: build, merge, save, open, query."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from stanch.crypto import random_bytes
from stanch.errors import InvalidInput
from stanch.scan.fold import FOLD, Folder, fold_text
from stanch.scan.spans.bloom import BlockedBloom, block_count, finalise
from stanch.scan.spans.building import KEY_SIZE, Gathered, IndexKey
from stanch.scan.spans.cursor import Hit, Lookup, SpanCursor
from stanch.scan.spans.decision import Match, MatchTracker
from stanch.scan.spans.evidence import Evidence, log10_tail
from stanch.scan.spans.index_file import (
    Boilerplate,
    Header,
    IndexContent,
    index_bytes,
    key_id,
    parse_index,
    read_index,
    write_index,
)
from stanch.scan.spans.layout import SALT_SIZE, Layout
from stanch.scan.spans.params import STANDARD, IndexParams
from stanch.scan.spans.rolling import TILE, RollingKey, WindowHasher

_JOIN = 512


class SpanIndex:
    """Answers, to whoever holds the key, whether a window of text stood in the texts that it was built from.

    Verbatim after folding: paraphrase and translation are not seen, nor are texts shorter than a window. Without the
    key the file tells its size and fill only.
    """

    def __init__(self, content: IndexContent, key: bytes) -> None:
        self._content = content
        self._key = key
        self._rolling = RollingKey.derive(key, bytes.fromhex(content.header.salt))

    def __repr__(self) -> str:
        return f"SpanIndex({self.header.keys} windows of {self.header.k} bytes from {self.header.records} texts)"

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        *,
        key: bytes,
        params: IndexParams = STANDARD,
        dataset_root: str = "",
        public: Iterable[str] = (),
        layout: Layout | None = None,
    ) -> "SpanIndex":
        """Index the texts, one for each field of a record.

        While it runs, the folded texts are held in memory: about one byte a character, and 16 bytes a window.

        Args:
            texts: The texts; read once.
            key: 32 bytes, one key for each dataset and model.
            params: Window, stride, filter size, boilerplate.
            dataset_root: Merkle root of the dataset, for the header.
            public: Texts that everybody has. Their windows are left out as boilerplate is.
            layout: Salt and size, for parts that will be merged; None: a new salt, and the size that the windows need.

        Raises:
            InvalidInput: The key has not 32 bytes, there are too many windows, or more than the layout has room for.
        """
        secret = IndexKey(key, random_bytes(SALT_SIZE) if layout is None else layout.salt, params)
        # Copies of a text count once: a row that was stored ten times is what a model recites first, not boilerplate.
        folded = list(dict.fromkeys(fold_text(text, "index") for text in texts))
        gathered = Gathered.of([secret.sampled(folded)], records=len(folded), chars=sum(map(len, folded)))
        if params.boilerplate_after is not None:
            gathered.count(*secret.windows(folded).held(gathered.keys))
        return cls.assemble(secret, gathered, dataset_root=dataset_root, public=public, layout=layout)

    @classmethod
    def assemble(
        cls,
        secret: IndexKey,
        gathered: Gathered,
        *,
        dataset_root: str = "",
        public: Iterable[str] = (),
        layout: Layout | None = None,
    ) -> "SpanIndex":
        """Return the index of the windows that were gathered; arguments as of :meth:`build`.

        Raises:
            InvalidInput: There are too many windows, or more than the layout has room for.
        """
        params, after = secret.params, secret.params.boilerplate_after
        windows = gathered.kept(after, secret.windows([fold_text(text, "index") for text in public]))
        keys = len(windows)
        blocks = layout.blocks_for(keys, params.bits) if layout is not None else block_count(keys, params.bits)
        filter_ = BlockedBloom.build(windows, blocks)
        header = Header(
            fold=FOLD,
            k=params.k,
            stride=params.stride,
            bits=params.bits,
            blocks=blocks,
            keys=keys,
            records=gathered.records,
            chars=gathered.chars,
            salt=secret.salt.hex(),
            key_id=key_id(secret.key),
            dataset_root=dataset_root,
            fill_fp=filter_.random_hit(),
            boilerplate=None if after is None else Boilerplate(after, len(gathered.windows) - keys),
        )
        return cls(IndexContent(header, filter_), secret.key)

    @classmethod
    def merge(cls, parts: Sequence["SpanIndex"]) -> "SpanIndex":
        """Return the index of the texts of all parts, which were built with one layout.

        The filters are joined by OR. Windows, texts and characters are added, though parts may share some. What is
        boilerplate was decided in each part: a window that is none in one of them is in the result.

        Raises:
            InvalidInput: There are no parts, or their headers differ in more than what they count.
        """
        if len({_identity(part.header) for part in parts}) != 1:
            raise InvalidInput(
                "span index: these indexes cannot be merged",
                why="fold, parameters, salt, size, key and dataset must be the same in all of them",
                next_step="build the parts with one layout",
            )
        first, key = parts[0].header, parts[0]._key  # noqa: SLF001 - an index of this class
        headers = [part.header for part in parts]
        keys = sum(header.keys for header in headers)
        Layout(bytes.fromhex(first.salt), first.blocks).blocks_for(keys, first.bits)
        filter_ = BlockedBloom.union([part._content.filter for part in parts])  # noqa: SLF001 - same
        boilerplate = first.boilerplate and Boilerplate(
            first.boilerplate.after, sum(header.boilerplate.left_out for header in headers if header.boilerplate)
        )
        header = msgspec.structs.replace(
            first,
            keys=keys,
            records=sum(header.records for header in headers),
            chars=sum(header.chars for header in headers),
            fill_fp=filter_.random_hit(),
            boilerplate=boilerplate,
        )
        return cls(IndexContent(header, filter_), key)

    @classmethod
    def open(cls, path: Path, key: bytes) -> "SpanIndex":
        """Open a file and verify all of it.

        Raises:
            InvalidInput: The key has not 32 bytes, or the file cannot be opened.
            VerificationError: It is not a span index, made with another key, or changed.
        """
        _check_key(key)
        return cls(read_index(path, key), key)

    @classmethod
    def from_buffer(cls, data: memoryview, key: bytes, *, what: str = "span index") -> "SpanIndex":
        """Verify the bytes of a file and use them where they are; ``what`` names them in errors.

        Raises:
            InvalidInput: The key has not 32 bytes.
            VerificationError: As :meth:`open`.
        """
        _check_key(key)
        return cls(parse_index(data, key, what=what), key)

    def to_bytes(self) -> bytes:
        """Return what :meth:`save` writes."""
        return index_bytes(self._content, self._key)

    def save(self, path: Path) -> None:
        """Write the index; it belongs into a sealed bundle.

        Raises:
            InvalidInput: The folder cannot be written.
        """
        write_index(path, self._content, self._key)

    @property
    def header(self) -> Header:
        """What the index says about itself."""
        return self._content.header

    @property
    def params(self) -> IndexParams:
        """The parameters that the index was built with."""
        return self.header.params

    def cursor(self) -> SpanCursor:
        """Start a walk over text in the ``index`` view (:class:`stanch.scan.Folder`)."""
        return SpanCursor(self._lookup)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self._rolling, self.params.k, self._content.filter)

    def query(self, text: str) -> list[Match]:
        """Return the spans of a text that stand in the index, by the decision rule of :class:`MatchTracker`."""
        folder = Folder("index")
        hits = MatchTracker(self.params.stride).push(self.cursor().push(folder.push(text)))
        groups: list[list[Hit]] = []
        for hit in hits:
            if groups and hit.start - groups[-1][-1].start < _JOIN:
                groups[-1].append(hit)
            else:
                groups.append([hit])
        return [
            Match(*folder.offsets.span(group[0].start, group[-1].end), group[-1].end - group[0].start, len(group))
            for group in groups
        ]

    def evidence(self, text: str) -> Evidence:
        """Return how many distinct windows of a suspect text stand in the index, and how likely that is by chance."""
        hashes = np.unique(WindowHasher(self._rolling, self.params.k).all(fold_text(text, "index")))
        tiles = (hashes[start : start + TILE] for start in range(0, len(hashes), TILE))
        hits = sum(int(self._content.filter.holds(finalise(self._rolling.finaliser, tile)).sum()) for tile in tiles)
        return Evidence(len(hashes), hits, log10_tail(len(hashes), self.header.fill_fp, hits))


def _identity(header: Header) -> Header:
    """Return the header without what it counts."""
    boilerplate = header.boilerplate and Boilerplate(header.boilerplate.after, 0)
    return msgspec.structs.replace(header, keys=0, records=0, chars=0, fill_fp=0.0, boilerplate=boilerplate)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise InvalidInput(f"span index: the key has {len(key)} bytes, expected {KEY_SIZE}")
