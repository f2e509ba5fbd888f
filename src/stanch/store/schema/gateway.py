"""Tables of the gateway: what each principal has used, what training text it saw, what was reset and lowered."""

from stanch.store.schema.column import integer, table, text

budget_use = table(
    "budget_use",
    text("principal", key=True),
    text("model", key=True),
    text("budget", key=True),
    integer("window_ms", key=True),
    integer("used"),
)

# Windows of the training text of one index, by keyed fingerprints: which of them a principal was shown, and for which
# its answers were cut or changed, since that tells that they are protected.
budget_window = table(
    "budget_window",
    text("principal", key=True),
    text("corpus", key=True),
    text("budget", key=True),
    text("fingerprint", key=True),
)

# Which index stands before a model, as the gateway's last start said.
budget_corpus = table("budget_corpus", text("model", key=True), text("corpus"))

# Until revision 9 windows were counted by model. A gateway that starts takes over those of its models.
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
