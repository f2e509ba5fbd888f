"""Tables of alerts: what was raised, what is kept quiet, what is still to be delivered, and incidents."""

from sqlalchemy import Index

from stanch.store.schema.column import blob, integer, table, text

alert = table(
    "alert",
    text("id", key=True),
    text("detector"),
    text("signal"),
    text("principal", null=True),
    text("model", null=True),
    integer("window_start"),
    text("severity"),
    text("statistic"),
    text("threshold"),
    text("entries"),
    text("containment", null=True),
    integer("count"),
    integer("first_at"),
    integer("last_at"),
    integer("raised_ms"),
    text("state"),
    text("conclusion", null=True),
    text("owner"),
    integer("changed_ms"),
    integer("escalations"),
)
Index("alert_state", alert.c.state, alert.c.raised_ms)

suppression = table(
    "suppression",
    text("id", key=True),
    text("detector"),
    text("principal", null=True),
    text("model", null=True),
    text("owner"),
    text("reason", personal=True),
    integer("created_ms"),
    integer("expires_ms"),
)

outbox = table(
    "outbox",
    text("key", key=True),
    text("alert"),
    text("sink"),
    blob("payload"),
    integer("attempts"),
    integer("created_ms"),
    integer("next_ms"),
    text("state"),
    text("problem"),
)
Index("outbox_due", outbox.c.state, outbox.c.next_ms)

incident = table(
    "incident",
    text("id", key=True),
    text("state"),
    integer("discovered_ms"),
    integer("opened_ms"),
    blob("document", personal=True),
)
