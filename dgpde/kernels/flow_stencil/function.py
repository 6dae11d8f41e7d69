"""The choice among the ways to compute the stencil."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.cpu import CpuStencil
from dgpde.kernels.flow_stencil.problem import Stencil, StencilProblem
from dgpde.kernels.flow_stencil.reference import ReferenceStencil

BACKENDS = ("cpu", "reference")


def choose_stencil(
    device: torch.device, name: str | None
) -> tuple[Callable[[StencilProblem, dict[str, Tensor]], Stencil], str | None]:
    """What makes the stencil, and the name of the linear solver's backend that goes with it.

    Args:
        device: where the tensors are.
        name: "cpu", "reference", or None for the device's own.

    Raises:
        ValueError: the backend asked for by name does not run such tensors.
    """
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None for a field, it is {name!r}")
    if device.type != "cpu":
        raise ValueError(
            f"backend: the field engine runs on the CPU, these tensors are on {device}; move them"
        )
    if name == "reference":
        return ReferenceStencil, "reference"
    return CpuStencil, None
