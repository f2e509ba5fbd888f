"""Tables of the console: one-time links, and answers that are given again."""

from stanch.store.schema.column import blob, integer, table, text

console_token = table(
    "console_token",
    text("mac", key=True),
    text("principal"),
    text("credential"),
    integer("mfa"),
    integer("created_ms"),
    integer("used_ms", null=True),
)

console_reply = table(
    "console_reply",
    text("key", key=True),
    text("request"),
    integer("status"),
    blob("body", null=True, personal=True),
    integer("created_ms"),
)
