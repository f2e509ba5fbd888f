"""Permission: who somebody is (a registered key) and what they may do (Cedar policies over facts).

``decide`` is a pure function of facts and policies, and an act is allowed only when Cedar says so without any error.
:class:`Authority` decides for a node: it confirms the policies in force again and again. Nothing here writes to the
log: the workspace records what was decided. Tokens (:mod:`~stanch.access.token`), the code flow
(:mod:`~stanch.access.oidc`), client certificates (:mod:`~stanch.access.mtls`), browser sessions
(:mod:`~stanch.access.sessions`) and the one way in for programs (:mod:`~stanch.access.authenticator`) are imported from
their modules.

Example:
    >>> directory = Directory(tables, origin="example.com/stanch")                         # doctest: +SKIP
    >>> login = sign_session(key, directory.origin, directory.challenge(), now_ms)         # doctest: +SKIP
    >>> facts = directory.facts(directory.session(login))                                  # doctest: +SKIP
    >>> decide(facts, "data:add", WORKSPACE, Context(team=False), default_policies()).require()  # doctest: +SKIP
"""

from stanch.access.apikey import ApiKeyOrder, ApiKeyRecord, ApiKeys
from stanch.access.approval import Approval, Approvals, ApprovalStatement, sign_approval
from stanch.access.authority import Authority
from stanch.access.decision import Decision, decide
from stanch.access.directory import Directory
from stanch.access.explain import Explanation, PolicyAnswer, explain
from stanch.access.facts import WORKSPACE, WORKSPACE_SCOPE, Context, Facts, Grant, ResourceFacts
from stanch.access.glass import Glass, Glasses
from stanch.access.policy import ActivePolicies, Policy, default_policies, parse_policies
from stanch.access.principal import Principal, new_principal_id
from stanch.access.roles import ROLES
from stanch.access.session import LocalLogin, Session, sign_session
from stanch.access.versions import PolicyChange, PolicyVersion, PolicyVersions

__all__ = [
    "ROLES",
    "WORKSPACE",
    "WORKSPACE_SCOPE",
    "ActivePolicies",
    "ApiKeyOrder",
    "ApiKeyRecord",
    "ApiKeys",
    "Approval",
    "ApprovalStatement",
    "Approvals",
    "Authority",
    "Context",
    "Decision",
    "Directory",
    "Explanation",
    "Facts",
    "Glass",
    "Glasses",
    "Grant",
    "LocalLogin",
    "Policy",
    "PolicyAnswer",
    "PolicyChange",
    "PolicyVersion",
    "PolicyVersions",
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
