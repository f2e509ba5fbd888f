"""Verbs about emergencies: break the glass, tell of it, review what was done behind it; and what is due for review."""

from dataclasses import dataclass
from functools import partial

from stanch.access import Glass, Grant
from stanch.access import strangers as waiting
from stanch.access.glass import check_minutes, take_alarm
from stanch.access.strangers import Stranger
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, Opening
from stanch.terms import EntryRef, JsonValue
from stanch.watch import Alarm, Severity
from stanch.watch.alert import Alert
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import DAY_MS, unused_grants, workspace_ref
from stanch.workspace.verbs_alerts import raise_alarms

REASON = "access.break_glass.reason"
DETECTOR = "break-glass"
"""What the alert of emergency rights names in place of a detector."""
SOON_DAYS = 7
UNUSED_DAYS = 30
_MAX_REASON = 2000


@dataclass(frozen=True, slots=True)
class Due:
    """What somebody should look at.

    Attributes:
        overdue: Emergency rights that nobody reviewed in time; ``status`` fails while there are any.
        unreviewed: Those that wait for a review and are in time.
        unused: Grants that permitted nothing in thirty days.
        ending: Grants that end within a week.
        strangers: Subjects whom a trusted issuer vouches for and who are not registered.
    """

    overdue: tuple[Glass, ...]
    unreviewed: tuple[Glass, ...]
    unused: tuple[Grant, ...]
    ending: tuple[Grant, ...]
    strangers: tuple[Stranger, ...]


def break_glass(workspace: Workspace, reason: str, minutes: int) -> Glass:
    """Open emergency rights.

    The intent is durable first (and cosigned, if witnesses are configured); then alarm, rights and outcome at once. The
    reason is personal: the log holds its commitment only.

    Raises:
        InvalidInput: No reason, not 1 to 60 minutes, or rights are open already.
        NotPermitted: No standing grant of ``break_glass``, or no second factor.
    """
    check_minutes(minutes)
    if not 1 <= len(reason.strip()) <= _MAX_REASON:
        raise InvalidInput(f"break-glass: expected a reason of 1 to {_MAX_REASON} characters")
    opening, people = Opening.make(REASON, reason.strip()), workspace.people

    def run(ref: EntryRef) -> Done[Glass]:
        glass, settle = people.rehearse(
            lambda on: on.glasses.open_glass(
                people.session.principal, act=ref.act, reason_commitment=opening.commitment, minutes=minutes
            )
        )
        payload: dict[str, JsonValue] = {
            "glass": glass.id, "until_ms": glass.until_ms, "review_due_ms": glass.review_due_ms,
        }  # fmt: skip
        return Done(glass, payload, settle=settle)

    request = Request(
        "access.break-glass", "access:break-glass", workspace_ref(workspace), {"minutes": minutes}, None, (opening,)
    )
    return workspace.door.act(request, run)


def review_glass(workspace: Workspace, glass_id: str) -> Glass:
    """Note that whoever acts has looked at what another did under emergency rights.

    Raises:
        SeparationOfDuties: By the one who used them.
        NotFound: There is no such use, or it was reviewed already.
    """
    people = workspace.people

    def run(_ref: EntryRef) -> Done[Glass]:
        reviewed, settle = people.rehearse(lambda on: on.glasses.review(glass_id, by=people.session.principal))
        return Done(reviewed, {"glass": glass_id}, settle=settle)

    request = Request("access.review", "log:read", workspace_ref(workspace), {"glass": glass_id})
    return workspace.door.act(request, run)


def tell_glasses(workspace: Workspace) -> tuple[Alert, ...]:
    """Raise a critical alert for every use of emergency rights, each once; nothing keeps such an alert quiet."""
    reader, raised = workspace.ledger.reader(), list[Alert]()
    for one in workspace.people.glasses.untold():
        at, entries = one.raised_ms // 1000, reader.query(EntryQuery(act=one.act))
        alarm = Alarm(
            detector=DETECTOR, signal="emergency rights", principal=one.principal, model=None, window_start=at, at=at,
            severity=Severity.CRITICAL, statistic=1.0, threshold=1.0, entries=tuple(ref.index for ref in entries),
        )  # fmt: skip
        now_ms = int(workspace.now().timestamp() * 1000)
        raised += raise_alarms(workspace, [alarm], within=partial(take_alarm, alarm=one, now_ms=now_ms))
    return tuple(raised)


def overdue_reviews(workspace: Workspace) -> tuple[Glass, ...]:
    """Return the emergency rights that nobody reviewed in time."""
    now_ms = int(workspace.now().timestamp() * 1000)
    return tuple(glass for glass in workspace.people.glasses.unreviewed() if glass.overdue(now_ms))


def find_due(workspace: Workspace) -> Due:
    """Return what is due for review now."""
    people, now_ms = workspace.people, int(workspace.now().timestamp() * 1000)
    waiting_for = people.glasses.unreviewed()
    grants = [
        grant
        for principal in people.directory.principals()
        for grant in people.directory.facts_of(principal.id).grants
        if grant.expires_ms is not None and grant.expires_ms - now_ms <= SOON_DAYS * DAY_MS
    ]
    with workspace.tables.read() as connection:
        strangers = waiting.read(connection)
    return Due(
        overdue_reviews(workspace),
        tuple(glass for glass in waiting_for if not glass.overdue(now_ms)),
        unused_grants(workspace, UNUSED_DAYS),
        tuple(grants),
        strangers,
    )
