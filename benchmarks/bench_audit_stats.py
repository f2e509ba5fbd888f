"""The audit's statistics against their stated error rates, and against other tools on the same scores; not a timing.

Run with::

    python benchmarks/bench_audit_stats.py [PYTHON]

PYTHON is the interpreter of an environment with ``jax-privacy`` and ``memaudit`` 0.2.0; ``peers_audit_stats.py`` runs
there, on a file of the scores. Without it the other tools' figures of an earlier run stay if the scores are the same.
Everything is seeded. Writes ``benchmarks/results/audit-statistics.json``, and its tables into
``docs/guides/audit-statistics.md``; a test compares the two.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from stanch.audit.multiplicity import benjamini_hochberg, conformal_p_values
from stanch.audit.one_run import dp_claim_p_value
from stanch.audit.params import ORDERS, TESTED_SCORES, count_parts, count_sharers
from stanch.audit.power import critical_value
from stanch.audit.rates import Suppressed, auc, clopper_pearson, tnr_at_fnr, tpr_at_fpr
from stanch.audit.scan_test import ScanLaw, guess_correctness, guess_grid, scan_epsilon, shuffled
from stanch.audit.score_table import ScoreTable
from stanch.audit.table_audit import audit_scores
from stanch.terms import NeighboringRelation, PrivacyBudget, Verdict

OUT: Final = Path(__file__).parent / "results" / "audit-statistics.json"
PAGE: Final = Path(__file__).parents[1] / "docs" / "guides" / "audit-statistics.md"
BEGIN, END = "<!-- from audit-statistics.json -->", "<!-- end -->"
PEERS: Final = Path(__file__).parent / "peers_audit_stats.py"

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Scores = dict[str, tuple[FloatArray, BoolArray]]

ALPHA: Final = 0.05
NULL_COINS, NULL_RUNS = (100, 500, 1000), 1500
RESPONSE_EPSILONS, RESPONSE_COINS, RESPONSE_RUNS = (1, 3), 500, 2000
GAUSS, GAUSS_RUNS = ((1000, 2.0), (512, 1.0), (200, 0.5)), 100
CONTROLS, TPR_RUNS = (100, 200, 1000), 2000
COVERAGE, COVERAGE_RUNS = ((500, 0.0), (500, 1.5), (1000, 0.0), (1000, 1.5)), 2000
VERDICT_RUNS, DISCOVERY_RUNS, CLAIM_RUNS = 300, 3000, 2000


def main() -> None:
    """Simulate, ask the other tools, write the figures."""
    scores = make_scores()
    digest = digest_of(scores)
    figures: dict[str, Any] = {
        "schema": "stanch/audit-statistics/v1",
        "alpha": ALPHA,
        "scores": digest,
        "false_claims": {**null_claims(scores), **response_claims(scores)},
        "verdicts": null_verdicts(),
        "privacy_claims": true_claims(),
        "coverage": coverage(),
        "false_alarms_of_tpr": tpr_alarms(scores),
        "discoveries": discoveries(),
        "mean_bound": mean_bounds(scores),
    }
    earlier = json.loads(OUT.read_text()) if OUT.is_file() else {}
    if len(sys.argv) > 1:
        figures["peers"] = judge_peers(ask_peers(Path(sys.argv[1]), scores))
    elif earlier.get("scores") == digest:
        figures["peers"] = earlier["peers"]
    text = json.dumps(figures, indent=1) + "\n"
    OUT.write_text(text)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(figures)}{END}{rest.partition(END)[2]}")
    sys.stdout.write(text)


def rate(claims: int, runs: int) -> dict[str, float]:
    """Return how often something happened, with the two-sided 95 % Clopper-Pearson interval."""
    count = int(claims)
    found = clopper_pearson(count, runs)
    return {
        "count": count,
        "runs": runs,
        "rate": round(found.estimate, 4),
        "low": round(found.lower, 4),
        "high": round(found.upper, 4),
    }


def make_scores() -> Scores:
    """Return the scores that every tool is asked about: name of a setting -> scores and coins, one row a run."""
    made: Scores = {}
    for m in NULL_COINS:
        rng = np.random.default_rng((1, m))
        made[f"null/{m}"] = rng.normal(size=(NULL_RUNS, m)), rng.random((NULL_RUNS, m)) < 0.5
    for epsilon in RESPONSE_EPSILONS:
        rng = np.random.default_rng((2, epsilon))
        shape = RESPONSE_RUNS, RESPONSE_COINS
        coins = rng.random(shape) < 0.5
        answers = coins ^ (rng.random(shape) >= special.expit(epsilon))
        made[f"rr/{epsilon}"] = answers + rng.random(shape) / 2, coins  # the part of 1/2 breaks ties, blindly
    for m, shift in GAUSS:
        rng = np.random.default_rng((3, m))
        coins = rng.random((GAUSS_RUNS, m)) < 0.5
        made[f"gauss/{m}/{shift}"] = rng.normal(size=coins.shape) + shift * coins, coins
    for n in CONTROLS:
        rng = np.random.default_rng((4, n))
        made[f"tpr/{n}"] = rng.normal(size=(TPR_RUNS, 2 * n)), np.tile(np.arange(2 * n) < n, (TPR_RUNS, 1))
    return made


def digest_of(scores: Scores) -> str:
    """Return the SHA-256 of all scores and coins, in hex."""
    hasher = hashlib.sha256()
    for name, pair in sorted(scores.items()):
        for part in pair:
            hasher.update(name.encode())
            hasher.update(part.tobytes())
    return hasher.hexdigest()


ONE, THREE = count_parts(ORDERS), 3 * count_parts(ORDERS)
"""Into how many parts alpha is divided with one score, and with three."""
SHARERS = np.array([count_sharers(order, ORDERS) for order in ORDERS])


def limits_of(law: ScanLaw, parts: int) -> FloatArray:
    """Return the largest statistic that each order rejects at epsilon 0."""
    found = {sharers: critical_value(law, ALPHA / (parts * sharers)) for sharers in set(SHARERS.tolist())}
    return np.array([found[sharers] for sharers in SHARERS.tolist()])


def right_guesses(values: FloatArray, coins: BoolArray, run: int) -> npt.NDArray[np.int64]:
    """Return the right guesses of each order at the grid."""
    mixed, tossed = shuffled(values, coins, run)
    grid = guess_grid(coins.size)
    return np.array([np.cumsum(guess_correctness(mixed, tossed, order))[grid - 1] for order in ORDERS])


def null_claims(scores: Scores) -> dict[str, Any]:
    """Return how often scores that know nothing are called a leak: one score, and three that are correlated."""
    found = {}
    for m in NULL_COINS:
        values, coins = scores[f"null/{m}"]
        law = ScanLaw.of(tuple(guess_grid(m).tolist()))
        limits = {ONE: limits_of(law, ONE), THREE: np.tile(limits_of(law, THREE), 3)}
        rng = np.random.default_rng((5, m))
        one = three = uncorrected = 0
        for run in range(NULL_RUNS):
            right = right_guesses(values[run], coins[run], run)
            one += bool((law.statistics(right, 0.0) <= limits[ONE]).any())
            others = [right_guesses(values[run] + 0.5 * rng.normal(size=m), coins[run], run) for _ in range(2)]
            three += bool((law.statistics(np.concatenate([right, *others]), 0.0) <= limits[THREE]).any())
            uncorrected += best_guess_count(values[run], coins[run], 0.0)
        found[f"null/{m}"] = {
            "one_score": rate(one, NULL_RUNS),
            "three_scores": rate(three, NULL_RUNS),
            "best_guess_count": rate(uncorrected, NULL_RUNS),
        }
    return found


def response_claims(scores: Scores) -> dict[str, Any]:
    """Return how often the bound of randomised response, the worst mechanism, exceeds its true epsilon."""
    found = {}
    law = ScanLaw.of(tuple(guess_grid(RESPONSE_COINS).tolist()))
    for epsilon in RESPONSE_EPSILONS:
        values, coins = scores[f"rr/{epsilon}"]
        claims = uncorrected = 0
        p_of: dict[float, float] = {}
        for run in range(RESPONSE_RUNS):
            found_now = law.statistics(right_guesses(values[run], coins[run], run), epsilon)
            for statistic in {float(value) for value in found_now} - p_of.keys():
                p_of[statistic] = law.crossing_probability(statistic, epsilon)
            p = np.array([p_of[float(value)] for value in found_now])
            claims += bool(
                (p <= ALPHA / (ONE * SHARERS)).any()
            )  # a bound above epsilon needs this at the point epsilon
            uncorrected += best_guess_count(values[run], coins[run], epsilon)
        found[f"rr/{epsilon}"] = {
            "one_score": rate(claims, RESPONSE_RUNS),
            "best_guess_count": rate(uncorrected, RESPONSE_RUNS),
        }
    return found


def best_guess_count(values: FloatArray, coins: BoolArray, epsilon: float) -> bool:
    """Return whether the best of all guess counts, taken without paying for the choice, claims more than epsilon.

    The rule of the one-run example of ``ml_privacy_meter``, written anew.
    """
    right = np.cumsum(coins[np.argsort(-values)])
    counts = np.arange(1, coins.size + 1)
    return bool((stats.binom.sf(right - 1, counts, special.expit(epsilon)) <= ALPHA).any())


def null_verdicts() -> dict[str, float]:
    """Return how often a whole audit of scores that know nothing says LEAK PROVEN."""
    proven = 0
    for run in range(VERDICT_RUNS):
        rng = np.random.default_rng((6, run))
        common = rng.normal(size=512)
        table = ScoreTable(
            ids=tuple(f"c{i}" for i in range(512)),
            kinds=("secret",) * 512,
            tiers=("1",) * 512,
            member=rng.random(512) < 0.5,
            copies=np.ones(512, dtype=np.int64),
            scores={name: common + 0.5 * rng.normal(size=512) for name in TESTED_SCORES},
        )
        proven += audit_scores(table, coins=True, now=datetime(2026, 1, 1, tzinfo=UTC)).verdict is Verdict.LEAK_PROVEN
    return rate(proven, VERDICT_RUNS)


def true_claims() -> dict[str, float]:
    """Return how often a true claim of (1, 0.001) is contradicted at 5 %, by the mechanism that reaches it."""
    claim = PrivacyBudget(1.0, 1e-3, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    rng = np.random.default_rng(7)
    contradicted = 0
    for run in range(CLAIM_RUNS):
        coins = rng.random(500) < 0.5
        answers = coins ^ (rng.random(500) >= special.expit(1.0))
        told = rng.random(500) < claim.delta
        values = np.where(told, np.where(coins, 2.0, -1.0), answers.astype(float))
        contradicted += dp_claim_p_value(values, coins, claim, tie_seed=run) <= ALPHA
    return rate(contradicted, CLAIM_RUNS)


def coverage() -> dict[str, Any]:
    """Return how often the 95 % intervals of binormal scores hold the true value."""
    found = {}
    for n, shift in COVERAGE:
        rng = np.random.default_rng((8, n, int(10 * shift)))
        low_error = 1 - special.ndtr(special.ndtri(0.99) - shift)  # the same for both sides: symmetric
        measures: dict[str, tuple[Callable[..., Any], float]] = {
            "auc": (auc, float(special.ndtr(shift / np.sqrt(2)))),
            "tpr_at_1pct": (lambda v, c: tpr_at_fpr(v, c, 0.01), low_error),
            "tnr_at_1pct": (lambda v, c: tnr_at_fnr(v, c, 0.01), low_error),
        }
        held = dict.fromkeys(measures, 0)
        member = np.arange(2 * n) < n
        for _ in range(COVERAGE_RUNS):
            values = rng.normal(size=2 * n) + shift * member
            for name, (measure, truth) in measures.items():
                interval = measure(values, member)
                held[name] += interval.lower <= truth <= interval.upper
        found[f"{n}/{shift}"] = {name: rate(count, COVERAGE_RUNS) for name, count in held.items()}
    return found


def tpr_alarms(scores: Scores) -> dict[str, Any]:
    """Return how often the lower bound of members found at 1 % false alarms exceeds 1 % though nothing leaks."""
    found: dict[str, Any] = {}
    for n in CONTROLS:
        values, coins = scores[f"tpr/{n}"]
        first = tpr_at_fpr(values[0], coins[0], 0.01)
        if isinstance(first, Suppressed):
            found[f"tpr/{n}"] = {"suppressed": first.needs}
            continue
        alarms = sum(tpr_at_fpr(values[run], coins[run], 0.01).lower > 0.01 for run in range(TPR_RUNS))
        found[f"tpr/{n}"] = rate(int(alarms), TPR_RUNS)
    return found


def discoveries() -> dict[str, Any]:
    """Return the mean share of false names in the list of records: conformal p-values, Benjamini-Hochberg at 5 %."""
    rng = np.random.default_rng(9)
    shares, hits = [], []
    for _ in range(DISCOVERY_RUNS):
        calibration, members = rng.normal(size=500), rng.normal(size=100)
        members[:20] += 4  # 20 of 100 are really memorised
        named = benjamini_hochberg(conformal_p_values(members, calibration), ALPHA)
        shares.append(named[20:].sum() / max(named.sum(), 1))
        hits.append(named[:20].mean())
    return {
        "runs": DISCOVERY_RUNS,
        "false_share": round(float(np.mean(shares)), 4),
        "standard_error": round(float(np.std(shares) / np.sqrt(DISCOVERY_RUNS)), 4),
        "found_share": round(float(np.mean(hits)), 4),
    }


def mean_bounds(scores: Scores) -> dict[str, Any]:
    """Return the mean epsilon lower bound of normal scores, as a share of one score and of three."""
    found = {}
    for m, shift in GAUSS:
        values, coins = scores[f"gauss/{m}/{shift}"]
        bounds = {
            parts: [scan_epsilon(values[i], coins[i], splits=parts, tie_seed=i).lower for i in range(GAUSS_RUNS)]
            for parts in (ONE, THREE)
        }
        found[f"gauss/{m}/{shift}"] = {
            "one_score": round(float(np.mean(bounds[ONE])), 3),
            "three_scores": round(float(np.mean(bounds[THREE])), 3),
        }
    return found


def ask_peers(python: Path, scores: Scores) -> dict[str, Any]:
    """Return what the other tools say about the scores."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "scores.npz", Path(folder) / "answer.json"
        arrays = {
            f"{name}/{part}": pair[i] for name, pair in scores.items() for i, part in enumerate(("scores", "coins"))
        }
        np.savez(given, **arrays)
        subprocess.run([python, PEERS, given, answer], check=True)
        found: dict[str, Any] = json.loads(answer.read_text())
    return found


