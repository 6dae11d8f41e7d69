"""The choice among the ways to compute the transport stencil."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dgpde.kernels.transport_stencil.cpu import CpuEngine
from dgpde.kernels.transport_stencil.problem import Faces, Geometry, Network
from dgpde.kernels.transport_stencil.reference import ReferenceNetwork

BACKENDS = ("cpu", "triton", "reference")


def choose_network(
    device: torch.device, name: str | None
) -> Callable[[Geometry], Callable[[Faces], Network]]:
    """What makes, for each solute of a run, what makes the networks of its steps.

    Args:
        device: where the tensors are.
        name: "cpu", "triton", "reference", or None for the device's own ("cpu" on the CPU, "triton" on a GPU).

    Raises:
        ValueError: the backend asked for by name does not run such tensors, and why.
    """
    if name is not None and name not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)} or None for transport on a field, it is {name!r}"
        )
    chosen = name or ("cpu" if device.type == "cpu" else "triton")
    if chosen == "triton":
        return _triton(device)
    if device.type != "cpu":
        raise ValueError(f"backend: {chosen!r} runs on the CPU, these tensors are on {device}; move them")
    if chosen == "reference":
        return lambda geometry: lambda faces: ReferenceNetwork(geometry, faces)
    return CpuEngine


def _triton(device: torch.device) -> Callable[[Geometry], Callable[[Faces], Network]]:
    try:
        from dgpde.kernels.transport_stencil.triton import TritonEngine
        from dgpde.triton_launch import why_not
    except ImportError as error:
        raise ValueError(
            f"backend: 'triton' needs the package triton, which cannot be imported ({error}); install it or move "
            "the tensors to the CPU"
        ) from error
    if reason := why_not(device):
        raise ValueError(f"backend: 'triton' cannot run on tensors on {device}: {reason}")
    return TritonEngine
