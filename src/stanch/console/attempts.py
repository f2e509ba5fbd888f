"""Sign-ins that are under way: the browser keeps a random id, the table the attempt under the id's MAC.

The address that was asked for stays here with the attempt: it never travels to the issuer and back.
"""

import base64
import time
from collections.abc import Callable

from sqlalchemy import delete, insert, select

from stanch.access.directory import not_authenticated
from stanch.access.oidc import ATTEMPT_MS, LoginAttempt
from stanch.crypto import RandomBytes, frame, hmac_sha256, random_bytes
from stanch.store import Tables
from stanch.store.schema import console as schema

_LABEL = b"stanch/console/v1/attempt"
_MOST = 10_000


class Attempts:
    """The attempts of all browsers.

    Args:
        tables: Where they are kept.
        key: Secret of 32 bytes for the MACs of the ids.
        clock: Seconds since 1970.
        rng: Source of randomness.
    """

    def __init__(
        self,
        tables: Tables,
        key: bytes,
        *,
        clock: Callable[[], float] = time.time,
        rng: RandomBytes = random_bytes,
    ) -> None:
        self._tables = tables
        self._key = key
        self._clock = clock
        self._rng = rng

    def keep(self, attempt: LoginAttempt, target: str) -> str:
        """Keep an attempt and the address to go on to, and return the id for the browser.

        The oldest ones go when there are too many.
        """
        secret, table = base64.urlsafe_b64encode(self._rng(32)).decode(), schema.console_attempt
        with self._tables.write() as connection:
            connection.execute(delete(table).where(table.c.begun_ms <= attempt.begun_ms - ATTEMPT_MS))
            newest = select(table.c.begun_ms).order_by(table.c.begun_ms.desc()).offset(_MOST).limit(1)
            limit = connection.execute(newest).scalar()
            if limit is not None:
                connection.execute(delete(table).where(table.c.begun_ms <= limit))
            connection.execute(insert(table).values(
                mac=self._mac(secret), issuer=attempt.issuer, state=attempt.state, nonce=attempt.nonce,
                verifier=attempt.verifier, begun_ms=attempt.begun_ms, step_up=int(attempt.step_up),
                target=target,
            ))  # fmt: skip
        return secret

    def take(self, secret: str) -> tuple[LoginAttempt, str]:
        """Return the attempt of a browser, which is thereby over, and the address that was kept with it.

        Raises:
            NotAuthenticated: There is none.
        """
        table = schema.console_attempt
        with self._tables.write() as connection:
            row = connection.execute(select(table).where(table.c.mac == self._mac(secret))).one_or_none()
            connection.execute(delete(table).where(table.c.mac == self._mac(secret)))
        if row is None:
            raise not_authenticated()
        attempt = LoginAttempt(row.issuer, row.state, row.nonce, row.verifier, row.begun_ms, bool(row.step_up))
        return attempt, row.target or "/"

    def _mac(self, secret: str) -> str:
        return hmac_sha256(self._key, frame(_LABEL, secret.encode())).hex()
