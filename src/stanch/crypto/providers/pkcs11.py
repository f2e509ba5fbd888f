"""Keys on PKCS#11 tokens: AES-256 in GCM mode, computed by the token with a key that never leaves it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from stanch.crypto.files import read_private
from stanch.crypto.floe import decryption_failed
from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.crypto.providers.pkcs11_uri import MODULE_VARIABLE, PIN_VARIABLE, Pkcs11Uri
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
    encode_base64url,
)
from stanch.errors import InvalidInput, MissingExtraError

if TYPE_CHECKING:
    from pkcs11 import Session, Token

_T = TypeVar("_T")

PKCS11_STANZA = "pkcs11-aes-gcm"
_NONCE_SIZE, _TAG_SIZE = 12, 16
_SECONDS = 30.0
_ABSENT = "the token holds no such key"

# Login belongs to the process, not to the session (PKCS#11 v2.40, section 2.6): one session at a time, each with its
# own login, so that no thread logs another one out.
_ONE_AT_A_TIME = threading.Lock()


class Pkcs11Key:
    """A secret key on a token, named by a URI; wraps, unwraps, and can be destroyed.

    Each act opens a session, logs in, and closes it. The PIN is read from its file each time and kept nowhere.

    Args:
        uri: RFC 7512; see :class:`stanch.crypto.providers.pkcs11_uri.Pkcs11Uri`.
        rng: Source of nonces.

    Raises:
        InvalidInput: The URI is malformed.
        MissingExtraError: python-pkcs11 is not installed.
    """

    def __init__(self, uri: str, *, rng: RandomBytes = random_bytes) -> None:
        try:
            import pkcs11  # noqa: F401, PLC0415 - an optional part; a missing one is told now, not in the middle
        except ImportError as error:
            raise MissingExtraError("pkcs11") from error
        self._uri = Pkcs11Uri.parse(uri)
        self._rng = rng
        self.key_id = key_id("pkcs11", str(self._uri).encode())

    def __str__(self) -> str:
        return str(self._uri)

    def __repr__(self) -> str:
        return f"Pkcs11Key({self._uri})"

    def wrap(self, root: bytes, context: WrapContext) -> Stanza:
        """Wrap the 32-byte ``root``, bound to ``context``.

        Raises:
            KeyUnavailable: Module, token, PIN or key is not there.
            InvalidInput: The key is not an AES-256 key that stays on its token.
        """
        check_root(root)
        nonce, info = self._rng(_NONCE_SIZE), context.info(PKCS11_STANZA, self.key_id)

        def encrypt(session: "Session") -> bytes:
            from pkcs11 import GCMParams, Mechanism  # noqa: PLC0415 - an optional part

            key = self._key(session)
            parameters = GCMParams(nonce, info, 8 * _TAG_SIZE)
            done: bytes = key.encrypt(root, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
            return done

        wrapped = self._on_token(encrypt)
        if len(wrapped) != ROOT_SIZE + _TAG_SIZE:
            raise KeyUnavailable(f"{self._uri}: the token returned a ciphertext of a wrong length")
        fields = {"uri": str(self._uri), "nonce": encode_base64url(nonce), "ct": encode_base64url(wrapped)}
        return Stanza(PKCS11_STANZA, self.key_id, context.not_after, fields)

    def unwrap(self, stanza: Stanza, context: WrapContext) -> bytes:
        """Return the 32-byte root.

        Raises:
            DecryptionFailed: Another key, another context, or changed values.
            InvalidInput: The stanza is malformed.
            KeyDestroyed: The token is there, but holds no such key.
            KeyUnavailable: Module, token or PIN is not there.
        """
        stanza.expect(PKCS11_STANZA, frozenset({"uri", "nonce", "ct"}))
        nonce = stanza.binary("nonce", _NONCE_SIZE)
        wrapped = stanza.binary("ct", ROOT_SIZE + _TAG_SIZE)
        if stanza.fields["uri"] != str(self._uri):
            raise decryption_failed()
        info = context.info(PKCS11_STANZA, stanza.key_id)
        root = self._on_token(lambda session: _decrypt(self._key(session), nonce, info, wrapped))
        if len(root) != ROOT_SIZE:
            raise decryption_failed()
        return root

    def destroy(self) -> DestroyedKey:
        """Remove the key from its token; backups that the token's owner made are not reached.

        Raises:
            KeyUnavailable: The token is not there, refused, or did not answer in time (and may still do it).
        """

        def remove(session: "Session") -> bool:
            try:
                key = self._key(session)
            except KeyDestroyed:
                return False
            key.destroy()
            return True

        state: Literal["destroyed", "absent"] = "destroyed" if self._on_token(remove, rw=True) else "absent"
        return DestroyedKey(PKCS11_STANZA, self.key_id, str(self._uri), state, datetime.now(UTC))

    def describe(self) -> KeyDescription:
        """Return the stanza type, the key id and the URI without module and PIN."""
        return KeyDescription(PKCS11_STANZA, self.key_id, str(self._uri))

    def _on_token(self, act: "Callable[[Session], _T]", *, rw: bool = False) -> _T:
        """Run ``act`` in a session, on a thread of its own: a token that never answers must not stop the caller."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                with _ONE_AT_A_TIME:
                    done.set_result(self._in_session(act, rw=rw))
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            return done.result(_SECONDS)
        except TimeoutError:
            raise KeyUnavailable(f"{self._uri}: the token did not answer within {_SECONDS:g} s") from None

    def _in_session(self, act: "Callable[[Session], _T]", *, rw: bool) -> _T:
        from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn  # noqa: PLC0415 - an optional part

        pin = self._pin()
        try:
            token = self._token()
            try:
                session = token.open(rw=rw, user_pin=pin)
            except UserAlreadyLoggedIn:  # the program itself works with this token
                session = token.open(rw=rw)
            with session:
                return act(session)
        except PKCS11Error as error:
            raise KeyUnavailable(
                f"{self._uri}: the token refused",
                why=type(error).__name__,
                next_step="check the module, the token and the PIN; a few wrong PINs lock a token",
            ) from error

    def _token(self) -> "Token":
        import pkcs11  # noqa: PLC0415 - an optional part

        if self._uri.module is None:
            raise KeyUnavailable(
                f"{self._uri}: the token's module is not named", next_step=f"set {MODULE_VARIABLE} to its full path"
            )
        tokens = [slot.get_token() for slot in pkcs11.lib(str(self._uri.module)).get_slots(token_present=True)]
        found = [token for token in tokens if self._is_meant(token)]
        if len(found) != 1:
            raise KeyUnavailable(f"{self._uri}: expected one such token, found {len(found)}")
        return found[0]

    def _is_meant(self, token: "Token") -> bool:
        known = {
            "token": token.label.encode(), "serial": token.serial,
            "manufacturer": token.manufacturer_id.encode(), "model": token.model.encode(),
        }  # fmt: skip
        return all(known[name] == value for name, value in self._uri.token.items())

    def _pin(self) -> str:
        if self._uri.pin_file is None:
            raise KeyUnavailable(
                f"{self._uri}: the PIN's file is not named", next_step=f"set {PIN_VARIABLE} to its full path"
            )
        try:
            return read_private(self._uri.pin_file).decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise InvalidInput(f"{self._uri.pin_file}: a PIN is UTF-8 text") from None

    def _key(self, session: "Session") -> Any:  # noqa: ANN401 - the library types no key that both encrypts and decrypts
        from pkcs11 import Attribute, KeyType, ObjectClass  # noqa: PLC0415 - an optional part

        wanted = {"object": Attribute.LABEL, "id": Attribute.ID}
        named = {wanted[name]: value.decode() if name == "object" else value for name, value in self._uri.key.items()}
        found = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, **named}))
        if not found:
            raise KeyDestroyed(
                f"{self._uri}: {_ABSENT}", why="it was destroyed, or the URI names another one",
                next_step="nothing wrapped to a destroyed key can be opened again",
            )  # fmt: skip
        if len(found) > 1:
            raise InvalidInput(f"{self._uri}: names {len(found)} keys", next_step="add the key's id to the URI")
        key = found[0]
        kept = key[Attribute.SENSITIVE] and not key[Attribute.EXTRACTABLE]
        if key[Attribute.KEY_TYPE] != KeyType.AES or key[Attribute.VALUE_LEN] != ROOT_SIZE or not kept:
            raise InvalidInput(
                f"{self._uri}: expected an AES-256 key that cannot be extracted",
                next_step="make one on the token with CKA_SENSITIVE true and CKA_EXTRACTABLE false",
            )
        return key


def _decrypt(
    key: Any,  # noqa: ANN401 - as above
    nonce: bytes,
    info: bytes,
    wrapped: bytes,
) -> bytes:
    """Decrypt on the token. Tokens name a wrong tag in many ways; only those that mean a lost token are let through."""
    from pkcs11 import GCMParams, Mechanism, exceptions  # noqa: PLC0415 - an optional part

    lost = (
        exceptions.DeviceError, exceptions.DeviceMemory, exceptions.DeviceRemoved, exceptions.HostMemory,
        exceptions.SessionClosed, exceptions.SessionHandleInvalid, exceptions.TokenNotPresent,
        exceptions.UserNotLoggedIn, exceptions.KeyHandleInvalid, exceptions.MechanismInvalid,
    )  # fmt: skip
    try:
        parameters = GCMParams(nonce, info, 8 * _TAG_SIZE)
        root: bytes = key.decrypt(wrapped, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
    except lost:
        raise
    except exceptions.PKCS11Error:
        raise decryption_failed() from None
    return root
