"""Exposure of secrets: how far up a secret stands among all that it could have been.

Every tested secret is ranked among uniform candidates of the same form after the same words (after Carlini et al.
2019, "The Secret Sharer", with the rank sampled). A secret is uniform and independent of a model that never saw it,
hence so is its rank: p = rank / (candidates + 1) is an exact p-value, and Fisher's method joins several. A secret that
the model knows well is ranked among all strings, exactly, so that its bits are not limited by the sample.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy

from stanch.audit.features import Scorer
from stanch.audit.params import AuditParams
from stanch.audit.prefix_tree import exact_rank, search_bound
from stanch.audit.sections import Exposure, ExposureTier, SecretExposure
from stanch.crypto import hmac_sha256
from stanch.data import Canary, CanaryPlan, ChatTokenizer, TokenRecord, tokenise_canary
from stanch.errors import InvalidInput
from stanch.terms import SILENT, Progress

CONTROL_P: Final = 0.001
"""Below this p the secrets that were held back stand out too, so the test itself is broken."""

# Rounding counts against the model: a candidate this close to the secret counts as likelier.
_TIE = 1e-4
_CHECKED = 8


def measure_exposure(
    scorer: Scorer, plan: CanaryPlan, params: AuditParams, *, progress: Progress = SILENT
) -> Exposure | None:
    """Rank the first ``exposure_secrets`` secrets put in, and as many held back; None if the plan has none to rank.

    The order of a plan does not depend on its coins, so which secrets are tested does not either.
    """
    ranked = [c for c in plan.canaries if c.kind == "secret" and free_positions(c, plan.symbols)]
    inside = [canary for canary in ranked if canary.member][: params.exposure_secrets]
    outside = [canary for canary in ranked if not canary.member][: params.exposure_secrets]
    if not inside:
        return None
    found: list[SecretExposure] = []
    for canary in (*inside, *outside):
        found.append(_expose(scorer, canary, plan, params))
        progress("exposure", len(found), len(inside) + len(outside))
    by_side = [[s.sampled_p for s in found if s.member == side] for side in (True, False)]
    return Exposure(
        candidates=params.exposure_candidates,
        per_tier=_summarise(found, {c.tier: space_bits(c, plan.symbols) for c in inside}),
        secrets=tuple(found),
        fisher_in=fisher(by_side[0]),
        fisher_out=fisher(by_side[1]) if by_side[1] else None,
    )


def free_positions(canary: Canary, symbols: str) -> int:
    """Return how many characters of the secret were drawn from ``symbols``."""
    return sum(character in symbols for character in canary.secret)


def space_bits(canary: Canary, symbols: str) -> float:
    """Return the bits of entropy that the secret was drawn with."""
    return free_positions(canary, symbols) * math.log2(len(symbols))


def fisher(p_values: Sequence[float]) -> float:
    """Return Fisher's combined p-value: ``-2 sum ln p`` against chi-square with 2n degrees of freedom."""
    return float(scipy.stats.chi2.sf(-2 * math.fsum(map(math.log, p_values)), 2 * len(p_values)))


def draw_candidates(canary: Canary, plan: CanaryPlan, count: int) -> list[str]:
    """Return uniform secrets of the canary's form, drawn by a key that follows from the plan's seed."""
    key = hmac_sha256(plan.seed, b"stanch/exposure/v1\0" + canary.id.encode())
    width = free_positions(canary, plan.symbols)
    raw = np.random.PCG64(int.from_bytes(key)).random_raw(count * width) % len(plan.symbols)
    rows = raw.reshape(count, width)
    return [_fill(canary.secret, plan.symbols, [plan.symbols[i] for i in row]) for row in rows]


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """Where each symbol is one token whatever stands beside it: ids before the secret, and each position's tokens."""

    head: tuple[int, ...]
    rows: tuple[Mapping[str, int], ...]

    def record(self, name: str, secret: str) -> TokenRecord:
        """Return the token record that ends with ``secret``."""
        ids = self.head + tuple(row[character] for row, character in zip(self.rows, secret, strict=True))
        return TokenRecord(name, ids, (len(self.head), len(ids)))


