"""Tables of access: who there is, with which keys and roles, and who approved what."""

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint

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
