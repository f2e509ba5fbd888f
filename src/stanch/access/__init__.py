"""Permission: who somebody is (a registered key) and what they may do (Cedar policies over facts).

``decide`` is a pure function; everything it uses is loaded afresh by the caller, and an act is allowed only when Cedar
says so without any error. Nothing here writes to the log: the workspace records what was decided.

Example:
    >>> directory = Directory(tables, origin="example.com/stanch")                         # doctest: +SKIP
    >>> login = sign_session(key, directory.origin, directory.challenge(), now_ms)         # doctest: +SKIP
    >>> facts = directory.facts(directory.session(login))                                  # doctest: +SKIP
    >>> decide(facts, "data:add", WORKSPACE, Context(team=False), default_policies()).require()  # doctest: +SKIP
"""

from stanch.access.approval import Approval, Approvals, ApprovalStatement, sign_approval
from stanch.access.decision import Decision, decide
from stanch.access.directory import Directory
from stanch.access.explain import Explanation, PolicyAnswer, explain
from stanch.access.facts import WORKSPACE, WORKSPACE_SCOPE, Context, Facts, Grant, ResourceFacts
from stanch.access.policy import ActivePolicies, Policy, default_policies, parse_policies
from stanch.access.principal import Principal, new_principal_id
from stanch.access.roles import ROLES
from stanch.access.session import LocalLogin, Session, sign_session

__all__ = [
    "ROLES",
    "WORKSPACE",
    "WORKSPACE_SCOPE",
    "ActivePolicies",
    "Approval",
    "ApprovalStatement",
    "Approvals",
    "Context",
    "Decision",
    "Directory",
    "Explanation",
    "Facts",
    "Grant",
    "LocalLogin",
    "Policy",
    "PolicyAnswer",
    "Principal",
    "ResourceFacts",
    "Session",
    "decide",
    "default_policies",
    "explain",
    "new_principal_id",
    "parse_policies",
    "sign_approval",
    "sign_session",
]
