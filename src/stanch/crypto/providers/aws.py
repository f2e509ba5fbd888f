"""AWS KMS: the service wraps the root key under a symmetric key that never leaves it.

Bound by the encryption context, which KMS authenticates and writes to CloudTrail; it holds digests and no secret.
"""

import re
import threading
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stanch.crypto.floe import decryption_failed
from stanch.crypto.hashes import sha256
from stanch.crypto.signing import key_id
from stanch.crypto.stanza import (
    ROOT_SIZE,
    DestroyedKey,
    KeyDescription,
    KeyDestroyed,
    KeyUnavailable,
    Stanza,
    WrapContext,
    check_root,
    decode_base64url,
    encode_base64url,
)
from stanch.errors import InvalidInput, MissingExtraError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

AWS_STANZA = "aws-kms"
_ARN = re.compile(r"arn:aws(?:-[a-z]+)*:kms:([a-z](?:[a-z0-9-]{0,38}[a-z0-9])?):[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_MAX_CIPHERTEXT = 6144
_WAITING_DAYS = 7
_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}
_GONE = "PendingDeletion"


# Clients may be shared by threads, but not the session while it makes one (boto3's guide, "Multithreading").
_MAKING = threading.Lock()


@cache
def _session() -> Any:  # noqa: ANN401 - boto3 has no types
    """Return the one session: it parses the descriptions of KMS once."""
    import boto3  # noqa: PLC0415 - an optional part

    return boto3.session.Session()


class AwsKey:
    """A symmetric KMS key, named by its ARN; wraps, unwraps, and can be scheduled for deletion.

    Credentials and endpoint come from the environment and the machine's role, never from us. An answer comes within
    about half a minute, or :class:`stanch.crypto.stanza.KeyUnavailable` does. Safe for several threads.

    Raises:
        InvalidInput: Not the ARN of a key (aliases can be turned to another key), or an endpoint without TLS that is
            not on this machine.
        MissingExtraError: boto3 is not installed.
    """

    def __init__(self, arn: str) -> None:
        match = _ARN.fullmatch(arn)
        if match is None:
            raise InvalidInput(
                f"KMS key: expected arn:aws:kms:REGION:ACCOUNT:key/ID, found {arn[:80]!r}",
                next_step="name the key itself, not an alias of it",
            )
        try:
            import boto3  # noqa: F401, PLC0415 - an optional part
            from botocore.config import Config  # noqa: PLC0415 - same
        except ImportError as error:
            raise MissingExtraError("aws") from error
        self._arn = arn
        self.key_id = key_id(AWS_STANZA, arn.encode())
        with _MAKING:
            self._client = _session().client("kms", region_name=match[1], config=Config(**_TIMEOUTS))
        endpoint = urlsplit(self._client.meta.endpoint_url)
        if endpoint.scheme != "https" and endpoint.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise InvalidInput(
                "KMS: expected an https: endpoint, found http: of another machine",
                why="whoever stands between would read the root key",
            )

    def __str__(self) -> str:
        return self._arn

    def __repr__(self) -> str:
        return f"AwsKey({self._arn})"

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root``, bound to ``context``.

        Raises:
            KeyUnavailable: The service did not answer, or refused.
        """
        check_root(root)
        bound = _encryption_context(context, self.key_id)
        answer = self._call("encrypt", KeyId=self._arn, Plaintext=root, EncryptionContext=bound)
        fields = {"key_arn": self._arn, "ct": encode_base64url(answer["CiphertextBlob"])}
        return Stanza(AWS_STANZA, self.key_id, context.not_after, fields)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: Another key, another context, or changed values.
            InvalidInput: The stanza is malformed.
            KeyDestroyed: The key waits for its deletion, or is gone.
            KeyUnavailable: The service did not answer, or refused.
        """
        stanza.expect(AWS_STANZA, frozenset({"key_arn", "ct"}))
        wrapped = decode_base64url(str(stanza.fields["ct"]), what="stanza field ct")
        if not 0 < len(wrapped) <= _MAX_CIPHERTEXT:
            raise InvalidInput(f"stanza field ct: expected 1 to {_MAX_CIPHERTEXT} bytes, found {len(wrapped)}")
        if stanza.fields["key_arn"] != self._arn:
            raise decryption_failed()
        bound = _encryption_context(context, stanza.key_id)
        # Naming the key keeps a ciphertext of another key, to which the caller happens to have access, from opening.
        answer = self._call("decrypt", KeyId=self._arn, CiphertextBlob=wrapped, EncryptionContext=bound)
        root: bytes = answer["Plaintext"]
        if answer["KeyId"] != self._arn or len(root) != ROOT_SIZE:
            raise decryption_failed()
        return root

    def destroy(self) -> DestroyedKey:
        """Schedule the key's deletion after the shortest waiting period, seven days; it is refused for use at once.

        Raises:
            InvalidInput: A multi-Region key: replicas in other regions decrypt the same stanzas.
            KeyUnavailable: The service did not answer, or refused.
        """
        if is_multi_region(self._arn):
            raise InvalidInput(f"{self._arn}: a multi-Region key, which other regions keep too")
        try:
            if self._state() != _GONE:
                self._call("schedule_key_deletion", KeyId=self._arn, PendingWindowInDays=_WAITING_DAYS)
            gone_at = self._call("describe_key", KeyId=self._arn)["KeyMetadata"]["DeletionDate"].astimezone(UTC)
        except KeyDestroyed:
            return DestroyedKey(AWS_STANZA, self.key_id, self._arn, "absent", datetime.now(UTC))
        return DestroyedKey(AWS_STANZA, self.key_id, self._arn, "scheduled", gone_at)

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the ARN."""
        return KeyDescription(AWS_STANZA, self.key_id, self._arn)

    def _state(self) -> str:
        return str(self._call("describe_key", KeyId=self._arn)["KeyMetadata"]["KeyState"])

    def _call(self, verb: str, **parameters: object) -> dict[str, Any]:
        """Call the service; of its errors only the name is passed on."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an optional part

        try:
            answer: dict[str, Any] = getattr(self._client, verb)(**parameters)
        except ClientError as error:
            raise self._refusal(error) from None
        except BotoCoreError as error:
            raise KeyUnavailable(
                f"{self._arn}: KMS could not be asked",
                why=type(error).__name__,
                next_step="check the network, the credentials and the region, then repeat",
            ) from None
        return answer

    def _refusal(self, error: "ClientError") -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))[:60]
        if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
            return decryption_failed()
        if code == "NotFoundException" or (code == "KMSInvalidStateException" and self._state() == _GONE):
            return KeyDestroyed(
                f"{self._arn}: KMS has no such key, or is about to delete it", why=code,
                next_step="an administrator can cancel a deletion until its day",
            )  # fmt: skip
        return KeyUnavailable(f"{self._arn}: KMS refused", why=code, next_step="check the key's state and its policy")


def is_multi_region(arn: str) -> bool:
    """Say whether a key has, or may get, replicas in other regions with the same key material."""
    return ":key/mrk-" in arn


def _encryption_context(context: WrapContext, key: str) -> dict[str, str]:
    info = sha256(context.info(AWS_STANZA, key)).hex()
    return {"stanch:info": info, "stanch:bundle": context.bundle_id.hex()}
