"""Exposure of secrets: how far up a secret stands among all that it could have been.

Every tested secret is ranked among uniform candidates of the same form after the same words (after Carlini et al.
2019, "The Secret Sharer", with the rank sampled). A secret is uniform and independent of a model that never saw it,
hence so is its rank: p = rank / (candidates + 1) is an exact p-value, and Fisher's method joins several.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import stats

from stanch.audit.features import Scorer
from stanch.audit.params import AuditParams
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
    ranked = [canary for canary in plan.canaries if free_positions(canary, plan.symbols)]
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
    return float(stats.chi2.sf(-2 * math.fsum(map(math.log, p_values)), 2 * len(p_values)))


def draw_candidates(canary: Canary, plan: CanaryPlan, count: int) -> list[str]:
    """Return uniform secrets of the canary's form, drawn by a key that follows from the plan's seed."""
    key = hmac_sha256(plan.seed, b"stanch/exposure/v1\0" + canary.id.encode())
    width = free_positions(canary, plan.symbols)
    raw = np.random.PCG64(int.from_bytes(key)).random_raw(count * width) % len(plan.symbols)
    rows = raw.reshape(count, width)
    return [_fill(canary.secret, plan.symbols, [plan.symbols[i] for i in row]) for row in rows]


def candidate_records(
    canary: Canary, symbols: str, secrets: Sequence[str], tokenizer: ChatTokenizer
) -> list[TokenRecord]:
    """Return the token records of the canary with each of ``secrets`` in its place, cut after the secret.

    Where each symbol is one token whatever stands beside it, ids are put together from a table; elsewhere each text is
    tokenised.
    """
    table = _symbol_tokens(canary, symbols, tokenizer)
    if table is not None:
        head, rows = table
        built = [_from_table(f"{i}", head, rows, secret) for i, secret in enumerate(secrets)]
        checked = [_cut(f"{i}", canary, secret, tokenizer) for i, secret in enumerate(secrets[:_CHECKED])]
        if built[: len(checked)] == checked:
            return built
    return [_cut(f"{i}", canary, secret, tokenizer) for i, secret in enumerate(secrets)]


def _expose(scorer: Scorer, canary: Canary, plan: CanaryPlan, params: AuditParams) -> SecretExposure:
    secrets = [canary.secret, *draw_candidates(canary, plan, params.exposure_candidates)]
    records = candidate_records(canary, plan.symbols, secrets, scorer.tokenizer)
    totals = {
        f.record_id: float(f.lp.sum(dtype=np.float64)) for f in scorer.features(records, decoding=params.decoding)
    }
    threshold = totals.pop("0") - _TIE
    rank = 1 + sum(total >= threshold for total in totals.values())
    count = params.exposure_candidates + 1
    return SecretExposure(
        id=canary.id,
        tier=canary.tier,
        member=canary.member,
        bits=math.log2(count / rank),
        exact=False,
        sampled_p=rank / count,
    )


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


def _symbol_tokens(
    canary: Canary, symbols: str, tokenizer: ChatTokenizer
) -> tuple[tuple[int, ...], list[dict[str, int]]] | None:
    """Return the ids before the secret and, for each character, the token of each symbol; None where there is none."""
    rows: list[dict[str, int]] = [{} for _ in canary.secret]
    heads = set()
    for symbol in symbols:
        filled = _fill(canary.secret, symbols, [symbol] * len(canary.secret))
        try:
            record = _cut("", canary, filled, tokenizer)
        except InvalidInput:  # the filled text may occur twice; then each candidate is tokenised
            return None
        start, end = record.span
        if end - start != len(filled):
            return None
        heads.add(record.ids[:start])
        for row, character, token in zip(rows, filled, record.ids[start:end], strict=True):
            row[character] = token
    return (heads.pop(), rows) if len(heads) == 1 else None


def _from_table(name: str, head: tuple[int, ...], rows: Sequence[dict[str, int]], secret: str) -> TokenRecord:
    ids = head + tuple(row[character] for row, character in zip(rows, secret, strict=True))
    return TokenRecord(name, ids, (len(head), len(ids)))
