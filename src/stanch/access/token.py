"""Tokens of trusted issuers: what has to hold before anything in one is believed.

The algorithm comes from the issuer's settings and the key from its key set; the token's header only chooses among them.
Every refusal looks the same from outside. What was wrong is the error's cause, for tests and for a debugger.
"""

import base64
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stanch.access.clock import Clock
from stanch.access.directory import MAX_NAME, Proof, not_authenticated
from stanch.access.issuer import Issuer, Providers
from stanch.crypto import parse_json
from stanch.errors import ExternalError, InvalidInput

if TYPE_CHECKING:
    from joserfc.jwk import Key

LEEWAY_S = 60
LONGEST_S = 24 * 3600
_MAX_TOKEN = 16_384
_ACCESS_TOKEN = frozenset({"at+jwt", "application/at+jwt"})
_PLAIN = frozenset({"jwt", ""})


class TokenRefused(ValueError):
    """Why a token was not believed; never shown to whoever presented it."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that was believed: its issuer and subject, and the proof for a session."""

    issuer: str
    subject: str
    proof: Proof
    claims: Mapping[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        """Issuer and subject."""
        return self.issuer, self.subject

    @property
    def auth_ms(self) -> int:
        """When the person signed in at the issuer (``auth_time``), milliseconds since 1970; 0 if it does not say."""
        when = self.claims.get("auth_time")
        return 1000 * when if isinstance(when, int) and not isinstance(when, bool) and when > 0 else 0


class Tokens:
    """Verifies tokens against the trusted issuers.

    Args:
        issuers: Whom to trust, and for what.
        providers: Their keys.
        clock: Seconds since 1970.
    """

    def __init__(self, issuers: Iterable[Issuer], providers: Providers, *, clock: Clock = time.time) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._providers = providers
        self._clock = clock

    def bearer(self, token: str) -> VerifiedToken:
        """Verify a bearer token of a service.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        try:
            header, claims, issuer = self._verified(token)
            _check_kind(header, claims, issuer)
            self._check_times(claims)
            _check_audience(claims, issuer)
            _check_conditions(claims, issuer)
            return _verified_token(claims, issuer)
        except (TokenRefused, ExternalError) as error:
            raise not_authenticated() from error

    def id_token(self, token: str, issuer: Issuer, *, nonce: str) -> VerifiedToken:
        """Verify the ID token that the code flow of ``issuer`` gave (OpenID Connect Core 3.1.3.7).

        Raises:
            NotAuthenticated: For every reason the same.
        """
        try:
            header, claims, found = self._verified(token)
            self._check_times(claims)
            _check_id_token(header, claims, issuer if found.url == issuer.url else None)
            _check_nonce(claims, nonce)
            return _verified_token(claims, issuer)
        except (TokenRefused, ExternalError) as error:
            raise not_authenticated() from error

    def _verified(self, token: str) -> tuple[dict[str, Any], dict[str, Any], Issuer]:
        """Return header, claims and issuer of a token whose signature holds."""
        if len(token) > _MAX_TOKEN or token.count(".") != 2:
            raise TokenRefused("not a signed token")
        header, claims = (_object(part) for part in token.split(".")[:2])
        issuer = self._issuers.get(str(claims.get("iss")))
        if issuer is None:
            raise TokenRefused("of an unknown issuer")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise TokenRefused("an algorithm that is not accepted")
        if "crit" in header or not isinstance(kid, str) or not kid:
            raise TokenRefused("a header that is not accepted")
        key = self._providers.key(issuer, kid)
        if key.alg not in {None, algorithm}:
            raise TokenRefused("a key of another algorithm")
        _check_signature(token, algorithm, key)
        return header, claims, issuer

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        issued, ends = _seconds(claims, "iat"), _seconds(claims, "exp")
        begins = _seconds(claims, "nbf") if "nbf" in claims else issued
        if now >= ends + LEEWAY_S:
            raise TokenRefused("expired")
        if max(begins, issued) > now + LEEWAY_S:
            raise TokenRefused("not valid yet")
        if not 0 < ends - issued <= LONGEST_S:
            raise TokenRefused("valid for too long")


def _check_signature(token: str, algorithm: str, key: "Key") -> None:
    from joserfc import jws  # noqa: PLC0415 - whoever trusts no issuer needs no memory for it
    from joserfc.errors import JoseError  # noqa: PLC0415 - same

    # The model of one algorithm is asked, not joserfc's decoder: that would read the header again, and warns of
    # `EdDSA`, the only name that today's issuers use for Ed25519.
    model = jws.JWSRegistry.algorithms[algorithm]
    signed, _, signature = token.rpartition(".")
    try:
        model.check_key(key)
        holds = model.verify(signed.encode("ascii"), _bytes(signature), key)
    except (JoseError, ValueError, TypeError) as error:
        raise TokenRefused("the signature does not hold") from error
    if not holds:
        raise TokenRefused("the signature does not hold")


def _check_kind(header: Mapping[str, Any], claims: Mapping[str, Any], issuer: Issuer) -> None:
    if "cnf" in claims:  # RFC 7800: good only with a key, which a bearer does not show
        raise TokenRefused("bound to a key")
    kind = str(header.get("typ", "")).lower()
    if kind not in (_ACCESS_TOKEN if issuer.kind == "rfc9068" else _PLAIN):
        raise TokenRefused("a token of another kind")


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audience = _audience(claims)
    if issuer.kind == "workload":
        if audience != [issuer.audience]:
            raise TokenRefused("for another audience")
        return
    if issuer.audience not in audience:
        raise TokenRefused("for another audience")
    for name in ("client_id", "jti"):  # RFC 9068 section 2.2
        if not isinstance(claims.get(name), str) or not claims[name]:
            raise TokenRefused(f"without {name}")
    if claims.get("azp", claims["client_id"]) != claims["client_id"]:
        raise TokenRefused("for another authorised party")


def _check_id_token(header: Mapping[str, Any], claims: Mapping[str, Any], issuer: Issuer | None) -> None:
    client = issuer.client if issuer is not None else None
    if client is None:
        raise TokenRefused("of another issuer")
    if str(header.get("typ", "")).lower() not in _PLAIN:
        raise TokenRefused("a token of another kind")
    audience = _audience(claims)
    if client.id not in audience:
        raise TokenRefused("for another audience")
    if claims.get("azp", client.id) != client.id or (len(audience) > 1 and "azp" not in claims):
        raise TokenRefused("for another authorised party")


def _check_nonce(claims: Mapping[str, Any], nonce: str) -> None:
    found = claims.get("nonce")
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), nonce.encode()):
        raise TokenRefused("of another sign-in")


def _check_conditions(claims: Mapping[str, Any], issuer: Issuer) -> None:
    for path, wanted in issuer.claims.items():
        found: object = claims
        for step in path.split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        if found != wanted:
            raise TokenRefused(f"a condition on {path} does not hold")


def _verified_token(claims: Mapping[str, Any], issuer: Issuer) -> VerifiedToken:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_NAME:
        raise TokenRefused("without a subject")
    methods = claims.get("amr")
    acr = claims.get("acr")
    mfa = (isinstance(methods, list) and "mfa" in methods) or (isinstance(acr, str) and acr in issuer.acr)
    token_id = claims.get("jti")
    named = isinstance(token_id, str) and token_id.isascii() and token_id.isprintable() and 1 <= len(token_id) <= 128
    proof = Proof(
        kind="oidc",
        credential=f"jti:{token_id}" if named else "token",
        mfa=mfa,
        expires_ms=_seconds(claims, "exp") * 1000,
    )
    return VerifiedToken(issuer.url, subject, proof, claims)


def _audience(claims: Mapping[str, Any]) -> list[str]:
    found = claims.get("aud")
    values = [found] if isinstance(found, str) else found
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise TokenRefused("without an audience")
    return values


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1 << 40:
        raise TokenRefused(f"without {name}")
    return int(found)


def _object(part: str) -> dict[str, Any]:
    """Return the JSON object of a token's part; names that stand twice are refused."""
    try:
        found = parse_json(_bytes(part), what="token", max_bytes=_MAX_TOKEN)
    except (ValueError, InvalidInput) as error:
        raise TokenRefused("not a signed token") from error
    if not isinstance(found, dict):
        raise TokenRefused("not a signed token")
    return found


def _bytes(part: str) -> bytes:
    return base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
