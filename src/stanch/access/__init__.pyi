from .apikey import ApiKeyOrder, ApiKeyRecord, ApiKeys
from .approval import Approval, Approvals, ApprovalStatement, sign_approval
from .authority import Authority
from .decision import Decision, decide
from .directory import Directory
from .explain import Explanation, PolicyAnswer, explain
from .facts import WORKSPACE, WORKSPACE_SCOPE, Context, Facts, Grant, ResourceFacts
from .glass import Glass, Glasses
from .policy import ActivePolicies, Policy, default_policies, parse_policies
from .principal import Principal, new_principal_id
from .roles import ROLES
from .session import LocalLogin, Session, sign_session
from .versions import PolicyChange, PolicyVersion, PolicyVersions

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
