"""Forward mode by reverse mode, for formulas that autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


def pushed(function: Callable[[Inputs], Inputs], at: Inputs, tangents: Inputs) -> Inputs:
    """Tangents of a function's values: the derivative of its vector-Jacobian product in the vector.

    (Forward mode cannot be nested, and a run may be asked for its tangent in forward mode.)
    """
    with torch.enable_grad():
        leaves = {name: value.detach().clone().requires_grad_() for name, value in at.items()}
        values = function(leaves)
        found = {name: torch.zeros_like(value) for name, value in values.items()}
        moving = {name: value for name, value in values.items() if value.requires_grad}
        duals = {name: torch.zeros_like(value).requires_grad_() for name, value in moving.items()}
        pulled = torch.autograd.grad(
            list(moving.values()),
            list(leaves.values()),
            list(duals.values()),
            create_graph=True,
            allow_unused=True,
        )
        total = sum(
            ((g * tangents[name]).sum() for name, g in zip(leaves, pulled, strict=True) if g is not None),
            torch.zeros(()).double(),
        )
        if total.requires_grad:
            pushed = torch.autograd.grad(total, list(duals.values()), allow_unused=True)
            found |= {name: value for name, value in zip(duals, pushed, strict=True) if value is not None}
    return {name: value.detach() for name, value in found.items()}
