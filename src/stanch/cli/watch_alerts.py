"""``stanch watch alerts``, ``show``, ``ack``, ``investigate``, ``close``, ``reopen``, ``suppress``, ``deliver``."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from stanch.watch.alert import Alert
    from stanch.workspace import Workspace
    from stanch.workspace.verbs_alerts import Change

TIME = click.DateTime(["%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])


@click.command("alerts", cls=Leaf)
@click.option(
    "--state", type=click.Choice(["open", "suppressed", "acknowledged", "investigating", "contained", "closed"]),
    help="Only these; otherwise all.",
)  # fmt: skip
def alerts(state: str | None) -> Result:
    """List alerts, the newest first."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch.alert import AlertState  # noqa: PLC0415 - same
    from stanch.workspace.verbs_alerts import find_alerts  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = find_alerts(workspace, AlertState(state) if state else None)
    lines = [_line(one) for one in found]
    return Result({"alerts": [_data(one) for one in found]}, "\n".join(lines) or "no alerts")


@click.command("show", cls=Leaf)
@click.argument("alert")
def show(alert: str) -> Result:
    """Show one ALERT with the entries that are its evidence."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_alerts import show_alert  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = show_alert(workspace, alert)
    lines = [
        _line(found),
        f"measured   {found.statistic:g}, threshold {found.threshold:g}",
        f"entries    {', '.join(map(str, found.entries)) or 'none'}",
        f"proposed   {found.containment or 'nothing'}",
    ]
    return Result(_data(found), "\n".join(lines))


@click.command("ack", cls=Leaf)
@click.argument("alert")
def acknowledge(alert: str) -> Result:
    """Take ALERT on: nobody else is told of it any more."""
    from stanch.workspace.verbs_alerts import move_alert  # noqa: PLC0415 - keeps `stanch --help` light

    return _move(move_alert, alert, "acknowledged")


@click.command("investigate", cls=Leaf)
@click.argument("alert")
def investigate(alert: str) -> Result:
    """Say that ALERT is being looked into."""
    from stanch.workspace.verbs_alerts import move_alert  # noqa: PLC0415 - keeps `stanch --help` light

    return _move(move_alert, alert, "investigating")


@click.command("close", cls=Leaf)
@click.argument("alert")
@click.option(
    "--verdict", "conclusion", type=click.Choice(["true", "false", "benign"]), required=True,
    help="What it was: a leak or attack, a false alarm, or something real that is allowed.",
)  # fmt: skip
def close(alert: str, conclusion: str) -> Result:
    """Close ALERT and say what it was."""
    from stanch.workspace.verbs_alerts import move_alert  # noqa: PLC0415 - keeps `stanch --help` light

    return _move(move_alert, alert, "closed", conclusion=conclusion)


@click.command("reopen", cls=Leaf)
@click.argument("alert")
@click.option("--reason", required=True, help="Why. The log holds a commitment to it only.")
def reopen(alert: str, reason: str) -> Result:
    """Open ALERT again that was closed or suppressed."""
    from stanch.workspace.verbs_alerts import move_alert  # noqa: PLC0415 - keeps `stanch --help` light

    return _move(move_alert, alert, "open", reason=reason)


@click.command("suppress", cls=Leaf)
@click.option("--detector", required=True, help="Alarms of this detector.")
@click.option("--principal", help="Only about this principal (name or id).")
@click.option("--model", help="Only about this model.")
@click.option("--until", type=TIME, required=True, help="Until when (UTC), at most 90 days from now.")
@click.option("--reason", required=True, help="Why. The log holds a commitment to it only.")
def suppress(detector: str, principal: str | None, model: str | None, until: datetime, reason: str) -> Result:
    """Keep alarms quiet for a while; they are recorded all the same. You answer for it."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_alerts import Quiet, suppress_alerts  # noqa: PLC0415 - same

    quiet = Quiet(detector=detector, principal=principal, model=model, until_ms=to_ms(until), reason=reason)
    with open_workspace(current()) as workspace:
        made = suppress_alerts(workspace, quiet)
    data: dict[str, JsonValue] = {"suppression": made.id, "detector": made.detector, "until_ms": made.expires_ms}
    return Result(data, f"suppressed {made.detector} until {to_text(made.expires_ms)} ({made.id})")


@click.command("deliver", cls=Leaf)
def deliver() -> Result:
    """Remind, hand on what nobody took, and deliver what is due to the sinks of [[alerts.sinks]]. Run it every minute.

    What a sink does not take is tried again with longer and longer pauses, for 24 hours.
    """
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_alerts import deliver_alerts  # noqa: PLC0415 - same
    from stanch.workspace.verbs_glass import tell_glasses  # noqa: PLC0415 - same
    from stanch.workspace.verbs_incident import remind_incidents  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        reminded = len(tell_glasses(workspace)) + len(remind_incidents(workspace))
        escalated, done = deliver_alerts(workspace)
    counts = {"reminded": reminded, "escalated": escalated, "sent": done.sent, "retried": done.retried,
              "dead": len(done.dead)}  # fmt: skip
    return Result({**counts}, "  ".join(f"{name} {count}" for name, count in counts.items()))


COMMANDS = (alerts, show, acknowledge, investigate, close, reopen, suppress, deliver)


def _move(
    move: "Callable[[Workspace, str, Change], Alert]", key: str, state: str, *, conclusion: str | None = None,
    reason: str = "",
) -> Result:  # fmt: skip
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch.alert import AlertState, Conclusion  # noqa: PLC0415 - same
    from stanch.workspace.verbs_alerts import Change  # noqa: PLC0415 - same

    change = Change(AlertState(state), Conclusion(conclusion) if conclusion else None, reason)
    with open_workspace(current()) as workspace:
        moved = move(workspace, key, change)
    return Result(_data(moved), _line(moved))


def to_ms(time: datetime) -> int:
    """Return milliseconds UTC of a time that was typed in."""
    return int(time.replace(tzinfo=UTC).timestamp() * 1000)


def to_text(time_ms: int) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _line(alert: "Alert") -> str:
    state = f"{alert.state}{f' as {alert.conclusion}' if alert.conclusion else ''}"
    about = " ".join(one for one in (alert.principal, alert.model) if one)
    return (
        f"{alert.id}  {alert.severity:<8}  {state:<16}  {alert.detector} {alert.signal}, {alert.count} times, "
        f"since {to_text(1000 * alert.first_at)}  {about}".rstrip()
    )


def _data(alert: "Alert") -> dict[str, JsonValue]:
    return {
        "alert": alert.id, "detector": alert.detector, "signal": alert.signal, "severity": alert.severity.value,
        "state": alert.state.value, "as": alert.conclusion.value if alert.conclusion else None,
        "principal": alert.principal, "model": alert.model, "count": alert.count, "first_at": alert.first_at,
        "last_at": alert.last_at, "entries": list(alert.entries), "owner": alert.owner,
        "proposed": alert.containment.value if alert.containment else None,
    }  # fmt: skip
