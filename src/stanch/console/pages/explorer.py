"""The access explorer: why somebody may or may not do something, and who can."""

from collections.abc import Hashable, Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from stanch.access import ActivePolicies, Context, Explanation, Facts, ResourceFacts, default_policies, explain
from stanch.access.alike import Likeness
from stanch.access.roll import Crowd, facts_of, first_names, read_crowd
from stanch.console.desk import Call
from stanch.console.pages.log import Word
from stanch.console.pages.paging import MOST, Cursor, Limit, Paged, take
from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.people import NEEDED
from stanch.workspace.verbs_access import explain_access, workspace_ref

_KINDS = frozenset({"model", "dataset", "release", "run", "case"})
Resource = Annotated[str, Meta(max_length=400)]
Action = Annotated[str, Meta(max_length=40)]


class Why(Struct, frozen=True, forbid_unknown_fields=True):
    """Who (empty: whoever asks), which action, and on what: ``workspace`` or ``kind:name@sha256:hex``."""

    who: Word = ""
    action: Action = ""
    resource: Resource = "workspace"


class Who(Struct, frozen=True, forbid_unknown_fields=True):
    """Which action, and on what; at most ``limit`` of those who can, those after ``after``."""

    action: Action = ""
    resource: Resource = "workspace"
    after: Cursor = ""
    limit: Limit = MOST


class Answer(Struct, frozen=True):
    """What one policy says by itself."""

    policy: str
    effect: str
    holds: bool
    fact: str
    through: str


class Because(Struct, frozen=True):
    """A decision, and what each policy contributes to it."""

    principal: str
    name: str
    allowed: bool
    answers: tuple[Answer, ...]
    next: str


class WhyView(Struct, frozen=True):
    """The question, its answer if one was asked, and what can be asked about."""

    asked: Why
    answer: Because | None
    actions: tuple[str, ...]
    people: tuple[str, ...]


class Able(Struct, frozen=True):
    """Somebody who can, or who could with a second factor and two approvals: through which role, or what forbids it."""

    principal: str
    name: str
    kind: str
    allowed: bool
    through: tuple[str, ...]
    forbids: tuple[str, ...]


class WhoView(Struct, frozen=True):
    """The question, and whom a role permits it; those whom a condition stops stand apart.

    Attributes:
        others: How many are permitted it by no role.
        count: How many can, in all parts of the list.
        next: Where the next part begins.
    """

    asked: Who
    able: tuple[Able, ...]
    stopped: tuple[Able, ...]
    others: int
    actions: tuple[str, ...]
    count: int
    next: str


def explain_why(call: Call, asked: Why) -> WhyView:
    """Say why somebody may or may not do an action. About oneself anybody may ask.

    Raises:
        InvalidInput: No such principal, action or resource.
        NotPermitted: Asking about another needs ``policy:read``.
    """
    answer = None
    if asked.action:
        ref = _resource(call, asked.resource)
        me = call.session.principal
        who = None if not asked.who or asked.who in {me, call.names([me]).get(me)} else asked.who
        found = explain_access(call.workspace, asked.action, ref, who=who)
        answer = _because(call, found)
    people: tuple[str, ...] = ()
    if call.may("policy:read"):
        with call.workspace.tables.read() as connection:
            people = first_names(connection, MOST)
    return WhyView(asked, answer, _actions(), people)


def find_who(call: Call, asked: Who) -> WhoView:
    """Say who can do an action, in the best situation: with a second factor, two approvals and no part in making it.

    Raises:
        InvalidInput: No such action or resource.
    """
    ref, people = _resource(call, asked.resource), call.workspace.people
    found, shown, after, others = dict[str, _Through](), tuple[Facts, ...](), "", 0
    if asked.action:
        glasses = people.glasses.open_now()
        ask = _Asker(people.authority.policies(), asked.action, people.resource_facts(ref), team=people.team)
        with call.workspace.tables.read() as connection:
            crowd = read_crowd(connection, call.now_ms, ask.likeness)
            found = ask.everybody(crowd, glasses)
            ids, after = take(tuple(found), str, Paged(asked.after, asked.limit))
            shown = facts_of(connection, ids, call.now_ms)
        others = len(crowd.group_of) - len(found)
    rows = [_able(facts, found[facts.principal.id]) for facts in shown]
    return WhoView(
        asked, tuple(row for row in rows if row.allowed), tuple(row for row in rows if not row.allowed), others,
        _actions(), sum(answer.allowed for answer in found.values()), after,
    )  # fmt: skip


class _Through(NamedTuple):
    """Whether somebody can, through which policies, and which forbid it."""

    allowed: bool
    through: tuple[str, ...]
    forbids: tuple[str, ...]


class _Asker:
    """Asks who can, once for all whom the policies cannot tell apart."""

    def __init__(self, policies: ActivePolicies, action: str, resource: ResourceFacts, *, team: bool) -> None:
        self.likeness = Likeness(policies)
        self._policies, self._action, self._resource, self._team = policies, action, resource, team
        self._known: dict[Hashable, _Through] = {}

    def everybody(self, crowd: Crowd, glasses: Mapping[str, str]) -> dict[str, _Through]:
        """Return the answers about those whom a policy permits it, by their ids."""
        answers, found = dict[tuple[int, bool], _Through](), dict[str, _Through]()
        for key, group in crowd.group_of.items():
            one = group, key in glasses
            if one not in answers:
                answers[one] = self._ask(crowd.groups[group], glasses.get(key, ""))
            if answers[one].allowed or answers[one].through:
                found[key] = answers[one]
        return found

    def _ask(self, facts: Facts, glass: str) -> _Through:
        alike = bool(glass), self.likeness.of(facts, self._resource)
        if alike not in self._known:
            context = Context(mfa=True, team=self._team, glass=glass, approvals=NEEDED)
            told = explain(facts, self._action, self._resource, context, self._policies)
            self._known[alike] = _Through(
                told.decision.allowed, *(
                    tuple(answer.policy for answer in answers if answer.holds)
                    for answers in (told.permits, told.forbids)
                ),
            )  # fmt: skip
        return self._known[alike]


def _able(facts: Facts, answer: _Through) -> Able:
    one = facts.principal
    return Able(one.id, one.display or one.id, one.kind, *answer)


def _because(call: Call, found: Explanation) -> Because:
    names = call.names(one.grant.granted_by for one in found.permits if one.grant is not None)
    answers = [
        Answer(
            one.policy, one.effect, one.holds, "cannot be asked" if one.failed else one.fact,
            f"granted by {names.get(one.grant.granted_by, one.grant.granted_by)}" if one.grant is not None else "",
        )
        for one in (*found.permits, *found.forbids)
    ]  # fmt: skip
    principal = found.facts.principal
    return Because(
        principal.id, principal.display or principal.id, found.decision.allowed, tuple(answers), found.next_step
    )


def _resource(call: Call, text: str) -> ArtifactRef:
    if text == "workspace":
        return workspace_ref(call.workspace)
    kind, _, rest = text.partition(":")
    name, at, digest = rest.rpartition("@")
    if kind not in _KINDS or not at:
        raise InvalidInput("resource: expected workspace, or for example model:NAME@sha256:HEX")
    return ArtifactRef(kind, name, Digest.parse(digest))


def _actions() -> tuple[str, ...]:
    return tuple(sorted(default_policies().actions))
