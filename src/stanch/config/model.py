"""The settings as frozen structures; their defaults are the safe values. A unit stands in the name of each number."""

from typing import Annotated, Any, Literal

import msgspec

from stanch.config.profiles import Algorithms, algorithms

Days = Annotated[int, msgspec.Meta(ge=1, le=180)]
KeyDays = Annotated[int, msgspec.Meta(ge=1, le=366)]
Minutes = Annotated[int, msgspec.Meta(ge=1, le=1440)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
Approvals = Annotated[int, msgspec.Meta(ge=2, le=16)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
SecretReference = Annotated[str, msgspec.Meta(pattern=r"^(file:[^\0]+|env:[A-Za-z_][A-Za-z0-9_]*)\Z")]
"""Where a secret lies (``file:PATH`` or ``env:NAME``); a secret itself is never a setting."""
TokenAlgorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]


class WorkspaceSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[workspace]``: where rows and blobs lie; relative paths start at its folder.

    Attributes:
        tables: The database.
        blobs: Where files of the log and large payloads lie.
    """

    tables: str = "sqlite:./.stanch/stanch.db"
    blobs: str = "file:./.stanch/blobs"


class WitnessSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[ledger.witnesses]]``: one witness.

    Attributes:
        vkey: Its verifier key (C2SP signed-note).
        url: Where it answers.
    """

    vkey: Text
    url: Text


class LedgerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ledger]``: the log's name, how often it publishes, who watches it, and where its high-water mark lies.

    Attributes:
        origin: The log's name.
        checkpoint_seconds: How often new entries are published.
        policy: A C2SP tlog-policy file: witnesses, groups, quorum. Empty: every configured witness must cosign.
        witnesses: Who is asked to cosign.
        anchors: Where whole checkpoints are kept: ``file:`` and ``s3lock:`` URIs.
        highwater: The file that remembers the largest checkpoint signed here.
        witness_required_for: Kinds of acts that wait for a cosigned checkpoint once a witness is configured. A name
            covers itself and every kind below it: ``policy`` covers ``policy.write``.
        max_checkpoint_age_seconds: How old readers may find the newest cosignature: each witness is asked for another
            after half of it. Nothing here refuses an older one.
    """

    origin: str = ""
    checkpoint_seconds: Seconds = 1
    policy: str = ""
    witnesses: tuple[WitnessSection, ...] = ()
    anchors: tuple[Text, ...] = ()
    highwater: str = ""
    witness_required_for: tuple[Text, ...] = (
        "release.create",
        "release.deliver",
        "access.break-glass",
        "log.erase",
        "policy",
    )
    max_checkpoint_age_seconds: Annotated[int, msgspec.Meta(ge=1, le=31 * 86_400)] = 300


class IssuerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[access.issuers]]``: one OpenID provider whose tokens are accepted.

    Attributes:
        issuer: The exact ``iss``.
        kind: ``rfc9068`` (access tokens, header ``at+jwt``) or ``workload`` (Kubernetes, CI).
        algorithms: The signature algorithms that are accepted.
        audience: The exact audience; empty: the workspace's origin.
        claims: Claims that a ``workload`` token must carry, by name.
        mfa_acr: Values of ``acr`` that count as a second factor, beside ``mfa`` in ``amr``.
        client_id: Our name at this provider, for people who log in.
        client_secret: Where our secret at this provider lies.
    """

    issuer: Text
    kind: Literal["rfc9068", "workload"] = "rfc9068"
    algorithms: tuple[TokenAlgorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    audience: str = ""
    claims: dict[str, str] = msgspec.field(default_factory=dict)
    mfa_acr: tuple[Text, ...] = ()
    client_id: str = ""
    client_secret: SecretReference | None = None


class AccessSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[access]``: ``solo`` (one person) or ``team`` (all rules on), who vouches for people, and how long it lasts.

    Attributes:
        profile: ``solo`` or ``team``.
        issuers: OpenID providers.
        authorities: PEM files of the authorities whose client certificates are accepted, relative to the workspace.
        key_days: How long an API key is valid.
        grant_days: How long a grant lasts.
        session_minutes: How long a login lasts.
        release_approvals: How many approvers must release each copy in profile ``team``.
    """

    profile: Literal["solo", "team"] = "solo"
    issuers: tuple[IssuerSection, ...] = ()
    authorities: tuple[Text, ...] = ()
    key_days: KeyDays = 90
    grant_days: Days = 30
    session_minutes: Minutes = 480
    release_approvals: Approvals = 2


class AlgorithmsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[algorithms]``: which dated profile is used; single algorithms are no settings.

    Attributes:
        profile: The year of the profile.
    """

    profile: Literal["2026"] = "2026"


BudgetLimit = Annotated[int, msgspec.Meta(ge=1, le=10**12)] | None


Sha256 = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class PackSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[gateway.models.packs]]``: one pack of own rules.

    Attributes:
        file: The pack, relative to the workspace.
        digest: What `stanch rules list` says of it; a pack that says something else is refused.
    """

    file: Text
    digest: Sha256


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is looked for in the answers of a model, and what happens then.

    Attributes:
        index: The index of its training text, relative to the workspace.
        canaries: The plan of its canaries, relative to the workspace.
        dictionaries: Files of own terms, relative to the workspace; they end an answer (`stanch data dictionary build`
            in this workspace, without `--key`).
        packs: Packs of own rules (`stanch rules lint`), besides the shipped ones.
        actions: What happens to findings, by kind (`stanch rules list`; the label of a dictionary), or by family:
            `secret`, `personal`. `block` ends the answer, `redact` puts a label in the value's place, `allow` lets the
            kind pass: it is not looked for. A kind's own action goes before its family's. Without one, what is of
            severity `high` and above blocks, and the rest is redacted. Canaries always block, and so does training text
            unless `training-text` is redacted, which needs `lead_hold`.
        allow: Values that everybody may know, such as a support address; they pass, whatever their kind, where they
            are written without escapes. A canary never does.
        lead_hold: Hold back the last characters of every answer while it streams, 55 with a standard index and 46 with
            a fine one, so that nothing of a copied run leaves that is long enough to be seen.
    """

    index: str = ""
    canaries: str = ""
    dictionaries: tuple[Text, ...] = ()
    packs: tuple[PackSection, ...] = ()
    actions: dict[str, Literal["allow", "redact", "block"]] = msgspec.field(default_factory=dict)
    allow: tuple[Text, ...] = ()
    lead_hold: bool = False


