"""What a solute does between the cells of a 7-point stencil in plain PyTorch, float64: the specification.

With Q the flow of water through a face along its axis (from a, below, south or west, into b), G its dispersive
conductance, c the concentrations at the end of the step and phi what the wider scheme adds to the flow of mass:

    mass through a face = Q c_up - G (c_b - c_a) + phi
    N_a = (max(-Q, 0) + G) (c_a - c_b) + phi,    N_b = (max(Q, 0) + G) (c_b - c_a) - phi

N is the mass that leaves a cell less c times the water that leaves it: only water that enters stands in it, so that N
of a constant is 0 to round-off whatever the water does, and its matrix without phi is an M-matrix.

    phi = |Q| h_u s(g_u, g_f) - sum over t of X_nt (mean of the four gradients along t beside the face)

g is the gradient of c through a face, g_f of this one, g_u of the one upstream along the axis, h_u and h_d half the
sizes of the cells up- and downstream. s is 0 (upwind), g_f (central: linear interpolation), or (tvd) the harmonic mean
(h_u + h_d) g_u g_f/(h_u g_u + h_d g_f) where g_u g_f > 0 and 0 elsewhere: van Leer's limiter (1974, J. Comput. Phys.
14:361) with weights that keep the value on the face between c_u and c_d on any spacing, hence an implicit step bounded.
Without a face upstream g_u = 0: the scheme is upwind there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import AXES
from dgpde.kernels.flow_stencil.reference import before, beyond
from dgpde.kernels.transport_stencil.problem import PAIRS, Faces, Geometry, Solved


def after(face: Tensor, axis: int) -> Tensor:
    """What stands at the next face along an axis; 0 behind the last."""
    size = face.shape[axis]
    return torch.cat([face.narrow(axis, 1, size - 1), torch.zeros_like(face.narrow(axis, 0, 1))], axis)


def limited(up: Tensor, here: Tensor, half_up: Tensor, half_down: Tensor) -> Tensor:
    """Van Leer's mean of the gradients upstream and at the face, 0 where their signs differ."""
    same = up * here > 0.0
    u, f = torch.where(same, up, 1.0), torch.where(same, here, 1.0)
    return torch.where(same, (half_up + half_down) * u * f / (half_up * u + half_down * f), 0.0)


def wide_flow(geometry: Geometry, faces: Faces, c: Tensor) -> dict[int, Tensor]:
    """phi by axis, [nz, ny, nx] kg/s along it."""
    gradient = {k: inverse * (beyond(c, k) - c) for k, inverse in geometry.inverse.items()}
    found = {k: torch.zeros_like(c) for k in geometry.axes}
    for axis in geometry.axes if geometry.scheme != "upwind" else ():
        flow, here, half = faces.flow[axis], gradient[axis], geometry.half[axis].expand(geometry.shape)
        forward = flow > 0.0
        half_up, half_down = (
            torch.where(forward, *pair) for pair in ((half, beyond(half, axis)), (beyond(half, axis), half))
        )
        slope = here
        if geometry.scheme == "tvd":
            slope = limited(
                torch.where(forward, before(here, axis), after(here, axis)), here, half_up, half_down
            )
        found[axis] = torch.where(forward, flow, -flow) * half_up * slope
    for n, t in geometry.pairs:
        pair = gradient[t] + before(gradient[t], t)
        found[n] = found[n] - faces.cross[n, t] * 0.25 * (pair + after(pair, n))
    return found


def network(geometry: Geometry, faces: Faces, c: Tensor) -> Tensor:
    """N(c), [nz, ny, nx] kg/s."""
    total = torch.zeros_like(c)
    for axis in geometry.axes:
        flow, conductance, rise = faces.flow[axis], faces.conductance[axis], beyond(c, axis) - c
        forward = flow > 0.0  # water that stands counts as flowing into a
        total = total - (torch.where(forward, 0.0, -flow) + conductance) * rise
        total = total + before((torch.where(forward, flow, 0.0) + conductance) * rise, axis)
    if geometry.wide:
        for axis, phi in wide_flow(geometry, faces, c).items():
            total = total + phi - before(phi, axis)
    return total


def named_faces(values: dict[str, Tensor]) -> Faces:
    """The inverse of ``Faces.named``."""
    return Faces(
        {k: values[f"flow_{AXES[k]}"] for k in range(3) if f"flow_{AXES[k]}" in values},
        {k: values[f"conductance_{AXES[k]}"] for k in range(3) if f"conductance_{AXES[k]}" in values},
        {
            (n, t): values[f"cross_{AXES[n]}{AXES[t]}"]
            for n, t in PAIRS
            if f"cross_{AXES[n]}{AXES[t]}" in values
        },
    )


class ReferenceNetwork:
    """``problem.Network`` by autograd and dense factors, for small grids."""

    name = "reference"

    def __init__(self, geometry: Geometry, faces: Faces) -> None:
        self.geometry, self.faces = geometry, faces
        self._matrix: Tensor | None = None

    def apply(self, c: Tensor) -> Tensor:
        """N(c)."""
        return network(self.geometry, self.faces, c)

    def setup(self, diagonal: Tensor, column: Tensor | None, at: Tensor) -> None:
        """Make the matrix."""
        with torch.enable_grad():
            slope = torch.autograd.functional.jacobian(self.apply, at.detach())
        matrix = slope.reshape(at.numel(), at.numel())
        if column is not None:
            matrix = matrix * column.flatten()
        self._matrix = matrix + torch.diag(diagonal.flatten())

    def solve(self, rhs: Tensor, guess: Tensor | None, tolerance: float, transposed: bool) -> Solved:
        """By dense LU factors."""
        assert self._matrix is not None
        matrix = self._matrix.T if transposed else self._matrix
        b = rhs.flatten()
        x = torch.linalg.solve(matrix, b)
        norm = float(b.norm())
        residual = float((b - matrix @ x).norm()) / norm if norm > 0.0 else 0.0
        return Solved(x.reshape(rhs.shape), 1, residual, residual <= tolerance)

    def pull(self, multiplier: Tensor, c: Tensor) -> Faces:
        """By autograd."""
        if not self.geometry.axes:
            return self.faces
        with torch.enable_grad():
            leaves = {
                name: value.detach().clone().requires_grad_() for name, value in self.faces.named().items()
            }
            total = -(multiplier * network(self.geometry, named_faces(leaves), c.detach())).sum()
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return named_faces(
            {
                name: torch.zeros_like(c) if gradient is None else gradient
                for name, gradient in zip(leaves, found, strict=True)
            }
        )

    def push(self, c: Tensor, faces: Faces) -> Tensor:
        """N is linear in the faces but for the signs of the flows, which a tangent does not turn."""
        moving = faces.named()
        zero = torch.zeros_like(c)
        if not moving:
            return zero

        def moved(size: Tensor) -> Tensor:
            values = {
                name: value + size * moving.get(name, zero) for name, value in self.faces.named().items()
            }
            return network(self.geometry, named_faces(values), c)

        with torch.enable_grad():
            leaf = torch.zeros((), dtype=c.dtype, requires_grad=True)
            dual = torch.zeros_like(c).requires_grad_()
            (pulled,) = torch.autograd.grad((moved(leaf) * dual).sum(), leaf, create_graph=True)
            if not pulled.requires_grad:
                return zero
            return torch.autograd.grad(pulled, dual)[0]
