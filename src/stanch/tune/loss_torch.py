"""The loss of a record: the mean over its own labelled tokens, computed at labelled positions only.

``model.loss`` is never used: it is the mean over all labelled tokens of a batch, so that one record's gradient would be
scaled by the lengths of the others, and clipping would no longer bound what one record changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

_LEAST_ROWS, _LOGITS = 128, 1 << 21
"""Positions whose logits are formed at once: at least so many, and so many logits (8 MB) as stay in the cache."""

Collect = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """What turns hidden states into logits.

    Attributes:
        linear: The output layer.
        cap: Logits z become cap·tanh(z/cap), as in Gemma 2; None leaves them.
    """

    linear: nn.Linear
    cap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of each hidden state."""
        scores: Tensor = self.linear(hidden)
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap


class _HeadCrossEntropy(torch.autograd.Function):
    """Cross entropy of ``hidden @ weightᵀ + bias`` per position, holding all logits only where the head is trained.

    The loss of a position depends on its own hidden state alone, so its gradient is formed in the forward pass, while
    its logits are in the cache, and the backward pass only scales it.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,  # noqa: ANN401 - autograd's context
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
        collect: Collect | None,
    ) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        ctx.dtype = hidden.dtype
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        trained = any(ctx.needs_input_grad[1:3])
        gradient = torch.empty_like(hidden) if wanted else hidden
        upper = hidden.new_empty(len(targets), len(weight)) if trained else None
        size = max(_LEAST_ROWS, _LOGITS // len(weight))
        for start in range(0, len(targets), size):
            rows = slice(start, start + size)
            chosen = targets[rows, None]
            scores = F.linear(hidden[rows], weight, bias).float()
            slope = None
            if cap is not None:
                bent = torch.tanh(scores / cap)
                scores, slope = bent * cap, 1 - bent * bent
            top, at = scores.max(-1, keepdim=True)
            # One exponential of each logit gives the loss and its gradient; the largest share is never 0. Where all
            # are kept they are made in their place: new memory costs time.
            kept = None if upper is None or upper.dtype != torch.float32 else upper[rows]
            shares = torch.softmax(scores, dim=-1, out=kept)
            losses[rows] = (top - scores.gather(1, chosen) - shares.gather(1, at).log())[:, 0]
            if wanted or trained:
                shares.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
                shares = (shares if slope is None else shares.mul_(slope)).to(hidden.dtype)
                gradient[rows] = shares @ weight
                if upper is not None and kept is None:
                    upper[rows] = shares
        ctx.save_for_backward(gradient, hidden, upper)
        ctx.collect = collect
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - same
        gradient, hidden, upper = ctx.saved_tensors
        scale = upstream[0][:, None].to(gradient.dtype)
        g_hidden = (gradient * scale).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        g_weight = g_bias = None
        if upper is not None:
            # The factor of a position goes to its hidden state, the smaller side of every product with it; a bias has
            # no such side. Used here alone: scaled in place, so that logits are held once.
            if ctx.needs_input_grad[2]:
                upper.mul_(scale)
            else:
                hidden = hidden * scale
            if ctx.collect is not None:
                ctx.collect(hidden, upper)
            else:
                g_weight = (upper.t() @ hidden).float() if ctx.needs_input_grad[1] else None
                g_bias = upper.float().sum(0) if ctx.needs_input_grad[2] else None
        return g_hidden, g_weight, g_bias, None, None, None


def token_losses(hidden: Tensor, head: OutputLayer, targets: Tensor, collect: Collect | None = None) -> Tensor:
    """Return the cross entropy of each position, in float32.

    Args:
        hidden: (positions, width): what the head sees at the positions before the targets.
        head: The output layer.
        targets: (positions,): the token ids that follow.
        collect: Takes a trained head's inputs and output gradients in place of autograd.
    """
    linear = head.linear
    losses: Tensor = _HeadCrossEntropy.apply(hidden, linear.weight, linear.bias, targets, head.cap, collect)  # type: ignore[no-untyped-call]  # torch types no Function.apply
    return losses
