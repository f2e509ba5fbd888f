"""Trusted issuers of tokens, what they publish about themselves, and their keys, fetched within strict bounds."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

from stanch.access.clock import Clock, milliseconds
from stanch.crypto import parse_json
from stanch.errors import ExternalError, InvalidInput, StanchError

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
FRESH_MS = 5 * 60_000
STALE_MS = 24 * 3_600_000
RETRY_MS = 60_000
_MAX_BYTES = 1 << 20
_MAX_KEYS = 64
_RSA_BITS = 2048
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Fetch(Protocol):
    """One bounded HTTP exchange: TLS verified, no redirects, an answer of at most 1 MiB."""

    def __call__(
        self, method: Literal["GET", "POST"], url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Return the status and the body, or raise :class:`stanch.errors.ExternalError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """This workspace as a client of an OpenID provider, for people who sign in with a browser.

    Attributes:
        id: ``client_id``.
        secret: Its secret; empty for a public client.
        redirect_uri: Where the provider sends the browser back to, exactly.
    """

    id: str
    secret: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer whose tokens are accepted.

    Attributes:
        url: Exactly its ``iss``.
        kind: ``rfc9068``: OAuth access tokens; ``workload``: tokens of a cluster or a build service.
        audience: What ``aud`` must name; for ``workload`` the origin of the workspace and nothing else.
        algorithms: Accepted signature algorithms.
        claims: Conditions: the value that stands at a path, for example ``{"repository": "acme/app"}``; steps of a
            path are joined by ``/``. A workload issuer needs at least one.
        acr: Values of ``acr`` that mean a second factor.
        client: For the code flow; None where nobody signs in.
    """

    url: str
    kind: Literal["rfc9068", "workload"]
    audience: str
    algorithms: frozenset[str] = ALGORITHMS
    claims: Mapping[str, str] = field(default_factory=dict)
    acr: frozenset[str] = frozenset()
    client: Client | None = None

    def __post_init__(self) -> None:
        require_secure(self.url)
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise InvalidInput(f"issuer {self.url}: algorithms are among {', '.join(sorted(ALGORITHMS))}")
        if not self.audience:
            raise InvalidInput(f"issuer {self.url}: an audience is needed")
        if self.kind == "workload" and not self.claims:
            raise InvalidInput(
                f"issuer {self.url}: a workload issuer needs at least one condition on a claim",
                why="it makes tokens for everybody who uses the same cluster or build service",
                next_step='for example: claims = { repository = "acme/app" }',
            )
        if self.client is not None:
            require_secure(self.client.redirect_uri)


@dataclass(frozen=True, slots=True)
class Provider:
    """What an issuer publishes: its endpoints and its keys by ``kid``."""

    metadata: Mapping[str, Any]
    keys: "Mapping[str, Key]"
    fetched_ms: int

    def endpoint(self, name: str) -> str:
        """Return the URL of an endpoint, for example ``token_endpoint``.

        Raises:
            ExternalError: The issuer publishes none, or one without TLS.
        """
        return _url(self.metadata, name)


def require_secure(url: str) -> None:
    """Refuse a URL that is neither ``https`` nor plain ``http`` to this very machine.

    Raises:
        InvalidInput: It is another kind, or carries a user name or a fragment.
    """
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or local) or "@" in parts.netloc or parts.fragment:
        raise InvalidInput(f"expected an https URL, found {url[:120]!r}")


