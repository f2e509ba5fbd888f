"""Tables of the gateway: what each principal has used of its budgets and drew, which were reset, which are lowered."""

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

# Lower than the settings say, for one principal and model: an act of containment.
budget_lowered = table(
    "budget_lowered",
    text("principal", key=True),
    text("model", key=True),
    integer("requests_per_minute"),
    integer("tokens_per_day"),
)

budget_reset = table(
    "budget_reset",
    text("principal", key=True),
    text("model", key=True),
    text("budget", key=True),
    integer("count"),
)
