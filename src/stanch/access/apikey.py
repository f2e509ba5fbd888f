"""API keys of services: ``stk_<id>_<secret><check>``, 80 characters, kept as a MAC under a pepper that no table holds.

A key is good for named models, from named networks, for named actions, until a day. The specification is
``docs/spec/api-key.md``.
"""

import base64
import functools
import hmac
import ipaddress
import json
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from stanch.access.clock import Clock, milliseconds
from stanch.access.directory import not_authenticated
from stanch.access.facts import WORKSPACE_SCOPE
from stanch.access.policy import schema_actions
from stanch.access.revision import advance_facts
from stanch.access.session import Session
from stanch.crypto import RandomBytes, frame, hmac_prf, random_bytes
from stanch.errors import InvalidInput, NotAuthenticated, NotFound
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.terms import Digest

DEFAULT_DAYS = 90
MAX_DAYS = 366
DEFAULT_ACTIONS = ("model:infer",)
_DAY_MS = 86_400_000
_LABEL = b"stanch/access/v1/api-key"
_FORM = re.compile(r"stk_([a-z2-7]{16})_([a-z2-7]{52})([a-z2-7]{7})")
_DIGITS = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz234567", b"0123456789abcdefghijklmnopqrstuv")
_MOST = 64  # models, networks or actions of one key
_NOBODY = (hmac_prf(bytes(32)), bytes(32))
_SESSION_MS = 60_000
_SEEN_SECONDS, _MOST_SEEN = 1.0, 4096


@dataclass(frozen=True, slots=True)
class Secret:
    """The text of a key, shown once. Its repr shows nothing."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyOrder:
    """What a key is to be good for.

    Attributes:
        principal: The service that it belongs to.
        models: Digests ``sha256:…`` of the models, or ``workspace`` for acts that concern no single artifact.
        networks: CIDR networks that it may be used from; at least one.
        actions: Cedar actions.
        days: 1 to 366.
    """

    principal: str
    models: tuple[str, ...]
    networks: tuple[str, ...]
    actions: tuple[str, ...] = DEFAULT_ACTIONS
    days: int = DEFAULT_DAYS


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """What is kept of a key beside its MAC."""

    id: str
    principal: str
    models: tuple[str, ...]
    networks: tuple[str, ...]
    actions: tuple[str, ...]
    not_before_ms: int
    expires_ms: int
    revoked_ms: int | None
    issued_by: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """The row of a key."""

    pepper: int
    mac: bytes = field(repr=False)
    record: ApiKeyRecord


def format_key(key_id: bytes, secret: bytes) -> str:
    """Return the text of a key from its 10-byte id and its 32-byte secret."""
    body = f"stk_{_base32(key_id)}_{_base32(secret)}"
    return body + _base32(zlib.crc32(body.encode()).to_bytes(4, "big"))


def parse_key(text: str) -> tuple[str, bytes]:
    """Return the id and the secret bytes of a key.

    Raises:
        NotAuthenticated: It is no key, or its check does not hold.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise not_authenticated()
    secret, check = _number(found[2]), _number(found[3])
    # Both ends of base32 have spare bits; only the one text that format_key writes is a key.
    if secret & 0xF or check & 0x7 or check >> 3 != zlib.crc32(text[:-7].encode()):
        raise not_authenticated()
    return found[1], (secret >> 4).to_bytes(32, "big")


def key_mac(pepper: Callable[[bytes], bytes], key_id: str, secret: bytes) -> bytes:
    """Return ``HMAC-SHA256(pepper, frame(label, id, secret bytes))``; the pepper as :func:`stanch.crypto.hmac_prf`."""
    return pepper(frame(_LABEL, key_id.encode(), secret))


