"""What ``audit run`` looks at: a model's folder, the model in a sealed bundle, or a model that is served."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stanch.audit import Scorer
from stanch.audit.endpoint import Endpoint
from stanch.audit.params import Decoding
from stanch.cli.auditing import STATEMENT_NAME, Tuned, base_of, tuned_at
from stanch.cli.models import load_endpoint, load_scorer, load_sealed, sealed_digest_of
from stanch.cli.recipients import identity_of, trust_of
from stanch.cli.secrets import read_api_key
from stanch.config import GatewayModelSection
from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.release import open_copy
from stanch.seal import MANIFEST_NAME, SIGNATURE_NAME, FileReleases, OpenBundle
from stanch.sign import TrustedKeys
from stanch.terms import ArtifactRef, Digest
from stanch.tune import PrivacyStatement
from stanch.workspace import Workspace
from stanch.workspace.verbs_model import AuditSubject


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says about the model.

    Attributes:
        model: A folder, a bundle, or the folder of a served model's tokenizer.
        base: The base model's folder.
        identity: A key that opens the bundle.
        trust: The bundle's publisher; None for the workspace's own.
        endpoint: Where the model is served.
        served: The model's name there.
        gateway: The name under which the gateway serves the model.
        api_key_file: A private file with the key that the server asks for.
    """

    model: Path
    base: Path | None = None
    identity: Path | None = None
    trust: Path | None = None
    endpoint: str | None = None
    served: str | None = None
    gateway: str | None = None
    api_key_file: Path | None = None

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.identity, self.endpoint, self.gateway)) > 1:
            raise InvalidInput("--identity, --endpoint and --gateway: expected one of them")
        if (self.endpoint is None) != (self.served is None):
            raise InvalidInput("--endpoint and --model go together", why="a server may serve several models")
        if self.api_key_file is not None and self.endpoint is None and self.gateway is None:
            raise InvalidInput("--api-key-file: expected --endpoint or --gateway as well")
        if self.trust is not None and self.identity is None:
            raise InvalidInput("--trust: expected --identity as well", why="only a sealed bundle has a publisher")


@dataclass(frozen=True, slots=True)
class Target:
    """A model to audit: what stands for it in the log, how it is loaded, and what it was tuned as.

    ``decoding`` is the one that can be decided, where not every one can.
    """

    subject: AuditSubject
    scorer: Callable[[], Scorer]
    tuned: Tuned
    decoding: Decoding | None = None


@contextmanager
def open_target(workspace: Workspace, choice: Choice) -> Iterator[Target]:
    """Open what is to be audited; a sealed bundle stays open, and nothing of it is written.

    Raises:
        InvalidInput: There is no model, or a bundle comes without the key that opens it.
        VerificationError: The bundle's publisher is not trusted, or it does not open.
    """
    model, base = choice.model, choice.base
    if not model.is_dir():
        raise InvalidInput(f"{model}: expected a model folder", next_step="give the folder that tuning wrote")
    if choice.endpoint is not None and choice.served is not None:
        endpoint = Endpoint(choice.endpoint, choice.served, read_api_key(choice.api_key_file))
        # Its files cannot be hashed; in the log its address stands for it.
        address = Digest.sha256(canonical_json([endpoint.url, endpoint.model]))
        yield _served(choice, endpoint, ArtifactRef("model", endpoint.model, address))
    elif choice.gateway is not None:
        section = gateway_model(workspace, choice.gateway)
        url, name = f"{section.upstream.rstrip('/')}/v1", section.upstream_name or section.name
        # In the log it is what the gateway says that its server has loaded.
        ref = ArtifactRef("model", section.name, Digest.parse(section.digest))
        yield _served(choice, Endpoint(url, name, read_api_key(choice.api_key_file)), ref)
    elif choice.identity is not None:
        own = TrustedKeys(workspace.keys.publics("publisher"))
        trusted = own if choice.trust is None else trust_of(choice.trust)
        memory = FileReleases(choice.identity.with_suffix(".releases"))
        with open_copy(model, trusted, [identity_of(choice.identity)], memory=memory) as bundle:
            yield _sealed(choice, bundle)
    elif (model / MANIFEST_NAME).is_file() and (model / SIGNATURE_NAME).is_file():
        raise InvalidInput(f"{model}: this is a sealed bundle", next_step="give a key that opens it with --identity")
    else:
        subject = AuditSubject.at(model)
        yield Target(subject, lambda: load_scorer(model, base), tuned_at(model))


def _sealed(choice: Choice, bundle: OpenBundle) -> Target:
    found = sealed_digest_of(bundle)
    names = {name for name, _, _ in found.files}
    stated = None
    if STATEMENT_NAME in names:
        stated = base_of(PrivacyStatement.from_json(bytes(bundle.read(STATEMENT_NAME))))
    subject = AuditSubject(ArtifactRef("model", choice.model.resolve().name, found.root), found)
    # Its privacy claim is left out: it is computed again from the files of a run's folder alone.
    return Target(subject, lambda: load_sealed(bundle, choice.base), Tuned(found.root, base=stated))


def gateway_model(workspace: Workspace, name: str) -> GatewayModelSection:
    """Return what the settings say of a model that the gateway serves.

    Raises:
        InvalidInput: None has this name.
    """
    for section in workspace.config.gateway.models:
        if section.name == name:
            return section
    raise InvalidInput(
        f"gateway.models: none has the name {name[:80]!r}", next_step="give a name of [[gateway.models]] in stanch.toml"
    )


def _served(choice: Choice, endpoint: Endpoint, ref: ArtifactRef) -> Target:
    scorer = load_endpoint(choice.model, endpoint)
    return Target(AuditSubject(ref, None), lambda: scorer, Tuned(), scorer.sampling)
