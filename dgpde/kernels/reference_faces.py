"""Faces in plain PyTorch: means of the relative conductivity and the boundary fluxes, shared by the references.

Everything is elementwise: tensors of one shape, one entry a face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoundaryFace:
    """What the faces of one side see, besides the state of their cells.

    Attributes:
        kind: a key of ``BOUNDARY_VALUES``.
        face_mean: name of the mean of the relative conductivities of the boundary and the cell.
        values: of the interval, by the names of ``BOUNDARY_VALUES[kind]``.
        kr: relative conductivity at the prescribed head (head) or at psi_min (atmosphere); None for others.
        transmissivity: Ks / half [1/s].
        rise: fall of H from the face to the cell at equal psi [m].
        half: distance from the face to the centre of the cell [m].
        gravity: component of gravity along the column.
        elevation: gravity times z of the cell's centre [m].
        ponding_old: m.
        dt: s.
        share: of the evaporation that the cells let through; None is all of it.
    """

    kind: str
    face_mean: str
    values: dict[str, Tensor]
    kr: Tensor | None
    transmissivity: Tensor
    rise: Tensor
    half: Tensor
    gravity: float
    elevation: Tensor
    ponding_old: Tensor
    dt: Tensor
    share: Tensor | None = None


class Boundary(NamedTuple):
    """Flux into the cells through one side, its round-off scale, and the pond on it."""

    flux: Tensor  # m/s
    magnitude: Tensor  # m/s, sum of the magnitudes that were added to form the flux
    ponding: Tensor  # m at the end of the step
    runoff: Tensor  # m/s


def face_mean(name: str, kr_a: Tensor, kr_b: Tensor, b_is_upstream: Tensor) -> Tensor:
    """Relative permeability of a face from that of the two sides; 0 where a geometric or harmonic mean
    meets 0.
    """
    if name == "arithmetic":
        return 0.5 * (kr_a + kr_b)
    if name == "upstream":
        return torch.where(b_is_upstream, kr_b, kr_a)
    # Both means are 0 with an unbounded slope where a side is 0 (underflow in very dry soil): keep 0 there,
    # and keep the branch not taken finite so that no NaN enters its derivative.
    positive = (kr_a > 0.0) & (kr_b > 0.0)
    a, b = torch.where(positive, kr_a, 1.0), torch.where(positive, kr_b, 1.0)
    if name == "geometric":
        mean = a.sqrt() * b.sqrt()
    elif name == "harmonic":
        mean = 2.0 / (1.0 / a + 1.0 / b)
    else:
        raise ValueError(f"face_mean: {name!r} is not known; use arithmetic, upstream, geometric or harmonic")
    return torch.where(positive, mean, 0.0)


def boundary(face: BoundaryFace, psi: Tensor, kr: Tensor) -> Boundary:
    """Flux into the cells through the faces of one side, given psi and kr of the cells."""
    kind, rise, values = face.kind, face.rise, face.values
    zero = torch.zeros_like(psi)
    pond = face.ponding_old  # what is not the atmosphere leaves it as it is

    def conductance(psi_b: Tensor, kr_b: Tensor) -> Tensor:
        # equal: the boundary's kr
        return face.transmissivity * face_mean(face.face_mean, kr_b, kr, psi > psi_b + rise)

    def darcy(psi_b: Tensor, kr_b: Tensor) -> Boundary:
        g = conductance(psi_b, kr_b)
        return Boundary(g * (psi_b - psi + rise), g * (psi_b.abs() + psi.abs() + rise.abs()), pond, zero)

    if kind == "flux":
        return Boundary(values["q"] + zero, values["q"].abs() + zero, pond, zero)
    if kind == "head":
        assert face.kr is not None
        return darcy(values["psi"], face.kr)
    if kind == "free_drainage":
        q = -face.gravity * face.half * face.transmissivity * kr
        return Boundary(q, q.abs(), pond, zero)
    if kind == "seepage_face":
        seep = darcy(zero, zero + 1.0)
        return seep._replace(flux=torch.where(seep.flux < 0.0, seep.flux, 0.0))
    head_c = psi + face.elevation
    if kind == "general_head":
        scale = values["conductance"] * (values["head"].abs() + psi.abs() + face.elevation.abs())
        return Boundary(values["conductance"] * (values["head"] - head_c), scale, pond, zero)
    if kind == "deep_water_table":
        # Hopmans & Stricker 1989, J. Hydrol. 107:281: drainage grows exponentially with the head above the
        # level.
        q = -values["coefficient"] * torch.exp(values["exponent"] * (head_c - values["level"]))
        return Boundary(q, q.abs(), pond, zero)
    assert kind == "atmosphere", kind
    # Rain minus evaporation, limited by what the soil can take (then a pond) or give (then psi_min at the
    # surface). The branch is decided by the state that it is evaluated at; the pond p obeys
    # dp/dt = P - E - q - runoff.
    assert face.kr is not None
    evaporation = values["evaporation"] if face.share is None else values["evaporation"] * face.share
    net = values["precipitation"] - evaporation
    ponding_max, psi_min = values["ponding_max"], values["psi_min"]
    p_old, dt = face.ponding_old, face.dt
    available = net + p_old / dt
    wet = darcy(zero, zero + 1.0)
    dry = darcy(psi_min, face.kr)
    g = conductance(zero, zero + 1.0)
    ponded_flux = g * (p_old + dt * net + rise - psi) / (1.0 + dt * g)
    depth = p_old + dt * (net - ponded_flux)
    full_flux = g * (ponding_max - psi + rise)

    ponded = available > wet.flux
    full = ponded & (depth > ponding_max)
    limited = ~ponded & (available < dry.flux)
    flux = torch.where(limited, dry.flux, available)
    flux = torch.where(ponded, ponded_flux, flux)
    flux = torch.where(full, full_flux, flux)
    ponding = torch.where(full, ponding_max + zero, torch.where(ponded, depth, zero))
    runoff = torch.where(full, net - full_flux - (ponding_max - p_old) / dt, zero)
    # A pond holds more water than a step moves, so its round-off counts beside that of the flux.
    magnitude = torch.where(limited, dry.magnitude, torch.where(ponded, wet.magnitude, available.abs()))
    magnitude = magnitude + torch.where(ponded, g * (p_old + dt * net.abs() + ponding_max), zero)
    return Boundary(flux, magnitude, ponding, runoff)