def judge_peers(found: dict[str, Any]) -> dict[str, Any]:
    """Return the other tools' false claims and mean bounds, from what they said run by run."""
    judged: dict[str, Any] = {}
    if "jax_privacy" in found:
        said = found["jax_privacy"]
        judged["jax_privacy"] = {
            "version": said["version"],
            "own_test": said["own_test"],
            "false_claims": {},
            "mean_bound": {},
        }
        for setting, by_strategy in said["bounds"].items():
            kind, *rest = setting.split("/")
            for strategy, bounds in by_strategy.items():
                if kind == "gauss":
                    place, value = "mean_bound", round(float(np.mean(bounds)), 3)
                else:
                    true = float(rest[0]) if kind == "rr" else 0.0
                    place, value = "false_claims", rate(sum(bound > true for bound in bounds), len(bounds))
                judged["jax_privacy"][place].setdefault(setting, {})[strategy] = value
    if "memaudit" in found:
        said = found["memaudit"]
        alarms = {name: rate(sum(low > 0.01 for low in lows), len(lows)) for name, lows in said["tpr_lower"].items()}
        judged["memaudit"] = {"version": said["version"], "false_alarms_of_tpr": alarms}
    return judged


def tables(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    peers = figures["peers"]
    jax, memaudit = peers["jax_privacy"], peers["memaudit"]
    claims = [
        [
            _setting(name),
            _rate(ours["one_score"]),
            _rate(ours.get("three_scores")),
            _rate(jax["false_claims"][name]["bonferroni"]),
            _rate(jax["false_claims"][name]["split"]),
            _rate(ours["best_guess_count"]),
        ]
        for name, ours in figures["false_claims"].items()
    ]
    bounds = [
        [
            _setting(name),
            *(f"{ours[kind]:.2f}" for kind in ("one_score", "three_scores")),
            *(f"{jax['mean_bound'][name][kind]:.2f}" for kind in ("bonferroni", "split", "multi_split")),
        ]
        for name, ours in figures["mean_bound"].items()
    ]
    alarms = [
        [
            name.partition("/")[2],
            f"suppressed: needs {ours['suppressed']} controls" if "suppressed" in ours else _rate(ours),
            _rate(memaudit["false_alarms_of_tpr"][name]),
        ]
        for name, ours in figures["false_alarms_of_tpr"].items()
    ]
    covered = [
        [name.replace("/", " + "), *(_rate(found[kind]) for kind in ("auc", "tpr_at_1pct", "tnr_at_1pct"))]
        for name, found in figures["coverage"].items()
    ]
    found = figures["discoveries"]
    rest = [
        ["LEAK PROVEN on scores that know nothing (whole audit, 512 coins)", _rate(figures["verdicts"]), "at most 5 %"],
        ["a true claim of (1, 0.001) contradicted at 5 %", _rate(figures["privacy_claims"]), "at most 5 %"],
        [
            "share of false names in the list of records",
            f"{found['false_share']:.1%} ± {found['standard_error']:.2%}",
            "at most 5 %",
        ],
    ]
    ours_one, ours_three = "stanch, one score", "stanch, three scores"
    one_run = f"jax_privacy {jax['version']}"
    return "\n".join(
        [
            _table(
                "False claims: the bound is above the true epsilon (nominal at most 5 %)",
                (
                    "setting",
                    ours_one,
                    ours_three,
                    f"{one_run}, Bonferroni",
                    f"{one_run}, split",
                    "best guess count, unpaid",
                ),
                claims,
            ),
            _table(
                "Mean epsilon lower bound at 95 % (more is better)",
                ("setting", ours_one, ours_three, f"{one_run}, Bonferroni", "split", "multi-split"),
                bounds,
            ),
            _table(
                "Members found at 1 % false alarms: lower bound above 1 % though nothing leaks (nominal 2.5 %)",
                ("controls", "stanch", f"memaudit {memaudit['version']}"),
                alarms,
            ),
            _table(
                "Coverage of the 95 % intervals",
                ("members + shift", "AUC", "TPR at 1 % FPR", "TNR at 1 % FNR"),
                covered,
            ),
            _table("The rest", ("what", "found", "stated"), rest),
        ]
    )


def _setting(name: str) -> str:
    kind, first, *rest = name.split("/")
    if kind == "null":
        return f"nothing leaks, {first} coins"
    if kind == "rr":
        return f"randomised response, epsilon {first}, {RESPONSE_COINS} coins"
    return f"normal scores, {first} coins, shift {rest[0]}"


def _rate(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['rate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def _table(title: str, header: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


if __name__ == "__main__":
    main()
