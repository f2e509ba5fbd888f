"""The access explorer: why somebody may or may not do something, and who can."""

from typing import Annotated

from msgspec import Meta, Struct

from stanch.access import Explanation, default_policies, explain
from stanch.console.desk import Call
from stanch.console.pages.log import Word
from stanch.errors import InvalidInput
from stanch.terms import ArtifactRef, Digest
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
    """Which action, and on what."""

    action: Action = ""
    resource: Resource = "workspace"


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
    """The question, and everybody whom a role permits it; those whom a condition stops stand apart."""

    asked: Who
    able: tuple[Able, ...]
    stopped: tuple[Able, ...]
    others: int
    actions: tuple[str, ...]


def explain_why(call: Call, asked: Why) -> WhyView:
    """Say why somebody may or may not do an action. About oneself anybody may ask.

    Raises:
        InvalidInput: No such principal, action or resource.
        NotPermitted: Asking about another needs ``policy:read``.
    """
    names, answer = call.names(), None
    if asked.action:
        ref = _resource(call, asked.resource)
        me = call.session.principal
        who = None if not asked.who or asked.who in {me, names.get(me)} else asked.who
        found = explain_access(call.workspace, asked.action, ref, who=who)
        answer = _because(found, names)
    people = tuple(sorted(names.values())) if call.may("policy:read") else ()
    return WhyView(asked, answer, _actions(), people)


def find_who(call: Call, asked: Who) -> WhoView:
    """Say who can do an action, in the best situation: with a second factor, two approvals and no part in making it.

    Raises:
        InvalidInput: No such action or resource.
    """
    able, stopped, others = [], [], 0
    people = call.workspace.people
    principals = people.directory.principals() if asked.action else ()
    ref = _resource(call, asked.resource)
    policies = people.authority.policies()
    for principal in principals:
        context = people.context_of(principal.id, mfa=True, involved=False, approvals=2)
        found = explain(
            people.directory.facts_of(principal.id), asked.action, people.resource_facts(ref), context, policies
        )
        through = tuple(answer.policy for answer in found.permits if answer.holds)
        forbids = tuple(answer.policy for answer in found.forbids if answer.holds)
        name = principal.display or principal.id
        row = Able(principal.id, name, principal.kind, found.decision.allowed, through, forbids)
        if found.decision.allowed:
            able.append(row)
        elif through:
            stopped.append(row)
        else:
            others += 1
    return WhoView(asked, tuple(able), tuple(stopped), others, _actions())


def _because(found: Explanation, names: dict[str, str]) -> Because:
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
