"""Tables of access: who there is, with which keys and roles, who approved what, which policies are in force."""

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint

from stanch.store.schema.column import blob, integer, table, text

principal = table(
    "principal",
    text("id", key=True),
    text("kind"),
    text("issuer", null=True, personal=True),
    text("subject", null=True, personal=True),
    text("display", null=True, personal=True),
    integer("clearance"),
    integer("suspended"),
    integer("created_ms"),
    UniqueConstraint("issuer", "subject"),
)

credential = table(
    "credential",
    text("id", key=True),
    text("principal"),
    text("kind"),
    blob("public"),
    integer("not_before_ms"),
    integer("expires_ms", null=True),
    integer("revoked_ms", null=True),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)

grant = table(
    "grant_",
    text("id", key=True),
    text("principal"),
    text("role"),
    text("scope"),
    integer("not_before_ms"),
    integer("expires_ms", null=True),
    integer("revoked_ms", null=True),
    text("granted_by"),
    text("reason_commitment", null=True),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)
Index("grant_principal", grant.c.principal)

approval = table(
    "approval",
    text("request_digest", key=True),
    text("principal", key=True),
    text("key_id"),
    blob("statement"),
    blob("signature"),
    integer("expires_ms"),
    integer("created_ms"),
    text("consumed_by", null=True),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)

api_key = table(
    "api_key",
    text("id", key=True),
    text("principal"),
    blob("mac"),
    integer("pepper"),
    text("models"),
    text("networks"),
    text("actions"),
    integer("not_before_ms"),
    integer("expires_ms"),
    integer("revoked_ms", null=True),
    text("issued_by"),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)
Index("api_key_principal", api_key.c.principal)

session = table(
    "session_",
    text("mac", key=True),
    text("principal"),
    text("credential"),
    integer("auth_ms"),
    integer("mfa_ms", null=True),
    integer("seen_ms"),
    integer("expires_ms"),
    integer("ended_ms", null=True),
    blob("csrf"),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)
Index("session_principal", session.c.principal)

stranger = table(
    "stranger",
    text("id", key=True),
    text("issuer", personal=True),
    text("subject", personal=True),
    integer("first_ms"),
    integer("last_ms"),
    integer("attempts"),
)

policy = table(
    "policy",
    integer("version", key=True),
    text("text"),
    text("digest"),
    text("schema_digest"),
    text("without"),
    text("state"),
    integer("before"),
    text("activated_by"),
    integer("activated_ms"),
    CheckConstraint("state IN ('active', 'retired')"),
)

glass = table(
    "glass",
    text("id", key=True),
    text("principal"),
    text("act"),
    text("reason_commitment"),
    integer("from_ms"),
    integer("until_ms"),
    integer("review_due_ms"),
    text("reviewed_by", null=True),
    integer("reviewed_ms", null=True),
    ForeignKeyConstraint(["principal"], ["principal.id"]),
)
Index("glass_principal", glass.c.principal, glass.c.until_ms)

alarm_outbox = table(
    "alarm_outbox",
    text("id", key=True),
    text("kind"),
    integer("severity"),
    text("principal"),
    text("act"),
    text("payload"),
    integer("created_ms"),
    integer("taken_ms", null=True),
)
Index("alarm_outbox_waiting", alarm_outbox.c.taken_ms, alarm_outbox.c.created_ms)

access_revision = table(
    "access_revision",
    text("of", key=True),
    integer("value"),
)
