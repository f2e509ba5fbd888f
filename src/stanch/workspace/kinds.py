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
    "access.grant": Kind("access:grant", "workspace"),
    "access.register": Kind("access:grant", "workspace"),
    "access.review": Kind("log:read", "workspace"),
    "access.revoke": Kind("access:grant", "workspace"),
    "audit.gate": Kind("model:audit", "model"),
    "audit.rows": Kind("data:read", "dataset"),
    "audit.run": Kind("model:audit", "model"),
    "console.serve": Kind("serve:run", "workspace"),
    "console.token": Kind("access:grant", "workspace"),
    "data.dedup": Kind("data:add", "dataset"),
    "data.index": Kind("data:read", "dataset"),
    "data.inject": Kind("data:add", "dataset"),
    "data.manifest": Kind("data:add", "dataset"),
    "data.reveal": Kind("data:reveal", "dataset"),
    "data.merge": Kind("data:read", "workspace"),
    "data.query": Kind("data:query", "workspace"),
    "data.repeats": Kind("data:read", "dataset"),
    "data.scan": Kind("data:read", "dataset"),
    "data.split": Kind("data:add", "dataset"),
    "gateway.embed": Kind("model:embed", "model"),
    "gateway.infer": Kind("model:infer", "model"),
    "gateway.limit": Kind("finding:act", "workspace"),
    "gateway.serve": Kind("serve:run", "workspace"),
    "key.issue": Kind("access:grant", "workspace"),
    "key.register": Kind("release:approve", "workspace"),
    "key.revoke": Kind("access:grant", "workspace"),
    "key.rotate": Kind("access:grant", "workspace"),
    "log.anchor": Kind("log:write", "workspace"),
    "log.erase": Kind("log:write", "workspace"),
    "log.export": Kind("log:read", "workspace"),
    "log.read": Kind("log:read", "workspace"),
    "log.recover": Kind("log:write", "workspace"),
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
    "release.revoke": Kind("release:revoke", "model"),
    "trace.examine": Kind("case:trace", "case"),
    "trace.open": Kind("case:trace", "case"),
    "trace.pack": Kind("case:trace", "case"),
    "trace.plan": Kind("case:trace", "case"),
    "tune.anchor": Kind("model:tune", "dataset"),
    "tune.run": Kind("model:tune", "dataset"),
    "watch.alert.raise": Kind("serve:run", "workspace"),
    "watch.alert.read": Kind("finding:read", "workspace"),
    "watch.alert.state": Kind("finding:act", "workspace"),
    "watch.alert.suppress": Kind("finding:act", "workspace"),
    "watch.deliver": Kind("serve:run", "workspace"),
    "watch.incident.export": Kind("finding:read", "workspace"),
    "watch.incident.open": Kind("finding:act", "workspace"),
    "watch.incident.read": Kind("finding:read", "workspace"),
    "watch.incident.update": Kind("finding:act", "workspace"),
    "watch.simulate": Kind("finding:act", "workspace"),
}


def covers(name: str, kind: str) -> bool:
    """Say whether a name such as ``release`` or ``release.create`` covers a kind: itself and all below it."""
    return kind == name or kind.startswith(f"{name}.")
