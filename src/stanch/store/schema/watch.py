"""Tables of the watch: what each detector remembers of a log, and the last alarms."""

from stanch.store.schema.column import blob, integer, table, text

watch_state = table(
    "watch_state",
    text("origin", key=True),
    text("detector", key=True),
    integer("next_idx"),
    blob("state"),
)

watch_alarm = table(
    "watch_alarm",
    text("origin", key=True),
    text("detector", key=True),
    integer("number", key=True),
    integer("at_ms"),
    blob("alarm"),
)
