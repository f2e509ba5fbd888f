"""The log's side of witnessing: ask for cosignatures, keep those that verify, stop when a witness has seen more."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from stanch.crypto import sha256
from stanch.errors import ExternalError, LogRolledBack, NoTrustedSignature, ProofInvalid, StanchError
from stanch.ledger.checkpoint import SignedCheckpoint, parse_decimal
from stanch.ledger.hashes import TileHashes
from stanch.ledger.note import NoteSignature, parse_note, signature_line
from stanch.ledger.policy import Witness
from stanch.ledger.proof import prove_consistency
from stanch.ledger.witness import SIZE_TYPE, AddCheckpoint
from stanch.store import Tables
from stanch.store.http import HttpRequest, HttpResponse, exchange
from stanch.store.schema.ledger import ledger_cosignature

Exchange = Callable[[HttpRequest], HttpResponse]

_ATTEMPTS = 3
_MAX_SKEW_SECONDS = 600
_BACKOFF = (1.0, 300.0)
_MAX_REPLY = 64 << 10
_TIMEOUT_SECONDS = 5.0
_URL_END = re.compile("/+$")


@dataclass(slots=True)
class _Patience:
    """When a witness that failed is asked again (monotonic seconds), and how long to wait after its next failure."""

    until: float = 0.0
    wait: float = _BACKOFF[0]


def ask(request: HttpRequest) -> HttpResponse:
    """Exchange one request with a witness, whose answers are short and who may be away."""
    return exchange(request, timeout_seconds=_TIMEOUT_SECONDS, max_bytes=_MAX_REPLY)


def fetch_note(witness: Witness, origin: str, *, exchange: Exchange = ask) -> bytes | None:
    """Return the last note of a log that a witness cosigned, not verified; None if it shows none.

    Raises:
        ExternalError: The witness cannot be reached.
    """
    page = f"{_URL_END.sub('', witness.url)}/{sha256(origin.encode()).hex()}/checkpoint"
    reply = exchange(HttpRequest("GET", page))
    return reply.body if reply.status == 200 else None


class WitnessClient:
    """Asks the witnesses of one log. What each cosigned is remembered in the table ``ledger_cosignature``.

    A witness that fails is asked again after 1 s, then 2 s, 4 s … up to 5 minutes.
    """

    def __init__(
        self,
        tables: Tables,
        witnesses: Sequence[Witness],
        *,
        clock: Callable[[], float],
        refresh_seconds: float,
        exchange: Exchange = ask,
    ) -> None:
        """Ask ``witnesses``, and again for the same checkpoint when a cosignature is older than ``refresh_seconds``."""
        self._tables = tables
        self._witnesses = tuple(witnesses)
        self._clock = clock
        self._refresh = refresh_seconds
        self._exchange = exchange
        self._patience = {witness.key.vkey: _Patience() for witness in witnesses}
        self._lock = threading.Lock()

    def cosign(self, signed: SignedCheckpoint, hashes: TileHashes, rows: Callable[[], int]) -> SignedCheckpoint:
        """Return the checkpoint with all cosignatures that could be had.

        Args:
            signed: A checkpoint that the log signed.
            hashes: Tiles at its size.
            rows: Returns how many entries the log holds by now; a witness that cosigned more proves a rollback.

        Raises:
            LogRolledBack: A witness cosigned a longer log, or another history.
            StoreError: A cosignature could not be stored.
        """
        due = self._due(signed.checkpoint.origin, signed.checkpoint.size)
        if due:
            with ThreadPoolExecutor(len(due)) as pool:
                for failure in list(pool.map(lambda witness: self._try(witness, signed, hashes, rows), due)):
                    if failure is not None:
                        raise failure
        return self.with_cosignatures(signed)

    def with_cosignatures(self, signed: SignedCheckpoint) -> SignedCheckpoint:
        """Return the checkpoint with the cosignatures that are stored for it, and no other lines but the log's own."""
        table, checkpoint = ledger_cosignature.c, signed.checkpoint
        keys = [(witness.key.name, witness.key.key_id.hex()) for witness in self._witnesses]
        query = select(table.key_name, table.key_id, table.line, table.time_s).where(
            table.origin == checkpoint.origin, table.size == checkpoint.size
        )
        with self._tables.read() as connection:
            stored = {(name, key_id): (line, time_s) for name, key_id, line, time_s in connection.execute(query)}
        known = [(name, key_id, *stored[name, key_id]) for name, key_id in keys if (name, key_id) in stored]
        note = _own(signed) + "".join(line for _, _, line, _ in known).encode()
        cosignatures = tuple(NoteSignature(name, bytes.fromhex(key_id), time_s) for name, key_id, _, time_s in known)
        return SignedCheckpoint(checkpoint, note, cosignatures)

    def due(self, origin: str, size: int) -> bool:
        """Say whether a witness should be asked now about the checkpoint of ``size`` entries."""
        return bool(self._due(origin, size))

    def _due(self, origin: str, size: int) -> list[Witness]:
        now = time.monotonic()
        with self._tables.read() as connection:
            fresh = _fresh(connection, origin, size, self._clock() - self._refresh)
        with self._lock:
            return [
                witness
                for witness in self._witnesses
                if (witness.key.name, witness.key.key_id.hex()) not in fresh
                and self._patience[witness.key.vkey].until <= now
            ]

    def _try(
        self, witness: Witness, signed: SignedCheckpoint, hashes: TileHashes, rows: Callable[[], int]
    ) -> StanchError | None:
        """Ask one witness; return what must stop the log, and remember to wait after any other failure."""
        try:
            self._ask(witness, signed, hashes, rows)
        except (ExternalError, NoTrustedSignature, ProofInvalid):
            with self._lock:
                patience = self._patience[witness.key.vkey]
                patience.until = time.monotonic() + patience.wait
                patience.wait = min(2 * patience.wait, _BACKOFF[1])
        except StanchError as error:
            return error
        else:
            with self._lock:
                self._patience[witness.key.vkey] = _Patience()
        return None

    def _ask(self, witness: Witness, signed: SignedCheckpoint, hashes: TileHashes, rows: Callable[[], int]) -> None:
        size = signed.checkpoint.size
        old = min(self._remembered(witness, signed.checkpoint.origin), size)
        url = _URL_END.sub("", witness.url) + "/add-checkpoint"
        for _ in range(_ATTEMPTS):
            body = AddCheckpoint(old, tuple(prove_consistency(old, size, hashes.subtree)), _own(signed)).to_bytes()
            reply = self._exchange(HttpRequest("POST", url, {"Content-Type": "text/plain"}, body))
            if reply.status == 200:
                self._store(witness, signed, reply.body)
                return
            if reply.status == 422:
                raise _rolled_back(witness, f"it cosigned another history than these {size} entries")
            if reply.status != 409 or reply.headers.get("content-type", "").partition(";")[0] != SIZE_TYPE:
                raise ExternalError(f"witness {witness.name}: answered with status {reply.status}")
            theirs = _read_size(reply.body)
            # Read after the answer: whatever another publisher got cosigned meanwhile is in the rows by now.
            if theirs > (present := rows()):
                raise _rolled_back(witness, f"it cosigned {theirs} entries, and this log holds {present}")
            if theirs == old == size:
                raise _rolled_back(witness, f"it cosigned another root over {size} entries")
            if theirs > size:
                return  # another publisher of this log was faster; its checkpoint is the newer one
            old = theirs
        raise ExternalError(f"witness {witness.name}: its size kept changing")

    def _store(self, witness: Witness, signed: SignedCheckpoint, body: bytes) -> None:
        """Keep the line of the witness's own key, if it verifies and its time is believable."""
        text = signed.checkpoint.text()
        identity = (witness.key.name, witness.key.key_id)
        parsed = parse_note(f"{text}\n".encode() + body)
        payload = next((p for name, p in parsed.signatures if (name, p[:4]) == identity), None)
        if parsed.text != text or payload is None:
            raise ProofInvalid(f"witness {witness.name}: its answer holds no cosignature of its key")
        time_s = witness.key.check(text, payload[4:]).time_s or 0
        if abs(time_s - self._clock()) > _MAX_SKEW_SECONDS:
            raise ProofInvalid(f"witness {witness.name}: its time is more than 10 minutes from ours")
        row = {
            "origin": signed.checkpoint.origin, "size": signed.checkpoint.size,
            "key_name": witness.key.name, "key_id": witness.key.key_id.hex(),
        }  # fmt: skip
        with self._tables.write() as connection:
            connection.execute(delete(ledger_cosignature).filter_by(**row))
            line = signature_line(witness.key.name, payload)
            connection.execute(insert(ledger_cosignature).values(**row, line=line, time_s=time_s))

    def _remembered(self, witness: Witness, origin: str) -> int:
        table = ledger_cosignature.c
        query = select(func.max(table.size)).where(
            table.origin == origin,
            table.key_name == witness.key.name,
            table.key_id == witness.key.key_id.hex(),
        )
        with self._tables.read() as connection:
            return connection.scalar(query) or 0


def _own(signed: SignedCheckpoint) -> bytes:
    """Return the note with the lines of the log alone."""
    parsed = parse_note(signed.note)
    own = [signature_line(name, payload) for name, payload in parsed.signatures if name == signed.checkpoint.origin]
    return f"{parsed.text}\n{''.join(own)}".encode()


def _fresh(connection: Connection, origin: str, size: int, since_s: float) -> set[tuple[str, str]]:
    table = ledger_cosignature.c
    rows = connection.execute(
        select(table.key_name, table.key_id).where(
            table.origin == origin, table.size == size, table.time_s >= int(since_s)
        )
    )
    return {(name, key_id) for name, key_id in rows}


def _read_size(body: bytes) -> int:
    try:
        return parse_decimal(body.decode("ascii").removesuffix("\n"), "witness size")
    except UnicodeDecodeError as error:
        raise ProofInvalid("witness: its size is not ASCII") from error


def _rolled_back(witness: Witness, why: str) -> LogRolledBack:
    return LogRolledBack(
        f"log: witness {witness.name} has seen more than this log shows, or something else",
        why=why,
        next_step="stop all writers; stanch log recover rebuilds the rows from the published tiles",
    )