def candidate_records(
    canary: Canary, secrets: Sequence[str], tokenizer: ChatTokenizer, table: SymbolTable | None
) -> list[TokenRecord]:
    """Return the token records of the canary with each of ``secrets`` in its place, cut after the secret."""
    if table is None:
        return [_cut(f"{i}", canary, secret, tokenizer) for i, secret in enumerate(secrets)]
    return [table.record(f"{i}", secret) for i, secret in enumerate(secrets)]


def symbol_table(canary: Canary, symbols: str, secrets: Sequence[str], tokenizer: ChatTokenizer) -> SymbolTable | None:
    """Return the canary's table of symbols, checked on the first ``secrets``; None if symbols merge into tokens."""
    rows: list[dict[str, int]] = [{} for _ in canary.secret]
    heads = set()
    for symbol in symbols:
        filled = _fill(canary.secret, symbols, [symbol] * len(canary.secret))
        try:
            record = _cut("", canary, filled, tokenizer)
        except InvalidInput:  # the filled text may stand twice in the answer
            return None
        start, end = record.span
        if end - start != len(filled):
            return None
        heads.add(record.ids[:start])
        for row, character, token in zip(rows, filled, record.ids[start:end], strict=True):
            row[character] = token
    if len(heads) != 1:
        return None
    table = SymbolTable(heads.pop(), tuple(rows))
    checked = all(table.record("", text) == _cut("", canary, text, tokenizer) for text in secrets[:_CHECKED])
    return table if checked else None


def _expose(scorer: Scorer, canary: Canary, plan: CanaryPlan, params: AuditParams) -> SecretExposure:
    secrets = [canary.secret, *draw_candidates(canary, plan, params.exposure_candidates)]
    table = symbol_table(canary, plan.symbols, secrets, scorer.tokenizer)
    records = candidate_records(canary, secrets, scorer.tokenizer, table)
    totals = {
        f.record_id: float(f.lp.sum(dtype=np.float64)) for f in scorer.features(records, decoding=params.decoding)
    }
    log_p = totals.pop("0")
    rank = 1 + sum(total >= log_p - _TIE for total in totals.values())
    count = params.exposure_candidates + 1
    exact = None
    if table is not None and scorer.white_box and search_bound(log_p, len(canary.secret)) <= params.tree_budget:
        exact = _search(scorer, table, records[0])
    return SecretExposure(
        id=canary.id,
        tier=canary.tier,
        member=canary.member,
        bits=math.log2(count / rank) if exact is None else space_bits(canary, plan.symbols) - math.log2(exact),
        exact=exact is not None,
        sampled_p=rank / count,
    )


def _search(scorer: Scorer, table: SymbolTable, secret: TokenRecord) -> int:
    """Return the secret's rank among all strings of its form."""
    choices = [np.array(sorted(set(row.values())), dtype=np.int64) for row in table.rows]
    own = np.array(secret.ids[len(table.head) :], dtype=np.int64)
    return exact_rank(scorer.continuations(table.head), choices, own, tie=_TIE)


def _summarise(found: Sequence[SecretExposure], spaces: dict[str, float]) -> tuple[ExposureTier, ...]:
    rows = []
    for tier, bits_possible in spaces.items():
        bits = [s.bits for s in found if s.tier == tier and s.member]
        rows.append(
            ExposureTier(
                tier=tier,
                n_in=len(bits),
                n_out=sum(s.tier == tier and not s.member for s in found),
                median_bits=float(np.median(bits)),
                max_bits=max(bits),
                space_bits=bits_possible,
            )
        )
    return tuple(rows)


def _fill(form: str, symbols: str, drawn: Sequence[str]) -> str:
    supply = iter(drawn)
    return "".join(next(supply) if character in symbols else character for character in form)


def _with_secret(canary: Canary, secret: str) -> Canary:
    last = canary.messages[-1]
    said = dataclasses.replace(last, content=last.content.replace(canary.secret, secret, 1))
    return dataclasses.replace(canary, messages=(*canary.messages[:-1], said), secret=secret)


def _cut(name: str, canary: Canary, secret: str, tokenizer: ChatTokenizer) -> TokenRecord:
    record = tokenise_canary(_with_secret(canary, secret), tokenizer)
    return TokenRecord(name, record.ids[: record.span[1]], record.span)
