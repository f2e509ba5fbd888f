"""The credentials that a workspace accepts from outside: its settings, turned into what checks them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from stanch.access.authenticator import Authenticator
from stanch.access.issuer import Client, Fetch, Issuer, Providers
from stanch.access.mtls import Certificates
from stanch.access.oidc import CodeFlow
from stanch.access.token import Tokens
from stanch.config import IssuerSection
from stanch.crypto.certificate import CertificateAuthority
from stanch.errors import InvalidInput
from stanch.store import HttpRequest, exchange
from stanch.workspace.opening import Workspace
from stanch.workspace.secret import read_secret

_MAX_PEM = 1 << 20


def fetch_web(
    method: Literal["GET", "POST"], url: str, *, headers: Mapping[str, str], body: bytes
) -> tuple[int, bytes]:
    """Ask an issuer; see :class:`stanch.access.issuer.Fetch`."""
    answer = exchange(HttpRequest(method, url, headers, body))
    return answer.status, answer.body


def authenticator_of(workspace: Workspace, fetch: Fetch = fetch_web) -> Authenticator:
    """Return the way in for programs: API keys, and the tokens and certificates that the settings name.

    Args:
        workspace: The workspace.
        fetch: The HTTP exchange for the issuers' keys.

    Raises:
        InvalidInput: An issuer is not set up safely, or an authority's file is not its certificate.
    """
    people, settings = workspace.people, workspace.config.access
    clock = people.ground.clock
    issuers = [_issuer(section, workspace.ledger.origin) for section in settings.issuers]
    authorities = [_authority(workspace, name) for name in settings.authorities]
    return Authenticator(
        people.directory,
        api_keys=people.api_keys,
        tokens=Tokens(issuers, Providers(fetch, clock=clock), clock=clock) if issuers else None,
        certificates=Certificates(authorities, clock=clock) if authorities else None,
    )


def renew_authorities(workspace: Workspace, authenticator: Authenticator) -> None:
    """Read the authorities of client certificates again; from now on those count.

    Raises:
        InvalidInput: An authority's file is not its certificate; those from before go on counting.
    """
    if authenticator.certificates is not None:
        authenticator.certificates.trust(_authority(workspace, name) for name in workspace.config.access.authorities)


def code_flows(workspace: Workspace, redirect_uri: str, fetch: Fetch = fetch_web) -> dict[str, CodeFlow]:
    """Return the way in for people with a browser, by the URL of each issuer at which the workspace is a client.

    Raises:
        InvalidInput: An issuer is not set up safely, or our secret at it cannot be read.
    """
    clock, flows = workspace.people.ground.clock, {}
    for section in workspace.config.access.issuers:
        if section.client_id:
            client = Client(id=section.client_id, secret=_client_secret(workspace, section), redirect_uri=redirect_uri)
            issuer = replace(_issuer(section, workspace.ledger.origin), client=client)
            flows[issuer.url] = CodeFlow(issuer, Providers(fetch, clock=clock), fetch, clock=clock)
    return flows


def _client_secret(workspace: Workspace, section: IssuerSection) -> str:
    if section.client_secret is None:
        return ""
    return read_secret(section.client_secret, workspace.folder, what="access.issuers: client_secret").reveal()


def _issuer(section: IssuerSection, origin: str) -> Issuer:
    return Issuer(
        url=section.issuer,
        kind=section.kind,
        audience=section.audience or origin,
        algorithms=frozenset(section.algorithms),
        claims=section.claims,
        acr=frozenset(section.mfa_acr),
    )


def _authority(workspace: Workspace, name: str) -> CertificateAuthority:
    path = workspace.folder / name
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_PEM)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    return CertificateAuthority.from_pem(pem, what=str(path))
