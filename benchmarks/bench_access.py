"""Decisions and API keys against their limits and a peer (casbin), interleaved; CPU time of this process.

Writes benchmarks/results/access.json: medians and ranges of all rounds, in microseconds, and the ratios to casbin of
the same round. A busy machine stretches all of them alike, so the ratios hold where the figures do not.
"""

import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import casbin

from stanch.access import Context, Facts, Grant, Principal, ResourceFacts, decide, default_policies
from stanch.access.apikey import format_key, key_mac, parse_key
from stanch.access.policy import ActivePolicies, default_text, parse_policies
from stanch.crypto import hmac_prf

OUT = Path(__file__).parent / "results" / "access.json"
ROUNDS, CALLS = 40, 300
MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""
ACTION = "release:export"
"""What most policies of the shipped set can match."""
CONSUMERS = 0.95
RELEASE = ["release:create", "release:approve", "release:export", "release:revoke"]


def who(name: str, role: str) -> Facts:
    """Return a principal with a role."""
    principal = Principal(id=name, kind="user", issuer="i", subject=name, display="d", clearance=5, suspended=False)
    return Facts(principal, (Grant(f"g_{name}", name, role, "workspace", None, "p_b"),))


WHO = who("p_" + "a" * 26, "release_manager")
SITUATION = Context(team=True, mfa=True, approvals=2)


def peer(folder: Path, policies: int) -> Callable[[], object]:
    """Return a casbin decision over so many policies; the last one permits."""
    (folder / "model.conf").write_text(MODEL)
    rows = [f"p, role{number}, model, act{number}, allow" for number in range(policies)]
    (folder / "policy.csv").write_text("\n".join([*rows, f"g, anna, role{policies - 1}"]))
    enforcer = casbin.Enforcer(str(folder / "model.conf"), str(folder / "policy.csv"))
    if not enforcer.enforce("anna", "model", f"act{policies - 1}"):
        raise SystemExit("the peer decides otherwise than it should")
    return lambda: enforcer.enforce("anna", "model", f"act{policies - 1}")


def repeated(policies: ActivePolicies) -> Callable[[], object]:
    """Return a decision that was asked for before with the same facts, as a gateway asks; it is remembered."""
    model = ResourceFacts("Model", "support-bot@sha256:" + "9f" * 32, gate="passed")
    decide(WHO, ACTION, model, SITUATION, policies).require()
    return lambda: decide(WHO, ACTION, model, SITUATION, policies)


def known(policies: ActivePolicies) -> Callable[[], object]:
    """Return a decision about a principal and a model that were seen before, in a situation that was not."""
    model, numbers = ResourceFacts("Model", "support-bot@sha256:" + "9f" * 32, gate="passed"), count()

    def ask() -> object:
        return decide(WHO, ACTION, model, Context(team=True, mfa=True, approvals=next(numbers)), policies)

    return ask


def fresh(policies: ActivePolicies) -> Callable[[], object]:
    """Return a decision about facts that were never seen before."""
    numbers = count()

    def ask() -> object:
        model = ResourceFacts("Model", f"bot{next(numbers)}@sha256:" + "9f" * 32, gate="passed")
        return decide(WHO, ACTION, model, SITUATION, policies)

    return ask


def hundred_policies() -> ActivePolicies:
    """Return the shipped set and so many permits of one's own that 100 can match the action."""
    shipped = len(default_policies().matching(ACTION))
    head = f'permit (principal in Stanch::Role::"consumer", action == Stanch::Action::"{ACTION}", resource)'
    more = [f'@id("own-{number}") {head} when {{ context.approvals > {number} }};' for number in range(100 - shipped)]
    return parse_policies("\n".join([default_text(), *more]))


def traffic(policies: ActivePolicies) -> Callable[[], object]:
    """Return decisions as a gateway and a team make them, from a cold start.

    19 of 20 are of 200 consumers of three models each, whose situation never changes; the others are of 20 release
    managers over 50 models, where the approvals grow. The first of them ask most often (Zipf, exponent 1).
    """
    draw = random.Random(1)  # noqa: S311 - a reproducible workload
    people = [who(f"p_{number:026d}", "consumer") for number in range(200)]
    managers = [who(f"p_m{number:025d}", "release_manager") for number in range(20)]
    models = [ResourceFacts("Model", f"bot{number}@sha256:" + "9f" * 32, gate="passed") for number in range(50)]

    def rank(count: int) -> int:
        return draw.choices(range(count), [1 / (place + 1) for place in range(count)])[0]

    asked: list[tuple[Facts, str, ResourceFacts, Context]] = []
    for _ in range(ROUNDS * CALLS):
        if draw.random() < CONSUMERS:
            person = rank(200)
            asked.append((people[person], "model:infer", models[(person + rank(3)) % 50], Context(team=True)))
        else:
            situation = Context(team=True, mfa=True, involved=draw.randrange(5) == 0, approvals=draw.randrange(4))
            asked.append((managers[rank(20)], draw.choice(RELEASE), models[rank(50)], situation))
    following = iter(asked)
    return lambda: decide(*next(following), policies)


def api_key() -> Callable[[], object]:
    """Return the check of an API key's text and MAC, without the row's look-up."""
    pepper, text = hmac_prf(bytes(32)), format_key(bytes(range(10)), bytes(range(32)))
    return lambda: key_mac(pepper, *parse_key(text))


def microseconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - start) / CALLS * 1e6


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    """Measure and write."""
    logging.disable(logging.CRITICAL)
    hundred = hundred_policies()
    with tempfile.TemporaryDirectory() as name:
        cases = {
            "casbin_6_policies": peer(Path(name), 6),
            "casbin_100_policies": peer(Path(name), 100),
            "decision_shipped_set_in_traffic": traffic(default_policies()),
            "decision_shipped_set_repeated": repeated(default_policies()),
            "decision_shipped_set_new_situation": known(default_policies()),
            "decision_shipped_set_new_facts": fresh(default_policies()),
            "decision_100_policies": known(hundred),
            "api_key_check": api_key(),
        }
        found: dict[str, list[float]] = {label: [] for label in cases}
        for _ in range(ROUNDS):
            for label, call in cases.items():
                found[label].append(microseconds(call))
    pairs = {
        "decision_over_casbin_6_policies": ("decision_shipped_set_new_situation", "casbin_6_policies"),
        "decision_over_casbin_100_policies": ("decision_100_policies", "casbin_100_policies"),
    }
    ratios = {label: [a / b for a, b in zip(found[x], found[y], strict=True)] for label, (x, y) in pairs.items()}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "action": ACTION,
        "policies_that_can_match": len(default_policies().matching(ACTION)),
        "mean_in_traffic_from_a_cold_start": statistics.mean(found["decision_shipped_set_in_traffic"]),
        "microseconds_of_cpu": {label: summary(values) for label, values in found.items()},
        "ratios": {label: summary(values) for label, values in ratios.items()},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for part in ("microseconds_of_cpu", "ratios"):
        for label, value in result[part].items():
            print(f"{label:<44} {value['median']:8.3g} [{value['low']:.3g}, {value['high']:.3g}]")


if __name__ == "__main__":
    main()
