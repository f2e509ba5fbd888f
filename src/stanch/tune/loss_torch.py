"""The loss of a record: the mean over its own labelled tokens, computed at labelled positions only.

``model.loss`` is never used: it is the mean over all labelled tokens of a batch, so that one record's gradient would be
scaled by the lengths of the others, and clipping would no longer bound what one record changes.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

_ROWS = 128
"""Positions whose logits exist at once: 128 x 49,152 float32 values are 25 MB, which stays in the last-level cache."""


class _HeadCrossEntropy(torch.autograd.Function):
    """Cross entropy of ``hidden @ weightᵀ + bias`` per position, without ever holding all logits.

    The loss of a position depends on its own hidden state alone, so its gradient is formed in the forward pass, while
    its logits are in the cache, and the backward pass only scales it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:  # noqa: ANN401 - autograd's context
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else hidden
        for start in range(0, len(targets), _ROWS):
            rows = slice(start, start + _ROWS)
            chosen = targets[rows, None]
            scores = F.log_softmax(F.linear(hidden[rows], weight, bias), dim=-1, dtype=torch.float32)
            losses[rows] = -scores.gather(1, chosen)[:, 0]
            if wanted:
                scores.exp_()
                scores.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
                gradient[rows] = scores.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - same
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0][:, None].to(gradient.dtype), None, None, None


def token_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Return the cross entropy of each position, in float32.

    Args:
        hidden: (positions, width): what the head sees at the positions before the targets.
        head: The frozen output layer.
        targets: (positions,): the token ids that follow.
    """
    losses: Tensor = _HeadCrossEntropy.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-untyped-call]  # torch types no Function.apply
    return losses
