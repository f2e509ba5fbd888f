"""What ``audit run`` looks at: a model's folder, the model in a sealed bundle, or a model that is served."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stanch.audit import AdapterOff, Scorer
from stanch.audit.endpoint import Endpoint
from stanch.audit.params import Decoding
from stanch.cli.auditing import STATEMENT_NAME, Tuned, claim_of, read_claim
from stanch.cli.models import load_base, load_endpoint, load_scorer, load_sealed, sealed_digest_of
from stanch.cli.recipients import identity_of, trust_of
from stanch.crypto import canonical_json, read_private
from stanch.errors import InvalidInput
from stanch.release import open_copy
from stanch.seal import MANIFEST_NAME, SIGNATURE_NAME, FileReleases, OpenBundle
from stanch.sign import TrustedKeys
from stanch.terms import ArtifactRef, Digest
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
        api_key_file: A private file with the key that the server asks for.
    """

    model: Path
    base: Path | None = None
    identity: Path | None = None
    trust: Path | None = None
    endpoint: str | None = None
    served: str | None = None
    api_key_file: Path | None = None

    def __post_init__(self) -> None:
        if self.identity is not None and self.endpoint is not None:
            raise InvalidInput("--identity and --endpoint: expected one of them")
        if (self.endpoint is None) != (self.served is None):
            raise InvalidInput("--endpoint and --model go together", why="a server may serve several models")
        if self.api_key_file is not None and self.endpoint is None:
            raise InvalidInput("--api-key-file: expected --endpoint as well")
        if self.trust is not None and self.identity is None:
            raise InvalidInput("--trust: expected --identity as well", why="only a sealed bundle has a publisher")


@dataclass(frozen=True, slots=True)
class Target:
    """A model to audit: what stands for it in the log, how it and its base are loaded, and what it was tuned as.

    ``decoding`` is the one that can be decided, where not every one can.
    """

    subject: AuditSubject
    scorer: Callable[[], Scorer]
    base: Callable[[], Scorer | AdapterOff | None]
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
        yield _served(choice, Endpoint(choice.endpoint, choice.served, _api_key(choice.api_key_file)))
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
        tuned = Tuned(subject.ref.digest, read_claim(model))
        yield Target(subject, lambda: load_scorer(model, base), lambda: load_base(model, base), tuned)


def _sealed(choice: Choice, bundle: OpenBundle) -> Target:
    found = sealed_digest_of(bundle)
    names = {name for name, _, _ in found.files}
    base = choice.base

    def compared() -> Scorer | AdapterOff | None:
        if "adapter_config.json" in names:
            return AdapterOff()
        return None if base is None else load_scorer(base, None)

    claim = claim_of(bytes(bundle.read(STATEMENT_NAME)), what=STATEMENT_NAME) if STATEMENT_NAME in names else None
    subject = AuditSubject(ArtifactRef("model", choice.model.resolve().name, found.root), found)
    return Target(subject, lambda: load_sealed(bundle, base), compared, Tuned(found.root, claim))


def _served(choice: Choice, endpoint: Endpoint) -> Target:
    scorer = load_endpoint(choice.model, endpoint)
    # Its files cannot be hashed; in the log its address stands for it.
    address = Digest.sha256(canonical_json([endpoint.url, endpoint.model]))
    subject = AuditSubject(ArtifactRef("model", endpoint.model, address), None)
    base = choice.base
    return Target(
        subject, lambda: scorer, lambda: None if base is None else load_scorer(base, None), Tuned(None, None),
        scorer.sampling,
    )  # fmt: skip


def _api_key(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        key = read_private(path).decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable():
        raise InvalidInput(f"{path}: expected a key on one line")
    return key
