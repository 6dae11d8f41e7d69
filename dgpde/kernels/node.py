"""What the nodes of whole trajectories share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_tracked(tensor: Tensor) -> bool:
    """Whether reverse or forward mode asks for derivatives in this tensor."""
    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    if torch.autograd.forward_ad._current_level >= 0 and (
        torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
    ):
        return True
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


class FirstOrderOnly(torch.autograd.Function):
    """A derivative of a run. It is a node itself, so that asking for its own derivative raises.

    (Were it no node, autograd would find no way from a second derivative to the inputs and call it unused.)
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept: there is no backward."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Raise: there are no second derivatives."""
        raise RuntimeError(
            "a flow run has no second derivatives: the gradient of a run cannot be differentiated again; for "
            "Gauss-Newton products J^T J v take J v in forward mode (torch.autograd.forward_ad), then backward"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Raise: there are no second derivatives."""
        return FirstOrderOnly.backward(ctx)  # type: ignore[return-value]
