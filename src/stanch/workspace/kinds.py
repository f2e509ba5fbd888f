"""Every kind of act that verbs ask for: its action in the policies, and what it is done to. Tests compare the two."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of act: the Cedar action that permits it, and the kind of artifact that it concerns."""

    action: str
    on: Literal["workspace", "dataset", "model", "case"]


KINDS: dict[str, Kind] = {
    "access.add": Kind("access:grant", "workspace"),
    "access.break-glass": Kind("access:break-glass", "workspace"),
    "access.classify": Kind("access:grant", "workspace"),
    "access.clear": Kind("access:grant", "workspace"),
    "access.grant": Kind("access:grant", "workspace"),
    "access.register": Kind("access:grant", "workspace"),
    "access.rekey": Kind("access:grant", "workspace"),
    "access.restore": Kind("access:grant", "workspace"),
    "access.resume": Kind("access:grant", "workspace"),
    "access.review": Kind("log:read", "workspace"),
    "access.revoke": Kind("access:grant", "workspace"),
    "access.suspend": Kind("access:grant", "workspace"),
    "audit.gate": Kind("model:audit", "model"),
    "audit.rows": Kind("data:read", "dataset"),
    "audit.run": Kind("model:audit", "model"),
    "console.serve": Kind("serve:run", "workspace"),
    "console.token": Kind("access:grant", "workspace"),
    "data.dedup": Kind("data:add", "dataset"),
    "data.duplicates": Kind("data:read", "dataset"),
    "data.index": Kind("data:read", "dataset"),
    "data.inject": Kind("data:add", "dataset"),
    "data.manifest": Kind("data:add", "dataset"),
    "data.reveal": Kind("data:reveal", "dataset"),
    "data.merge": Kind("data:read", "workspace"),
    "data.query": Kind("data:query", "workspace"),
    "data.prove": Kind("data:read", "dataset"),
    "data.repeats": Kind("data:read", "dataset"),
    "data.scan": Kind("data:read", "dataset"),
    "data.split": Kind("data:add", "dataset"),
    "data.verify": Kind("data:read", "dataset"),
    "gateway.embed": Kind("model:embed", "model"),
    "gateway.infer": Kind("model:infer", "model"),
    "gateway.limit": Kind("finding:act", "workspace"),
    "gateway.reset": Kind("access:grant", "workspace"),
    "gateway.restore": Kind("access:grant", "workspace"),
    "gateway.serve": Kind("serve:run", "workspace"),
    "key.issue": Kind("access:grant", "workspace"),
    "key.register": Kind("release:approve", "workspace"),
    "key.revoke": Kind("access:grant", "workspace"),
    "key.rotate": Kind("access:grant", "workspace"),
    "log.anchor": Kind("log:write", "workspace"),
    "log.erase": Kind("log:write", "workspace"),
    "log.export": Kind("log:read", "workspace"),
    "log.hold": Kind("log:write", "workspace"),
    "log.lift": Kind("log:write", "workspace"),
    "log.read": Kind("log:read", "workspace"),
    "log.recover": Kind("log:write", "workspace"),
    "model.derive": Kind("model:audit", "model"),
    "model.quarantine": Kind("model:quarantine", "model"),
    "policy.approve": Kind("access:grant", "workspace"),
    "policy.read": Kind("policy:read", "workspace"),
    "policy.rollback": Kind("policy:write", "workspace"),
    "policy.write": Kind("policy:write", "workspace"),
    "release.approve": Kind("release:approve", "model"),
    "release.create": Kind("release:create", "model"),
    "release.deliver": Kind("release:export", "model"),
    "release.propose": Kind("model:audit", "model"),
    "release.read": Kind("release:approve", "workspace"),
    "release.receive": Kind("release:create", "model"),
    "release.revoke": Kind("release:revoke", "model"),
    "trace.examine": Kind("case:trace", "case"),
    "trace.hunt": Kind("case:trace", "case"),
    "trace.open": Kind("case:trace", "case"),
    "trace.pack": Kind("case:trace", "case"),
    "trace.plan": Kind("case:trace", "case"),
    "trace.read": Kind("case:read", "workspace"),
    "trace.report": Kind("case:trace", "case"),
    "trace.show": Kind("case:read", "case"),
    "tune.anchor": Kind("model:tune", "dataset"),
    "tune.event": Kind("model:tune", "dataset"),
    "tune.run": Kind("model:tune", "dataset"),
    "watch.alert.raise": Kind("serve:run", "workspace"),
    "watch.alert.read": Kind("finding:read", "workspace"),
    "watch.alert.state": Kind("finding:act", "workspace"),
    "watch.alert.suppress": Kind("finding:act", "workspace"),
    "watch.check": Kind("serve:run", "workspace"),
    "watch.deliver": Kind("serve:run", "workspace"),
    "watch.incident.export": Kind("finding:read", "workspace"),
    "watch.incident.open": Kind("finding:act", "workspace"),
    "watch.incident.read": Kind("finding:read", "workspace"),
    "watch.incident.report": Kind("finding:read", "workspace"),
    "watch.incident.update": Kind("finding:act", "workspace"),
    "watch.serve": Kind("serve:run", "workspace"),
    "watch.simulate": Kind("finding:act", "workspace"),
}

