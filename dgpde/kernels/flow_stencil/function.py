"""The choice among the ways to compute the stencil."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.cpu import CpuStencil
from dgpde.kernels.flow_stencil.problem import Stencil, StencilProblem
from dgpde.kernels.flow_stencil.reference import ReferenceStencil

BACKENDS = ("cpu", "triton", "reference")


def choose_stencil(
    device: torch.device, name: str | None
) -> tuple[Callable[[StencilProblem, dict[str, Tensor]], Stencil], str | None]:
    """What makes the stencil, and the name of the linear solver's backend that goes with it.

    Args:
        device: where the tensors are.
        name: "cpu", "triton", "reference", or None for the device's own ("cpu" on the CPU, "triton" on a GPU).

    Raises:
        ValueError: the backend asked for by name does not run such tensors, and why.
    """
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None for a field, it is {name!r}")
    chosen = name or ("cpu" if device.type == "cpu" else "triton")
    if chosen == "triton":
        return _triton(device), "triton" if device.type == "cuda" else "cpu"
    if device.type != "cpu":
        raise ValueError(f"backend: {chosen!r} runs on the CPU, these tensors are on {device}; move them")
    if chosen == "reference":
        return ReferenceStencil, "reference"
    return CpuStencil, None


def _triton(device: torch.device) -> Callable[[StencilProblem, dict[str, Tensor]], Stencil]:
    try:
        from dgpde.kernels.flow_stencil.triton import TritonStencil
        from dgpde.triton_launch import why_not
    except ImportError as error:
        raise ValueError(
            f"backend: 'triton' needs the package triton, which cannot be imported ({error}); install it or move "
            "the tensors to the CPU"
        ) from error
    if reason := why_not(device):
        raise ValueError(f"backend: 'triton' cannot run on tensors on {device}: {reason}")
    return TritonStencil