class Providers:
    """The published keys of the trusted issuers.

    A key set is used for five minutes. An unknown key id asks for it again, at most once a minute, and so does one that
    could not be fetched. What is older than a day is not used any more: then nobody of that issuer gets in.
    """

    def __init__(self, fetch: Fetch, *, clock: Clock = time.time) -> None:
        self._fetch = fetch
        self._now = milliseconds(clock)
        self._known: dict[str, Provider] = {}
        self._tried_ms: dict[str, int] = {}

    def provider(self, issuer: Issuer) -> Provider:
        """Return what an issuer publishes.

        Raises:
            ExternalError: It could not be fetched, for a day or ever.
        """
        now_ms = self._now()
        known = self._known.get(issuer.url)
        if known is not None and now_ms - known.fetched_ms < FRESH_MS:
            return known
        return self._refetch(issuer, now_ms)

    def key(self, issuer: Issuer, kid: str) -> "Key":
        """Return the key of a token.

        Raises:
            ExternalError: The key set cannot be had, or holds no such key.
        """
        provider = self.provider(issuer)
        if kid not in provider.keys:
            provider = self._refetch(issuer, self._now())
        if kid not in provider.keys:
            raise ExternalError(f"{issuer.url}: publishes no key of that id")
        return provider.keys[kid]

    def _refetch(self, issuer: Issuer, now_ms: int) -> Provider:
        """Fetch again if a minute has passed since the last try; else, or if it fails, use what is not too old."""
        failure: StanchError | None = None
        tried_ms = self._tried_ms.get(issuer.url)
        if tried_ms is None or not 0 <= now_ms - tried_ms < RETRY_MS:
            self._tried_ms[issuer.url] = now_ms
            try:
                self._known[issuer.url] = self._load(issuer, now_ms)
            except StanchError as error:
                failure = error
        known = self._known.get(issuer.url)
        if known is None or not now_ms - known.fetched_ms < STALE_MS:
            raise ExternalError(f"{issuer.url}: its keys cannot be had") from failure
        return known

    def _load(self, issuer: Issuer, now_ms: int) -> Provider:
        metadata = self._get(issuer.url.rstrip("/") + "/.well-known/openid-configuration")
        if metadata.get("issuer") != issuer.url:
            raise ExternalError(f"{issuer.url}: calls itself by another name")
        return Provider(metadata, _keys(self._get(_url(metadata, "jwks_uri"))), now_ms)

    def _get(self, url: str) -> dict[str, Any]:
        status, body = self._fetch("GET", url, headers={"Accept": "application/json"}, body=b"")
        return read_object(status, body, url)


def read_object(status: int, body: bytes, url: str) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        ExternalError: The status is not 200, or the body is no JSON object.
    """
    if status != 200:
        raise ExternalError(f"{url[:120]}: answered with status {status}")
    try:
        found = parse_json(body, what="answer", max_bytes=_MAX_BYTES)
    except InvalidInput as error:
        raise ExternalError(f"{url[:120]}: did not answer with JSON", why=error.what) from error
    if not isinstance(found, dict):
        raise ExternalError(f"{url[:120]}: did not answer with a JSON object")
    return found


def _url(metadata: Mapping[str, Any], name: str) -> str:
    url = metadata.get(name)
    if not isinstance(url, str):
        raise ExternalError(f"the issuer publishes no {name}")
    try:
        require_secure(url)
    except InvalidInput as error:
        raise ExternalError(f"the issuer publishes a {name} without TLS") from error
    return url


def _keys(answer: Mapping[str, Any]) -> "dict[str, Key]":
    """Return the signature keys of a key set by their id; what is none, or weak, is left out."""
    from joserfc.errors import JoseError  # noqa: PLC0415 - whoever trusts no issuer needs no memory for it
    from joserfc.jwk import RSAKey, import_key  # noqa: PLC0415 - same

    listed = answer.get("keys")
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise ExternalError(f"the key set: expected a list of at most {_MAX_KEYS} keys")
    found: dict[str, Key] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("kty") not in ("RSA", "EC", "OKP") or one.get("use", "sig") != "sig":
            continue
        kid = one.get("kid")
        if not isinstance(kid, str) or not kid or kid in found or "d" in one:
            continue
        try:
            key = import_key({name: value for name, value in one.items() if isinstance(value, str)})
        except (JoseError, ValueError, TypeError, KeyError):  # joserfc looks curves up by name
            continue
        if not isinstance(key, RSAKey) or key.public_key.key_size >= _RSA_BITS:
            found[kid] = key
    return found