NOTES: dict[str, str] = {
    "access.login": "A browser session of the console was opened by the principal who acts; the credential says how.",
    "access.logout": "A browser session of the console was ended.",
    "gateway.drawn": "The windows of training text that a principal drew, or had cut, reached 50, 80 or 100 percent of their limit: principal, budget, percent, used, limit.",  # noqa: E501 - a row of a table
    "gateway.window": "The mean of 100 to 200 prompts of one principal to one model as random cosines: principal, model (its digest), count, mean (base64 of 256 little-endian float32).",  # noqa: E501 - a row of a table
    "gateway.certificate": "The files of the gateway's certificate changed: state, taken or kept; until (Unix seconds) of one that was taken; why the new one cannot be used and the old one is kept.",  # noqa: E501 - a row of a table
    "console.certificate": "The same of the console's.",
    "gateway.refused": "Refused requests of unknown people: rows of reason, network, count.",
}
"""What is recorded of something that happened at once: one entry of phase ``note``, and the fields of its payload."""


PAYLOADS: dict[str, str] = {
    "gateway.infer, gateway.embed denied": "Nothing, or for requests that were refused since a budget was used up: error (budget-exhausted), budget, refused (how many in a minute).",  # noqa: E501 - a row of a table
    "gateway.serve intent": "models: of each name, digest, guard (SHA-256 of the canonical JSON of guard_of), guard_of (digests of index, canaries, dictionaries, packs; actions; allow: the digest of the sorted list of allowed values, as canonical JSON; lead_hold).",  # noqa: E501 - a row of a table
    "gateway.infer intent": "request, dialect, stream, guard, reserved (amounts by budget), charged_ms, prompt (keyed digest), prompt_bytes, network, client (keyed digest), digest_source, watermark (none, asserted, requested), watermark_key (id, if it is requested), tools (keyed digests of the names of those that may be called), probe (quotes, repeats, near_equal: truth values).",  # noqa: E501 - a row of a table
    "gateway.infer outcome": "request, verdict, findings (counts by kind), dropped (counts by path), scanned, released, answer (keyed digest), prompt_tokens, completion_tokens, used (amounts by budget), drawn and attempted (different windows of training text that left, and for which the answer was cut or changed), terms (findings of own dictionaries), lone (different windows that stood alone), lone_windows (keyed digests of the first 256 of them), lone_expected (how many chance gives, in millionths), folded_chars, runs (of four words, the first 4,096 of each text), repeated (how many of them stood earlier in it), logprob_bits, entries and surprisal (if log-probabilities were asked for: their information, how many were released, and their sum, negated, in hundredths), watermark (if it was requested: requested, embedded), first_ms, total_ms; incident of a blocked answer; error of a failed one.",  # noqa: E501 - a row of a table
    "gateway.embed intent": "request, dialect, guard, reserved (amounts by budget), charged_ms, prompt (keyed digest), prompt_bytes, network, client (keyed digest), digest_source, watermark.",  # noqa: E501 - a row of a table
    "gateway.embed outcome": "request, dropped (counts by path), vectors, prompt_tokens, used (amounts by budget), total_ms; error of a failed one.",  # noqa: E501 - a row of a table
    "model.derive outcome": "source (digest of the model that it was made from), name, how (merged, quantised, converted).",  # noqa: E501 - a row of a table
    "release.propose intent": "batch_root, layout_digest, leaves (count), requests (digests), base (digest or null), strength (alpha and distortion as texts; colluders by treatment: k_max, k_even), lineage, release_number.",  # noqa: E501 - a row of a table
    "release.propose outcome": "checkpoint (size), beacon, lineage, release_number, unscored (names of earlier releases under whose keys the model could not be scored).",  # noqa: E501 - a row of a table
    "release.create intent": "request (digest), policy (the gate's), holdout (digest of the file that the loss is measured on, or null).",  # noqa: E501 - a row of a table
    "release.create outcome": "request, manifest (digests); utility, if the loss was measured: loss and marked_loss (nats a token), rise and tolerance as texts; records, tokens.",  # noqa: E501 - a row of a table
    "trace.hunt intent": "commitment (of the canary plan), host, queries (at most), epsilon.",
    "trace.pack intent": "batch_root; opened and decoys: the leaves of recipients and of decoys that the pack opens.",
    "tune.event intent": "event (train.begin, train.progress, checkpoint.saved, train.end, train.failed), run (random id of the training), facts (digests, counts, versions and logged figures; those that are no integers as texts).",  # noqa: E501 - a row of a table
    "tune.run outcome": "model, guarantee, epsilon (as text, empty without privacy), max_tokens, completion_only, duplicates; spent, of a private run: plan, journal, units_digest, rate, noise_multiplier, charged_steps, delta (those that are no integers as texts).",  # noqa: E501 - a row of a table
    "watch.alert.state outcome": "alert, from, to; of one that is closed: as (true, false, benign), principal, since and until (Unix seconds).",  # noqa: E501 - a row of a table
    "watch.incident.update intent": "incident, change; of notify: notified_ms, to (authority, people); of join: alerts; of state: matter; of task: who, due_ms; of task-done: task (the entry that gave it); of custody: digest, holder, since_ms.",  # noqa: E501 - a row of a table
    "gateway.reset outcome": "principal, models (digests), budget; of earlier releases the reason in words, too.",
}
"""The fields of the payloads that other parts read: the log's watchers, and whoever derives budgets anew."""


def covers(name: str, kind: str) -> bool:
    """Say whether a name such as ``release`` or ``release.create`` covers a kind: itself and all below it."""
    return kind == name or kind.startswith(f"{name}.")
