"""Tables of the gateway: what each principal has used of its budgets and drawn of protected text, and the resets."""

from stanch.store.schema.column import integer, table, text

budget_use = table(
    "budget_use",
    text("principal", key=True),
    text("model", key=True),
    text("budget", key=True),
    integer("window_ms", key=True),
    integer("used"),
)

budget_drawn = table(
    "budget_drawn",
    text("principal", key=True),
    text("model", key=True),
    text("fingerprint", key=True),
)

budget_reset = table(
    "budget_reset",
    text("principal", key=True),
    text("model", key=True),
    text("budget", key=True),
    integer("count"),
)