class GatewayModelSection(GuardSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[[gateway.models]]``: one model that the gateway answers for.

    Attributes:
        name: What clients ask for.
        digest: The digest of the model that the server has loaded.
        upstream: Where its server answers: ``https://…``, or ``http://…`` of this very machine.
        upstream_name: What the server calls it; empty: the same as clients do.
        upstream_key: Where the bearer token lies that the server asks for.
        upstream_authority: PEM file of the authorities that the server's certificate has to come from, relative to the
            workspace. Empty: those of the system.
        upstream_certificate: PEM file of the certificate and chain that the server is shown, relative to the workspace.
            Empty: none.
        upstream_private_key: PEM file of that certificate's key. Empty: it stands in the same file.
        dialects: What the server speaks.
        dimensions: How many numbers an embedding of its has; the dialect ``embeddings`` needs it.
        vocabulary: How many tokens it knows; log-probabilities are charged by it.
        require_certificate: File of the leak certificate without which nothing is answered, relative to the workspace:
            one of this digest, not expired, signed by the workspace. Empty: none is required.
        text_root: The secret of the text watermark under which its server writes, relative to the workspace
            (`stanch trace text-root`). The gateway hands it to nobody; the console shows the ids of the tenants' keys.
            Empty: its server writes without one.
        tenants: Under whose keys its server writes. If it is one, the gateway asks for it with each request, and
            records whether the server acknowledged it.
    """

    name: Text
    digest: Sha256
    upstream: Text
    upstream_name: str = ""
    upstream_key: SecretReference | None = None
    upstream_authority: str = ""
    upstream_certificate: str = ""
    upstream_private_key: str = ""
    dialects: tuple[Literal["chat", "completions", "embeddings", "responses", "messages"], ...] = (
        "chat",
        "completions",
    )
    dimensions: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0
    vocabulary: Annotated[int, msgspec.Meta(ge=2, le=2**24)] = 131_072
    require_certificate: str = ""
    text_root: str = ""
    tenants: tuple[Text, ...] = ()


class GatewaySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gateway]``: where it listens, with which certificate, for which models, and how much each principal may use.

    Attributes:
        listen: ``HOST:PORT``; another host than this machine needs a certificate.
        metrics_listen: ``HOST:PORT`` of this machine where `/metrics` is read. Empty: nowhere.
        otlp_endpoint: URL of an OpenTelemetry collector (OTLP over HTTP), without `/v1/…`. Empty: nothing is sent.
        certificate: PEM file of its TLS certificate and chain, relative to the workspace. Empty: no TLS.
        private_key: PEM file of the certificate's key, relative to the workspace.
        trusted_proxies: Addresses and networks of the proxies before it, such as `10.0.0.0/24`. Whoever asks is then
            the last address in their `X-Forwarded-For` that is none of these. Empty: whoever connects.
        requests_per_minute: Requests of one principal to one model.
        tokens_per_day: Tokens of one principal and one model, prompt and answer together.
        protected_windows: Windows of training text that one principal may draw, ever, from all models of one index
            together. 0: one in ten thousand, at least 8 and at most 256.
        cut_windows: Windows of it for which a principal's answers may be cut or changed, ever: each tells that it is
            protected. 0: eight for each that may be drawn.
        vectors_per_day: Embeddings that one principal may get from one model; they cannot be guarded.
        logprob_bits_per_day: Information in log-probabilities that one principal may get from one model, in bits.
        logprob_bits_in_total: The same, until somebody resets it. 0 here or there: no log-probabilities.
        requests_per_day: Requests of one principal to one model. Without it there is no such limit; the same below.
        requests_in_total: Requests, until somebody resets them.
        tokens_per_minute: Tokens, prompt and answer together.
        tokens_in_total: Tokens, until somebody resets them.
        vectors_per_minute: Embeddings.
        vectors_in_total: Embeddings, until somebody resets them.
        logprob_bits_per_minute: Information in log-probabilities, in bits.
        models: The models.
    """

    listen: Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z")] = "127.0.0.1:8400"
    metrics_listen: Annotated[str, msgspec.Meta(pattern=r"^((\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})?\Z")] = ""
    otlp_endpoint: str = ""
    certificate: str = ""
    private_key: str = ""
    trusted_proxies: tuple[Text, ...] = ()
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 60
    tokens_per_day: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 1_000_000
    protected_windows: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    cut_windows: Annotated[int, msgspec.Meta(ge=0, le=10**7)] = 0
    vectors_per_day: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 10_000
    logprob_bits_per_day: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    logprob_bits_in_total: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    requests_per_day: BudgetLimit = None
    requests_in_total: BudgetLimit = None
    tokens_per_minute: BudgetLimit = None
    tokens_in_total: BudgetLimit = None
    vectors_per_minute: BudgetLimit = None
    vectors_in_total: BudgetLimit = None
    logprob_bits_per_minute: BudgetLimit = None
    models: tuple[GatewayModelSection, ...] = ()


class SinkSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[alerts.sinks]]``: one place that alerts are delivered to.

    Attributes:
        name: Its name.
        kind: ``webhook``, ``alertmanager``, ``apprise`` (e-mail, chat), ``syslog``, ``ocsf-file`` or ``ocsf-http``.
        url: Where to; a file for ``ocsf-file``, relative to the workspace. Empty for ``apprise``.
        secret: Where its token lies; for ``apprise`` where its whole URL lies.
        scheme: What stands before the token in ``Authorization`` of a ``webhook`` or ``ocsf-http``; Splunk's collector
            wants ``Splunk``.
        authority: PEM file of the authority of a ``syslog`` collector, relative to the workspace.
        tier: Tier 1 is told at once, the next ones when nobody takes an urgent alert on.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
    kind: Literal["webhook", "alertmanager", "apprise", "syslog", "ocsf-file", "ocsf-http"]
    url: str = ""
    secret: SecretReference | None = None
    scheme: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}\Z")] = "Bearer"
    authority: str = ""
    tier: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1


class AlertsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[alerts]``: where alerts are delivered to.

    Attributes:
        sinks: The places.
    """

    sinks: tuple[SinkSection, ...] = ()


Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
Hours = Annotated[int, msgspec.Meta(ge=1, le=8784)]


class RepeatedAuditSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[watch.audits]]``: one served model that the watch audits again and again.

    Attributes:
        name: Its name in alerts.
        gateway: Its name in ``[[gateway.models]]``: the server that the gateway asks is audited, as the model that the
            gateway says it is, and a verdict is compared with that of the certificate that the gateway requires.
        endpoint: Where another model is served (OpenAI API).
        served: That model's name there.
        model: Folder of its tokenizer, relative to the workspace; so are the other files.
        plan: The plan of its canaries.
        data: The data set as it was tuned on.
        holdout: Records of the same source that were kept out.
        api_key_file: A private file with the key that the server asks for.
        every_hours: How often.
    """

    name: Name
    model: Text
    gateway: str = ""
    endpoint: str = ""
    served: str = ""
    plan: str = ""
    data: str = ""
    holdout: str = ""
    api_key_file: str = ""
    every_hours: Hours = 168

    def __post_init__(self) -> None:
        if bool(self.gateway) == bool(self.endpoint) or bool(self.endpoint) != bool(self.served):
            raise ValueError("expected gateway, or endpoint and served")


class WatchSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[watch]``: what the watch does again and again.

    Attributes:
        verify_hours: How often the log is recomputed and compared with all that its anchors and witnesses kept.
        audits: Served models that are audited again.
    """

    verify_hours: Hours = 24
    audits: tuple[RepeatedAuditSection, ...] = ()


class ConsoleSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[console]``: where the web pages and the control API listen, and under which address people reach them.

    Attributes:
        listen: ``HOST:PORT``; another host than this machine needs a certificate.
        url: What a browser's address line begins with, ``https://HOST``. Empty: made from ``listen``.
        certificate: PEM file of its TLS certificate and chain, relative to the workspace. Empty: no TLS.
        private_key: PEM file of the certificate's key, relative to the workspace.
    """

    listen: Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z")] = "127.0.0.1:8402"
    url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[A-Za-z0-9.\[\]:-]+)?\Z")] = ""
    certificate: str = ""
    private_key: str = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. ``gate`` is handed to :mod:`stanch.audit`, which owns its keys."""

    workspace: WorkspaceSection = WorkspaceSection()
    ledger: LedgerSection = LedgerSection()
    access: AccessSection = AccessSection()
    algorithms: AlgorithmsSection = AlgorithmsSection()
    gateway: GatewaySection = GatewaySection()
    alerts: AlertsSection = AlertsSection()
    watch: WatchSection = WatchSection()
    console: ConsoleSection = ConsoleSection()
    gate: dict[str, Any] = msgspec.field(default_factory=dict)
    origins: dict[str, str] = msgspec.field(default_factory=dict)

    def origin(self, setting: str) -> str:
        """Return where the value of ``section.key`` comes from: ``default``, ``FILE:LINE``, or a variable."""
        return self.origins.get(setting, "default")

    def chosen_algorithms(self) -> Algorithms:
        """Return the algorithms of the chosen profile."""
        return algorithms(self.algorithms.profile)