class ApiKeys:
    """The API keys of one workspace.

    Args:
        tables: Where they are kept.
        peppers: Secrets of 32 bytes by their version; the highest one is used for new keys.
        clock: Seconds since 1970.
        rng: Source of randomness.
        monotonic: Seconds, for how long a key is remembered.
    """

    def __init__(
        self,
        tables: Tables,
        peppers: Mapping[int, bytes],
        *,
        clock: Clock = time.time,
        rng: RandomBytes = random_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._monotonic = monotonic
        self._seen: dict[str, tuple[float, _Kept]] = {}
        self._renewing: set[str] = set()
        self._peppers = {version: hmac_prf(pepper) for version, pepper in peppers.items()}
        self._now = milliseconds(clock)
        self._rng = rng

    def issue_key(self, order: ApiKeyOrder, *, issued_by: str) -> tuple[ApiKeyRecord, Secret]:
        """Make a key; its text is returned once and kept nowhere.

        Raises:
            InvalidInput: No model, network or action, a malformed one, not 1 to 366 days, or not a service.
            NotFound: There is no such principal.
        """
        _check(order)
        if not self._peppers:
            raise InvalidInput("API keys: the keyring holds no pepper")
        key_id, secret, now_ms = self._rng(10), self._rng(32), self._now()
        name, pepper = _base32(key_id), max(self._peppers)
        record = ApiKeyRecord(
            name, order.principal, order.models, order.networks, order.actions,
            now_ms, now_ms + order.days * _DAY_MS, None, issued_by,
        )  # fmt: skip
        with self._tables.write() as connection:
            _require_service(connection, order.principal)
            connection.execute(
                insert(schema.api_key).values(
                    id=name, principal=order.principal, mac=key_mac(self._peppers[pepper], name, secret), pepper=pepper,
                    models=json.dumps(order.models), networks=json.dumps(order.networks),
                    actions=json.dumps(order.actions), not_before_ms=now_ms, expires_ms=record.expires_ms,
                    issued_by=issued_by,
                )
            )  # fmt: skip
            advance_facts(connection)
        return record, Secret(format_key(key_id, secret))

    def authenticate(self, text: str, *, address: str) -> Session:
        """Open a session of a minute for whoever shows a key.

        Args:
            text: The key.
            address: The IP address it is used from.

        Raises:
            NotAuthenticated: For every reason the same; an unknown id costs as much as a known one.
        """
        name, secret = parse_key(text)
        table, seen = schema.api_key, self._monotonic()
        with self._tables.read() as connection:
            row = connection.execute(select(table).where(table.c.id == name)).one_or_none()
        kept = None if row is None else _Kept(row.pepper, row.mac, _record(row))
        session = self._open(kept, name, secret, address)
        if kept is not None:
            if len(self._seen) >= _MOST_SEEN:
                self.forget()
            self._seen[name] = (seen, kept)
            self._renewing.discard(name)
        return session

    def recognise(self, text: str, *, address: str) -> Session | None:
        """Open a session as :meth:`authenticate` does, from what that read of the key in the last second.

        After half of that one who asks is told nothing, so that it reads the key for all. The key may have been revoked
        since: before anything is done, the caller sees to it that no fact has changed.
        None: ask :meth:`authenticate`.

        Raises:
            NotAuthenticated: The text is no key.
        """
        name, secret = parse_key(text)
        seen, kept = self._seen.get(name, (0.0, None))
        try:  # one that is not remembered costs as much
            session = self._open(kept, name, secret, address)
        except NotAuthenticated:
            return None
        age = self._monotonic() - seen
        if age >= _SEEN_SECONDS or (age >= _SEEN_SECONDS / 2 and name not in self._renewing):
            self._renewing.add(name)
            return None
        return session

    def forget(self) -> None:
        """Read every key again."""
        self._seen.clear()
        self._renewing.clear()

    def _open(self, kept: _Kept | None, name: str, secret: bytes, address: str) -> Session:
        known = kept if kept is not None and kept.pepper in self._peppers else None
        pepper, mac = _NOBODY if known is None else (self._peppers[known.pepper], known.mac)
        if not hmac.compare_digest(key_mac(pepper, name, secret), mac) or known is None:
            raise not_authenticated()
        record, now_ms = known.record, self._now()
        if record.revoked_ms is not None or not record.not_before_ms <= now_ms < record.expires_ms:
            raise not_authenticated()
        if not _within(address, record.networks):
            raise not_authenticated()
        return Session(
            record.principal, name, mfa=False, started_ms=now_ms,
            expires_ms=min(record.expires_ms, now_ms + _SESSION_MS), kind="api-key",
        )  # fmt: skip

    def revoke_key(self, key_id: str) -> None:
        """Refuse a key from now on, or raise :class:`stanch.errors.NotFound`."""
        table = schema.api_key
        with self._tables.write() as connection:
            done = connection.execute(
                update(table).where(table.c.id == key_id, table.c.revoked_ms.is_(None)).values(revoked_ms=self._now())
            )
            if not done.rowcount:
                raise NotFound(f"API key {key_id[:40]}: does not exist or was revoked already")
            advance_facts(connection)

    def keys(self, principal: str | None = None) -> tuple[ApiKeyRecord, ...]:
        """Return what is kept of every key, or of those of one principal, in the order of their expiry."""
        table = schema.api_key
        query = select(table).order_by(table.c.expires_ms, table.c.id)
        if principal is not None:
            query = query.where(table.c.principal == principal)
        with self._tables.read() as connection:
            rows = connection.execute(query).all()
        return tuple(_record(row) for row in rows)


def _check(order: ApiKeyOrder) -> None:
    for what, values in (("model", order.models), ("network", order.networks), ("action", order.actions)):
        if not 1 <= len(values) <= _MOST or len(set(values)) != len(values):
            raise InvalidInput(f"API key: expected 1 to {_MOST} different {what}s, found {len(values)}")
    for model in order.models:
        if model != WORKSPACE_SCOPE:
            Digest.parse(model)
    for action in order.actions:
        if action not in schema_actions():
            known = ", ".join(sorted(schema_actions()))
            raise InvalidInput(f"API key: there is no action {action[:60]!r}", next_step=f"one of {known}")
    for network in order.networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise InvalidInput(f"API key: not a network: {network[:60]!r}", why=str(error)) from error
    if not 1 <= order.days <= MAX_DAYS:
        raise InvalidInput(f"API key: expected 1 to {MAX_DAYS} days, found {order.days}")


def _require_service(connection: Connection, principal: str) -> None:
    table = schema.principal
    kind = connection.execute(select(table.c.kind).where(table.c.id == principal)).scalar()
    if kind is None:
        raise NotFound(f"principal {principal[:40]}: is not registered")
    if kind != "service":
        raise InvalidInput(
            f"API key: {principal} is a person", why="API keys are for services",
            next_step="register the service: stanch access add NAME --service",
        )  # fmt: skip


@functools.lru_cache(4096)
def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    # An IPv4 client of a dual-stack socket arrives as ::ffff:a.b.c.d.
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(plain in _network(network) for network in networks)


_network = functools.lru_cache(1024)(ipaddress.ip_network)


def _record(row: Row[Any]) -> ApiKeyRecord:
    models, networks, actions = (tuple(json.loads(text)) for text in (row.models, row.networks, row.actions))
    return ApiKeyRecord(
        row.id, row.principal, models, networks, actions, row.not_before_ms, row.expires_ms, row.revoked_ms,
        row.issued_by,
    )  # fmt: skip


def _number(text: str) -> int:
    """Return the number that base32 digits write; twenty times as fast as the standard library's decoder."""
    return int(text.encode().translate(_DIGITS), 32)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
