"""What the log says of the revocation lists of stores: who signs the next one does not believe the store alone."""

from typing import Final

from stanch.ledger import EntryQuery, LedgerReader, decode_entry
from stanch.release import RemoteBundle
from stanch.seal import SeenRelease
from stanch.terms import JsonValue

_KINDS: Final = ("release.deliver", "release.revoke")
_FIELD: Final = "revocations"


class LoggedLists:
    """A :class:`stanch.seal.ReleaseMemory` of one store's list, kept by the outcomes of deliveries and revocations.

    What the act at hand sees is remembered once its own outcome holds :meth:`seen`.
    """

    def __init__(self, reader: LedgerReader, remote: RemoteBundle) -> None:
        self._store = remote.location
        self._highest: SeenRelease | None = None
        for kind in _KINDS:
            for _, data in reader.select(EntryQuery(kind=kind, phase="outcome", status=1)):
                told = (decode_entry(data)["unmapped"]["stanch"].get("payload") or {}).get(_FIELD)
                if told is not None and told["store"] == self._store:
                    self._keep(SeenRelease(told["number"], told["sha256"]))

    def last(self, _publisher: str, _name: str, /) -> SeenRelease | None:
        """Return the list of the highest number that was seen."""
        return self._highest

    def remember(self, _publisher: str, _name: str, release: SeenRelease, /) -> None:
        """Keep a list unless one of a higher number is kept already."""
        self._keep(release)

    def _keep(self, release: SeenRelease) -> None:
        if self._highest is None or self._highest.number < release.number:
            self._highest = release

    def seen(self) -> dict[str, JsonValue]:
        """Return what an outcome says of the list; nothing where the store has none yet."""
        if self._highest is None:
            return {}
        return {_FIELD: {"store": self._store, "number": self._highest.number, "sha256": self._highest.digest}}
