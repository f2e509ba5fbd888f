"""Signing in with a browser: the authorisation-code flow with PKCE (OpenID Connect Core 3.1, RFC 7636, RFC 9207).

The caller sends the browser to a URL, keeps the attempt where only that browser can bring it back, and hands both in
again when the browser returns. Nothing here is kept between the two.
"""

import base64
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

from stanch.access import opaque
from stanch.access.clock import Clock, milliseconds
from stanch.access.directory import not_authenticated
from stanch.access.issuer import Client, Fetch, Issuer, Provider, Providers, read_object
from stanch.access.token import TokenRefused, Tokens, VerifiedToken
from stanch.crypto import RandomBytes, random_bytes, sha256
from stanch.errors import ExternalError, InvalidInput

LONGEST_SINCE_S = 8 * 3600
"""A person who signed in longer ago signs in again at the provider (OpenID Connect Core, ``max_age``)."""
ATTEMPT_MS = 10 * 60_000


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A sign-in that is under way; all of it is secret but the issuer.

    Attributes:
        issuer: Where the browser was sent.
        state: Comes back with the browser.
        nonce: Comes back in the ID token.
        verifier: Shows the token endpoint that we began this (PKCE).
        begun_ms: When.
        step_up: Whether the second factor has to be shown anew.
    """

    issuer: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    begun_ms: int
    step_up: bool


class CodeFlow:
    """The code flow with one issuer.

    Args:
        issuer: An issuer with a client.
        providers: Its endpoints and keys.
        fetch: The HTTP exchange.
        clock: Seconds since 1970.
        rng: Source of randomness.
    """

    def __init__(
        self,
        issuer: Issuer,
        providers: Providers,
        fetch: Fetch,
        *,
        clock: Clock = time.time,
        rng: RandomBytes = random_bytes,
    ) -> None:
        if issuer.client is None:
            raise InvalidInput(f"issuer {issuer.url}: has no client, so nobody can sign in with it")
        self._issuer = issuer
        self._client: Client = issuer.client
        self._providers = providers
        self._tokens = Tokens([issuer], providers, clock=clock)
        self._fetch = fetch
        self._now = milliseconds(clock)
        self._rng = rng

    def begin(self, *, step_up: bool = False) -> tuple[str, LoginAttempt]:
        """Return the URL to send the browser to, and the attempt to keep.

        Raises:
            ExternalError: The provider cannot be reached, or has no such endpoint.
        """
        provider = self._providers.provider(self._issuer)
        state, nonce, verifier = (opaque.write(self._rng(opaque.SIZE)) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": self._client.redirect_uri,
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": opaque.write(sha256(verifier.encode())),
            "code_challenge_method": "S256",
            "max_age": str(LONGEST_SINCE_S),  # with it the token says when the person signed in
        }
        if provider.metadata.get("claims_parameter_supported") is True:
            query["claims"] = '{"id_token":{"auth_time":{"essential":true}}}'
        if step_up:
            query |= {"prompt": "login", "max_age": "0"}
            if self._issuer.acr:
                query["acr_values"] = " ".join(sorted(self._issuer.acr))
        attempt = LoginAttempt(self._issuer.url, state, nonce, verifier, self._now(), step_up)
        return f"{provider.endpoint('authorization_endpoint')}?{urlencode(query)}", attempt

    def finish(self, attempt: LoginAttempt, returned: Mapping[str, str]) -> VerifiedToken:
        """Exchange the code that the browser brought back for an ID token, and verify that.

        Args:
            attempt: What :meth:`begin` gave for this very browser.
            returned: The parameters of the redirect.

        Raises:
            NotAuthenticated: For every reason the same.
            ExternalError: The sign-in is good, but the issuer does not say when it was, and this was a step-up.
        """
        try:
            provider = self._providers.provider(self._issuer)
            code = self._code(attempt, returned, provider)
            answer = self._redeem(code, attempt, provider)
            token = self._tokens.id_token(str(answer.get("id_token", "")), self._issuer, nonce=attempt.nonce)
        except (TokenRefused, ExternalError) as error:
            raise not_authenticated() from error
        if attempt.step_up:
            self._check_fresh(token, attempt)
        return token

    def _code(self, attempt: LoginAttempt, returned: Mapping[str, str], provider: Provider) -> str:
        if attempt.issuer != self._issuer.url or not 0 <= self._now() - attempt.begun_ms < ATTEMPT_MS:
            raise TokenRefused("the attempt is over, or of another issuer")
        if not hmac.compare_digest(returned.get("state", "").encode(), attempt.state.encode()):
            raise TokenRefused("another browser began this")
        named = provider.metadata.get("authorization_response_iss_parameter_supported") is True
        if returned.get("iss", None if named else self._issuer.url) != self._issuer.url:  # RFC 9207: mix-up
            raise TokenRefused("the answer of another issuer")
        if "error" in returned or not returned.get("code"):
            raise TokenRefused("the provider refused")
        return returned["code"]

    def _redeem(self, code: str, attempt: LoginAttempt, provider: Provider) -> dict[str, Any]:
        client, url = self._client, provider.endpoint("token_endpoint")
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        if client.secret:
            # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
            pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = client.id
        status, body = self._fetch("POST", url, headers=headers, body=urlencode(form).encode())
        return read_object(status, body, url)

    def _check_fresh(self, token: VerifiedToken, attempt: LoginAttempt) -> None:
        """After a step-up the person must have signed in since it began.

        Nothing else shows it: what we asked for went through the person's own browser.
        """
        if not token.auth_ms:
            raise ExternalError(
                f"{self._issuer.url}: its ID tokens do not say when a person signed in (auth_time)",
                why="an act like this one needs a sign-in of the last ten minutes, which nothing else shows",
                next_step="have the issuer put auth_time into ID tokens; docs/access.md says where",
            )
        if token.auth_ms < attempt.begun_ms - 60_000:
            raise not_authenticated()
