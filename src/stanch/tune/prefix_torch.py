"""The decoder layers below the lowest adapter: frozen, so each record goes through them once, not in every step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stanch.data import TokenRecord

_CACHE_BYTES = 512 << 20


class FrozenPrefix:
    """Hidden states at the first adapted layer, kept while they fit; copies of a record share them.

    A record goes through alone: its states depend on its tokens only, bit for bit.
    """

    def __init__(self, body: Any, first: int, *, limit: int = _CACHE_BYTES) -> None:  # noqa: ANN401 - transformers ships no types
        self._body = body
        self._lower = list(body.layers)[:first]
        self._upper = list(body.layers)[first:]
        self._room = limit
        self._states: dict[tuple[int, ...], Tensor] = {}

    @classmethod
    def of(cls, body: Any, first: int, probe: Tensor) -> "FrozenPrefix | None":  # noqa: ANN401 - same
        """Return the prefix below layer ``first``, or None where there is none or the model does not split there."""
        layers = getattr(body, "layers", None)
        kinds = set(getattr(body.config, "layer_types", None) or ["one"])
        if first == 0 or not isinstance(layers, nn.ModuleList) or not hasattr(body, "norm") or len(kinds) > 1:
            return None
        prefix = cls(body, first)
        with torch.no_grad():
            whole = body(input_ids=probe, use_cache=False).last_hidden_state
            split = prefix._run(prefix._upper, inputs_embeds=prefix._lower_states(probe))
        return prefix if torch.equal(whole, split) else None

    def finish(self, records: Sequence[TokenRecord], width: int) -> Tensor:
        """Return (records, width, d): the body's output, padded on the right."""
        states = [self._states_of(record) for record in records]
        start = states[0].new_zeros(len(records), width, states[0].shape[-1])
        for row, state in zip(start, states, strict=True):
            row[: len(state)] = state
        return self._run(self._upper, inputs_embeds=start)

    def _states_of(self, record: TokenRecord) -> Tensor:
        found = self._states.get(record.ids)
        if found is None:
            with torch.no_grad():
                found = self._lower_states(torch.tensor([record.ids], device=self._body.device))[0]
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._states[record.ids] = found
        return found

    def _lower_states(self, ids: Tensor) -> Tensor:
        norm = self._body.norm
        self._body.norm = nn.Identity()
        try:
            return self._run(self._lower, input_ids=ids)
        finally:
            self._body.norm = norm

    def _run(self, layers: list[nn.Module], **inputs: Tensor) -> Tensor:
        with _only(self._body, layers):
            hidden: Tensor = self._body(**inputs, use_cache=False).last_hidden_state
        return hidden


@contextmanager
def _only(body: Any, layers: list[nn.Module]) -> Iterator[None]:  # noqa: ANN401 - transformers ships no types
    """Let ``body`` run some of its layers only."""
    kept = body.layers
    body.layers = nn.ModuleList(layers)
    try:
        yield
    finally:
        body.layers = kept
