"""Dispersion from the flow, by PyTorch: what the faces of a step conduct. Differentiated by autograd.

Bear & Scheidegger with two transverse dispersivities (Burnett & Frind 1987, Water Resour. Res. 23:695), q the flux:

    (theta D)_zz = theta tau D_m + (a_L q_z^2 + a_V (q_y^2 + q_x^2))/|q|
    (theta D)_yy = theta tau D_m + (a_L q_y^2 + a_H q_x^2 + a_V q_z^2)/|q|        (x alike)
    (theta D)_yx = (a_L - a_H) q_y q_x/|q|,   (theta D)_zx = (a_L - a_V) q_z q_x/|q|,   (theta D)_zy alike

The halves of the two cells between their centres and the face stand in series. In each half the coefficients are those
of its cell, the normal component of q is what flows through the face, which is the same on both sides of it, and the
others are those in the cell, the mean of what flows through its two faces across that axis, sides of the domain
included. With h half the sizes of the cells, the mass through the face and the gradient along it continuous:

    conductance = A/r,   X_nt = A (w_1 D_1,nt + w_2 D_2,nt),   r_k = h_k/D_k,nn,   r = r_1 + r_2,   w_k = r_k/r

which is right where materials or the flow along the face jump; nothing passes a half in which nothing disperses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import SIDES, on_side
from dgpde.kernels.flow_stencil.reference import before, beyond
from dgpde.kernels.transport_stencil.problem import Geometry


@dataclass(frozen=True)
class Dispersion:
    """Coefficients that broadcast to [nz, ny, nx]; None for 0.

    Attributes:
        longitudinal, horizontal, vertical: dispersivities, m.
        pore: theta tau D_m, m2/s.
    """

    longitudinal: Tensor | None = None
    horizontal: Tensor | None = None
    vertical: Tensor | None = None
    pore: Tensor | None = None

    @property
    def mechanical(self) -> bool:
        """Whether there is any but diffusion."""
        return any(value is not None for value in (self.longitudinal, self.horizontal, self.vertical))

    def at(self, face: object) -> Dispersion:
        """The same with a function applied to every coefficient."""
        assert callable(face)
        return Dispersion(*(None if value is None else face(value) for value in vars(self).values()))

    def across(self, normal: int, q: list[Tensor | None], speed: Tensor | None) -> Tensor | None:
        """(theta D)_nn for the components of the flux, None where nothing flows along an axis; None for 0."""
        total = self.pore
        if speed is not None:
            for axis, component in enumerate(q):
                if component is None:
                    continue
                coefficient = (
                    self.longitudinal
                    if axis == normal
                    else self.vertical
                    if 0 in (axis, normal)
                    else self.horizontal
                )
                if coefficient is not None:
                    part = coefficient * (component * component / speed)
                    total = part if total is None else total + part
        return total

    def along(self, normal: int, other: int, q: list[Tensor | None], speed: Tensor | None) -> Tensor | None:
        """(theta D)_nt; None for 0."""
        one, two = q[normal], q[other]
        if speed is None or one is None or two is None:
            return None
        across = self.vertical if 0 in (normal, other) else self.horizontal
        if self.longitudinal is None:
            return None if across is None else -across * (one * two / speed)
        coefficient = self.longitudinal if across is None else self.longitudinal - across
        return coefficient * (one * two / speed)


def _length(q: list[Tensor | None]) -> Tensor | None:
    """|q|; 1 where it is 0, so that what is divided by it stays 0 there (q^2/|q| tends to 0 with q)."""
    square = None
    for component in q:
        if component is not None:
            part = component * component
            square = part if square is None else square + part
    if square is None:
        return None
    flows = square > 0.0
    return torch.where(flows, torch.where(flows, square, 1.0).sqrt(), 1.0)


Conducted = tuple[dict[int, Tensor], dict[tuple[int, int], Tensor]]


def disperse(
    geometry: Geometry, flow: dict[int, Tensor], water: dict[str, Tensor], given: Dispersion
) -> Conducted:
    """Conductances and cross terms of the faces (as in ``Faces``).

    Args:
        geometry: the grid.
        flow: by axis, [nz, ny, nx] m3/s.
        water: by side, [*side] m3/s into the domain; a side that is missing is closed.
        given: coefficients.

    Returns:
        by axis [nz, ny, nx] m3/s, by pair of axes [nz, ny, nx] m4/s.
    """
    flux = {axis: value / geometry.area[axis] for axis, value in flow.items()}
    none: list[Tensor | None] = [None, None, None]
    inside = _velocities(geometry, flux, water) if given.mechanical else none
    conductance: dict[int, Tensor] = {}
    cross: dict[tuple[int, int], Tensor] = {}
    zero = geometry.volume.new_zeros(geometry.shape)
    for n in geometry.axes:
        one, two = (_of_cell(geometry, n, flux, inside, given, upper) for upper in (False, True))
        own, other = (part.across(n, q, speed) for part, q, speed in (one, two))
        conductance[n] = zero
        if own is None or other is None:
            cross |= {pair: zero for pair in geometry.pairs if pair[0] == n}
            continue
        half = geometry.half[n].expand(geometry.shape)
        first, second = half * other, beyond(half, n) * own
        total = first + second
        some = total > 0.0
        total = torch.where(some, total, 1.0)
        exists = geometry.area[n] * (geometry.inverse[n] > 0.0)
        conductance[n] = torch.where(some, exists * own * other / total, 0.0)
        for _, t in (pair for pair in geometry.pairs if pair[0] == n):
            here, there = (part.along(n, t, q, speed) for part, q, speed in (one, two))
            if here is None or there is None:
                cross[n, t] = zero
            else:
                cross[n, t] = torch.where(some, exists * (first * here + second * there) / total, 0.0)
    return conductance, cross


_Half = tuple[Dispersion, list[Tensor | None], Tensor | None]


def _of_cell(
    geometry: Geometry,
    normal: int,
    flux: dict[int, Tensor],
    inside: list[Tensor | None],
    given: Dispersion,
    upper: bool,
) -> _Half:
    """Coefficients, flux and its length between a face and the centre of the cell on one side of it."""

    def at(value: Tensor) -> Tensor:
        return beyond(value, normal) if upper and value.dim() == 3 and value.shape[normal] > 1 else value

    q = [flux[k] if k == normal else None if (u := inside[k]) is None else at(u) for k in range(3)]
    return given.at(at), q, _length(q) if given.mechanical else None


def disperse_sides(
    geometry: Geometry,
    flow: dict[int, Tensor],
    water: dict[str, Tensor],
    given: Dispersion,
    wanted: tuple[str, ...],
) -> dict[str, Tensor]:
    """Conductances of some sides over half a cell, [*side] m3/s; the other arguments as those of ``disperse``."""
    if not wanted:
        return {}
    flux = {axis: value / geometry.area[axis] for axis, value in flow.items()}
    none: list[Tensor | None] = [None, None, None]
    inside = _velocities(geometry, flux, water) if given.mechanical else none
    sides = {}
    for side in wanted:
        axis = SIDES.index(side) // 2
        q = [None if u is None else on_side(u, side) for u in inside]
        if side in water:
            sign = 1.0 if SIDES.index(side) % 2 == 0 else -1.0
            area = on_side(geometry.area[axis].expand(geometry.shape), side)
            q[axis] = sign * water[side] / area

        def near(value: Tensor, side: str = side) -> Tensor:
            return value if value.dim() < 3 else on_side(value.expand(geometry.shape), side)

        speed = _length(q) if given.mechanical else None
        found = given.at(near).across(axis, q, speed)
        area = geometry.side_area(side)
        part = torch.zeros_like(area) if found is None else found
        sides[side] = part * area / geometry.side_half(side)
    return sides


def _velocities(geometry: Geometry, flux: dict[int, Tensor], water: dict[str, Tensor]) -> list[Tensor | None]:
    """Components of the flux in the cells, m/s; None where nothing flows along an axis."""
    found: list[Tensor | None] = []
    for axis in range(3):
        low, high = SIDES[2 * axis], SIDES[2 * axis + 1]
        total = None
        if axis in flux:
            total = flux[axis] + before(flux[axis], axis)
        for side, sign in ((low, 1.0), (high, -1.0)):
            if side not in water:
                continue
            area = on_side(geometry.area[axis].expand(geometry.shape), side)
            part = (sign * water[side] / area).unsqueeze(axis)
            empty = geometry.shape[axis] - 1
            zeros = torch.zeros_like(part).expand(*(empty if k == axis else -1 for k in range(3)))
            part = torch.cat([part, zeros] if side == low else [zeros, part], axis)
            total = part if total is None else total + part
        found.append(None if total is None else 0.5 * total)
    return found
