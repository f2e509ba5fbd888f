"""The keyed index of training text: build, save, open, query."""

from collections.abc import Iterable
from pathlib import Path

from stanch.crypto import RandomBytes, random_bytes
from stanch.errors import InvalidInput
from stanch.scan.fold import FOLD, Folder, fold_text
from stanch.scan.spans.bloom import BlockedBloom, block_count, finalise
from stanch.scan.spans.cursor import Hit, SpanCursor
from stanch.scan.spans.decision import Match, MatchTracker
from stanch.scan.spans.index_file import Boilerplate, Header, IndexContent, key_id, read_index, write_index
from stanch.scan.spans.params import STANDARD, IndexParams
from stanch.scan.spans.rolling import RollingKey, WindowHasher
from stanch.scan.spans.windows import Windows

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
        random: RandomBytes = random_bytes,
    ) -> "SpanIndex":
        """Index the texts, one for each field of a record.

        While it runs, the folded texts are held in memory: about one byte a character, and 16 bytes a window.

        Args:
            texts: The texts; read once.
            key: 32 bytes, one key for each dataset and model.
            params: Window, stride, filter size, boilerplate.
            dataset_root: Merkle root of the dataset, for the header.
            random: Source of the salt.

        Raises:
            InvalidInput: The key has not 32 bytes, or there are too many windows.
        """
        _check_key(key)
        salt = random(16)
        rolling = RollingKey.derive(key, salt)
        # Copies of a text count once: a row that was stored ten times is what a model recites first, not boilerplate.
        folded = list(dict.fromkeys(fold_text(text, "index") for text in texts))
        windows = Windows(WindowHasher(rolling, params.k), folded)
        keys = windows.sampled(params.stride)
        found = len(keys)
        if params.boilerplate_after is not None:
            keys = keys[windows.texts_holding(keys) <= params.boilerplate_after]
        filter_ = BlockedBloom.build(finalise(rolling.finaliser, keys), block_count(len(keys), params.bits))
        after = params.boilerplate_after
        header = Header(
            fold=FOLD,
            k=params.k,
            stride=params.stride,
            bits=params.bits,
            blocks=len(filter_.words),
            keys=len(keys),
            records=len(folded),
            chars=sum(map(len, folded)),
            salt=salt.hex(),
            key_id=key_id(key),
            dataset_root=dataset_root,
            fill_fp=filter_.random_hit(),
            boilerplate=None if after is None else Boilerplate(after, found - len(keys)),
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
        return SpanCursor(self._rolling, self.params.k, self._content.filter)

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


def _check_key(key: bytes) -> None:
    if len(key) != 32:
        raise InvalidInput(f"span index: the key has {len(key)} bytes, expected 32")
