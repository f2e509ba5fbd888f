"""The one way in for programs: whatever credential a request carries, to a session or to the one refusal."""

from dataclasses import dataclass, field

from stanch.access.apikey import ApiKeys
from stanch.access.directory import Directory, not_authenticated
from stanch.access.mtls import Certificates
from stanch.access.session import LocalLogin, Session
from stanch.access.token import Tokens


@dataclass(frozen=True, slots=True)
class Bearer:
    """The value of an ``Authorization: Bearer`` header, and the IP address that the request came from."""

    text: str = field(repr=False)
    address: str


@dataclass(frozen=True, slots=True)
class ClientLeaf:
    """The DER certificate of a client, as the TLS layer verified it."""

    der: bytes = field(repr=False)


Credential = LocalLogin | Bearer | ClientLeaf


@dataclass(frozen=True, slots=True)
class Authenticator:
    """What the credentials of one workspace are checked against; what is None is not accepted.

    Attributes:
        directory: Who is registered.
        api_keys: Keys ``stk_…`` of services.
        tokens: Tokens of trusted issuers.
        certificates: Client certificates.
    """

    directory: Directory
    api_keys: ApiKeys | None = None
    tokens: Tokens | None = None
    certificates: Certificates | None = None

    def recognise(self, credential: Credential) -> Session | None:
        """Return the session of an API key that was authenticated just now; see :meth:`ApiKeys.recognise`."""
        if isinstance(credential, Bearer) and credential.text.startswith("stk_") and self.api_keys is not None:
            return self.api_keys.recognise(credential.text, address=credential.address)
        return None

    def authenticate(self, credential: Credential) -> Session:
        """Return the session that a credential opens.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        match credential:
            case LocalLogin():
                return self.directory.session(credential)
            case Bearer(text, address) if text.startswith("stk_") and self.api_keys is not None:
                return self.api_keys.authenticate(text, address=address)
            case Bearer(text, _) if not text.startswith("stk_") and self.tokens is not None:
                token = self.tokens.bearer(text)
                return self.directory.vouched(token.name, token.proof)
            case ClientLeaf(der) if self.certificates is not None:
                return self.certificates.session(der, self.directory)
        raise not_authenticated()
