"""Tables of the ledger. Entries are append only."""

from sqlalchemy import DDL, CheckConstraint, Index, event

from stanch.store.schema.column import blob, integer, table, text

ledger_log = table(
    "ledger_log",
    text("origin", key=True),
    integer("size"),
    blob("frontier"),
    text("key_id"),
    integer("updated_ms"),
)

ledger_key = table(
    "ledger_key",
    text("origin", key=True),
    text("key_id", key=True),
    integer("replaced_ms"),
)

ledger_entry = table(
    "ledger_entry",
    text("origin", key=True),
    integer("idx", key=True),
    blob("data"),
    blob("leaf_hash"),
    CheckConstraint("length(leaf_hash) = 32"),
    long_rows=True,
)

ledger_checkpoint = table(
    "ledger_checkpoint",
    text("origin", key=True),
    integer("size", key=True),
    blob("root"),
    blob("note"),
    integer("created_ms"),
    integer("published"),
)

ledger_cosignature = table(
    "ledger_cosignature",
    text("origin", key=True),
    integer("size", key=True),
    text("key_name", key=True),
    text("key_id", key=True),
    text("line"),
    integer("time_s"),
)

ledger_anchor = table(
    "ledger_anchor",
    text("origin", key=True),
    text("kind", key=True),
    integer("size", key=True),
    blob("proof"),
    integer("created_ms"),
)

ledger_index = table(
    "ledger_index",
    text("origin", key=True),
    integer("idx", key=True),
    text("act"),
    text("phase"),
    text("kind"),
    text("principal"),
    integer("time_ms"),
    integer("status"),
    text("subjects", default=""),
)
Index("ledger_index_act", ledger_index.c.origin, ledger_index.c.act)
Index("ledger_index_principal", ledger_index.c.origin, ledger_index.c.principal, ledger_index.c.time_ms)
Index("ledger_index_kind", ledger_index.c.origin, ledger_index.c.kind, ledger_index.c.time_ms)
# The newest of one kind, principal or phase are read from the end, without sorting what there is of it.
Index("ledger_index_newest_of_kind", ledger_index.c.origin, ledger_index.c.kind, ledger_index.c.idx)
Index("ledger_index_newest_of_principal", ledger_index.c.origin, ledger_index.c.principal, ledger_index.c.idx)
Index("ledger_index_newest_of_phase", ledger_index.c.origin, ledger_index.c.phase, ledger_index.c.idx)
# What was refused or failed in a period is rare, and counted often.
Index("ledger_index_state", ledger_index.c.origin, ledger_index.c.phase, ledger_index.c.status, ledger_index.c.time_ms)

ledger_subject = table(
    "ledger_subject",
    text("origin", key=True),
    integer("idx", key=True),
    text("digest", key=True),
)
Index("ledger_subject_digest", ledger_subject.c.origin, ledger_subject.c.digest, ledger_subject.c.idx)

ledger_opening = table(
    "ledger_opening",
    text("commitment", key=True),
    text("field"),
    blob("salt"),
    text("value", personal=True),
    text("principal"),
    integer("retain_until_ms", null=True),
)

# A guard against mistakes only: whoever owns the database can drop the triggers, and fsck finds what he changes then.
_REFUSAL = "ledger_entry is append only"


def _guard(dialect: str, statement: str) -> None:
    ddl = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves this constructor untyped
    event.listen(ledger_entry, "after_create", ddl.execute_if(dialect=dialect))


for _change in ("UPDATE", "DELETE"):
    _guard(
        "sqlite",
        f"CREATE TRIGGER ledger_entry_no_{_change.lower()} BEFORE {_change} ON ledger_entry "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
    )
_guard(
    "postgresql",
    "CREATE FUNCTION ledger_entry_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$",
)
_guard(
    "postgresql",
    "CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger_entry_refuse()",
)

witness_log = table(
    "witness_log",
    text("origin", key=True),
    text("vkeys"),
    integer("size"),
    blob("root"),
    blob("note"),
)

# Signed notes that a witness refused as inconsistent, beside what it had cosigned before: the proof against a log.
witness_evidence = table(
    "witness_evidence",
    text("origin", key=True),
    text("digest", key=True),
    blob("request"),
    blob("cosigned"),
    integer("received_ms"),
)
