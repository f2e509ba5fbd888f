"""Tables of the console: one-time links, sign-ins that are under way, and answers that are given again."""

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

console_attempt = table(
    "console_attempt",
    text("mac", key=True),
    text("issuer"),
    text("state"),
    text("nonce"),
    text("verifier"),
    integer("begun_ms"),
    integer("step_up"),
    text("target", null=True),
)

console_reply = table(
    "console_reply",
    text("key", key=True),
    text("request"),
    integer("status"),
    blob("body", null=True, personal=True),
    integer("created_ms"),
)
