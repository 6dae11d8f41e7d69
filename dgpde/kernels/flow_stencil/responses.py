"""Responses of fields to the pressure head that are tables, by PyTorch for every backend: of roots, of evaporation."""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.column_flow.reference_responses import tabulated_response
from dgpde.kernels.flow_stencil.forward_mode import pushed
from dgpde.kernels.flow_stencil.problem import StencilProblem

EVAPORATION = "evaporation_response"
Inputs = dict[str, Tensor]


def by_table(table: Tensor, knots: tuple[float, float], psi: Tensor) -> Tensor:
    """a at psi [layers, ny, nx], given the table [knots, 2, ny or 1, nx or 1] of each column of cells."""
    layers, ny, nx = psi.shape
    columns = table.expand(-1, 2, ny, nx).reshape(-1, 2, ny * nx)
    return tabulated_response(psi.reshape(layers, ny * nx), columns, knots).reshape(psi.shape)


def evaporation_share(problem: StencilProblem, table: Tensor, psi: Tensor) -> Tensor:
    """Share of the evaporation that the highest cells let through at psi [ny, nx]."""
    assert problem.evaporation_knots is not None
    return by_table(table, problem.evaporation_knots, psi[None])[0]


def share_and_slope(problem: StencilProblem, inputs: Inputs, psi: Tensor) -> tuple[Tensor, Tensor]:
    """``evaporation_share``, and its slope in psi."""
    x = psi.detach().clone().requires_grad_()
    with torch.enable_grad():
        share = evaporation_share(problem, inputs[EVAPORATION].detach(), x)
        slope = torch.autograd.grad(share.sum(), x)[0]
    return share.detach(), slope


def pull_share(problem: StencilProblem, inputs: Inputs, psi: Tensor, seed: Tensor, gradients: Inputs) -> None:
    """Add d/d table of <seed, share>."""
    table = inputs[EVAPORATION].detach().clone().requires_grad_()
    with torch.enable_grad():
        gradients[EVAPORATION].add_(
            torch.autograd.grad(evaporation_share(problem, table, psi), table, seed)[0]
        )


def push_share(problem: StencilProblem, inputs: Inputs, psi: Tensor, tangents: Inputs) -> Tensor:
    """How the share moves when the table does."""

    def share(at: Inputs) -> Inputs:
        return {"share": evaporation_share(problem, at[EVAPORATION], psi)}

    names = {EVAPORATION: inputs[EVAPORATION]}
    return pushed(share, names, {EVAPORATION: tangents[EVAPORATION]})["share"]
