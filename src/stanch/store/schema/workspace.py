"""Tables of the workspace: what it knows of each artifact, and which acts are running."""

from stanch.store.schema.column import integer, table, text

resource = table(
    "resource",
    text("kind", key=True),
    text("name", key=True),
    text("digest", key=True),
    integer("sensitivity"),
    integer("quarantined"),
    text("gate"),
    integer("legal_hold"),
    text("made_by"),
)

act_lease = table(
    "act_lease",
    text("act", key=True),
    text("host"),
    integer("pid"),
    integer("until_ms"),
)
