"""A policy as bytes, for the processes that share a scan; its keys and literals travel apart, or not at all."""

import hmac
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import msgspec
import orjson

from stanch.crypto import canonical_json, hmac_sha256, parse_json
from stanch.crypto.frame import frame
from stanch.errors import InvalidInput
from stanch.scan.hold import CapitalsHold, HeadedHold, LiteralHold, RunHold, SwallowHold
from stanch.scan.policy import Operator, Policy
from stanch.scan.recogniser import Recogniser
from stanch.terms import Severity

_HOLDS = {kind.__name__: kind for kind in (CapitalsHold, HeadedHold, LiteralHold, RunHold, SwallowHold)}
_SECRET = frozenset({"report_key", "pseudonym_key", "literals"})
_OPEN = frozenset({"recognisers", "kinds", "without", "min_score", "operators", "literal_severity", "decode_depth"})
_MAX_SIZE = 64 << 20


@dataclass(frozen=True, slots=True)
class PolicySecrets:
    """What of a policy is secret."""

    report_key: bytes = field(repr=False)
    pseudonym_key: bytes | None = field(default=None, repr=False)
    literals: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, policy: Policy) -> "PolicySecrets":
        """Take the secrets of a policy."""
        return cls(policy.report_key, policy.pseudonym_key, policy.literals)

    def check_value(self) -> bytes:
        """Return what tells without the secrets whether two holders have the same ones."""
        parts = (b"stanch/policy-secrets/v1", self.pseudonym_key or b"", *(text.encode() for text in self.literals))
        return hmac_sha256(self.report_key, frame(*parts))


def special_fields(policy: Policy) -> list[str]:
    """Return the names of what the policy uses beside rules, kinds, scores, operators and literals."""
    names = []
    for entry in fields(policy):
        if entry.name in _SECRET | _OPEN:
            continue  # the default of the rules is costly: it reads the pack
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if getattr(policy, entry.name) != default:
            names.append(entry.name)
    return names


def policy_to_bytes(policy: Policy) -> bytes:
    """Return everything of ``policy`` but its secrets.

    Raises:
        InvalidInput: The policy uses a part that has no such form; nothing is left out silently.
    """
    for name in special_fields(policy):
        raise InvalidInput(f"a policy with {name} cannot be shared among processes", next_step="scan with one process")
    facts: dict[str, Any] = {
        "recognisers": [_recogniser_to_json(recogniser) for recogniser in policy.recognisers],
        "kinds": None if policy.kinds is None else sorted(policy.kinds),
        "without": sorted(policy.without),
        "min_score": policy.min_score,
        "operators": {kind: operator.value for kind, operator in policy.operators.items()},
        "literal_severity": policy.literal_severity.value,
        "decode_depth": policy.decode_depth,
        "digest": str(policy.digest()),
        "secrets": PolicySecrets.of(policy).check_value().hex(),
    }
    return canonical_json(facts)


def policy_from_bytes(data: bytes, secrets: PolicySecrets) -> Policy:
    """Return the policy of these bytes and secrets.

    Raises:
        InvalidInput: The bytes are no policy, or the secrets are not those of the policy that was sent.
    """
    facts: Any = parse_json(data, what="policy", max_bytes=_MAX_SIZE)
    try:
        policy = Policy(
            recognisers=tuple(_recogniser_from_json(recogniser) for recogniser in facts["recognisers"]),
            kinds=None if facts["kinds"] is None else frozenset(facts["kinds"]),
            without=frozenset(facts["without"]),
            min_score=float(facts["min_score"]),
            operators={kind: Operator(value) for kind, value in facts["operators"].items()},
            literals=secrets.literals,
            literal_severity=Severity(facts["literal_severity"]),
            decode_depth=facts["decode_depth"],
            pseudonym_key=secrets.pseudonym_key,
            report_key=secrets.report_key,
        )
        sent, digest = bytes.fromhex(facts["secrets"]), facts["digest"]
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError):
        raise InvalidInput("policy: expected the bytes of a policy") from None
    if str(policy.digest()) != digest or not hmac.compare_digest(sent, secrets.check_value()):
        raise InvalidInput(
            "policy: the keys or rules here are not those of the policy that was sent",
            why="results of two policies in one report would be worthless",
            next_step="run the same release with the same keys everywhere",
        )
    return policy


def _recogniser_to_json(recogniser: Recogniser) -> dict[str, Any]:
    hold = {"name": type(recogniser.hold).__name__, "fields": msgspec.to_builtins(recogniser.hold)}
    values: dict[str, Any] = orjson.loads(msgspec.json.encode({"recogniser": recogniser}))["recogniser"]
    return values | {"hold": hold}


def _recogniser_from_json(values: dict[str, Any]) -> Recogniser:
    hold = values["hold"]
    restored: dict[str, Any] = {"hold": msgspec.convert(hold["fields"], _HOLDS[hold["name"]])}
    for entry in fields(Recogniser):
        if entry.name != "hold":
            restored[entry.name] = msgspec.convert(values[entry.name], entry.type)
    return Recogniser(**restored)
