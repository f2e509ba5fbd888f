"""``--explain``: what a command asks permission for and what it records, without doing it."""

from stanch.access import default_policies
from stanch.cli.actions import ACTIONS
from stanch.config import Config
from stanch.ledger.ocsf import class_of
from stanch.terms import JsonValue
from stanch.workspace.kinds import KINDS, covers


def explain_command(command: str) -> tuple[dict[str, JsonValue], str]:
    """Return what is declared of a command, for machines and for people: its acts, their policies and entries."""
    acts = [_explain_act(kind) for kind in ACTIONS[command].kinds]
    reason = ACTIONS[command].why_none
    lines = [f"explains   {command}; nothing was done"]
    if not acts:
        lines.append(f"acts       none: {reason}")
    for act in acts:
        lines += [f"act        {act['kind']}"] + [f"  {name:<9}{text}" for name, text in act.items() if name != "kind"]
    data: list[JsonValue] = [dict(act) for act in acts]
    return {"command": command, "acts": data, "reason": reason}, "\n".join(lines)


def _explain_act(name: str) -> dict[str, str]:
    kind = KINDS[name]
    matching = default_policies().matching(kind.action)
    class_uid, activity = class_of(name)
    waits = any(covers(wanted, name) for wanted in Config().ledger.witness_required_for)
    return {
        "kind": name,
        "asks": f"{kind.action} on {'the workspace' if kind.on == 'workspace' else f'the {kind.on}'}",
        "permits": ", ".join(sorted(policy.id for policy in matching if policy.effect == "permit")),
        "forbids": ", ".join(sorted(policy.id for policy in matching if policy.effect == "forbid")),
        "records": f"denied, or intent before and outcome after (OCSF class {class_uid}, activity {activity})",
        "witness": "waits for a cosigned checkpoint, once a witness is configured" if waits else "does not wait",
    }
