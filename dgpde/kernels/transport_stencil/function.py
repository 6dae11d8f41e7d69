"""The choice among the ways to compute the transport stencil."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dgpde.kernels.transport_stencil.cpu import CpuEngine
from dgpde.kernels.transport_stencil.problem import Faces, Geometry, Network
from dgpde.kernels.transport_stencil.reference import ReferenceNetwork

BACKENDS = ("cpu", "reference")


def choose_network(
    device: torch.device, name: str | None
) -> Callable[[Geometry], Callable[[Faces], Network]]:
    """What makes, for each solute of a run, what makes the networks of its steps.

    Args:
        device: where the tensors are.
        name: "cpu", "reference", or None for "cpu".

    Raises:
        ValueError: the backend asked for by name does not run such tensors, and why.
    """
    if name is not None and name not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)} or None for transport on a field, it is {name!r}"
        )
    if device.type != "cpu":
        raise ValueError(
            f"backend: transport on a field runs on the CPU only, these tensors are on {device}; move the run there"
        )
    return (
        (lambda geometry: lambda faces: ReferenceNetwork(geometry, faces))
        if name == "reference"
        else CpuEngine
    )
