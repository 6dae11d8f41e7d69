"""A plume in a heterogeneous aquifer against MODFLOW 6 GWT: where the last thousandth between the two comes from.

MODFLOW takes one dispersion coefficient a cell, from the mean of the fluxes through its faces, and the harmonic mean of
the two cells on a face; its transverse dispersivities go over into `atv` by the vertical share of the flow, q_z^2/q^2.
Here the half cells stand in series as well, but in both the flux through the face itself counts. The same equations
with MODFLOW's coefficients, written out below, give its printed numbers to a millionth.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dgpde
from benchmarks.cases import plume
from dgpde import InflowConcentration, Solute, SolveOptions, Transport
from dgpde.linear import LinearSolver, StencilMatrix

SHAPE, SIZES, POROSITY = (plume.NZ, plume.NY, plume.NX), plume.SIZES, 0.25
VOLUME = SIZES[0] * SIZES[1] * SIZES[2]
# upstream weighting, diagonal of the tensor, 40 steps of ten days after one of a second
MASS, AT_CELLS = plume.MODFLOW["upwind", False, 40][0], plume.MODFLOW["upwind", False, 40][1:5]
PLACES = ((20, 25, 25), (20, 25, 50), (20, 25, 75), (20, 7, 25))
pytestmark = pytest.mark.slow


def conductances(flux: dict[str, Tensor], harmonic: bool) -> list[Tensor]:
    """Dispersive conductances of the inner faces, m3/s, from one coefficient a cell."""
    found = []
    inside = plume.in_cells(flux)
    speed = torch.stack(inside).square().sum(0).sqrt()
    along = [component / speed for component in inside]
    level = (inside[1].square() + inside[2].square()).sqrt()
    sideways = [torch.zeros_like(level), inside[2] / level, -inside[1] / level]
    across = plume.transverse(flux)
    for axis in range(3):
        first, second = along[axis].square(), sideways[axis].square()
        value = speed * (5.0 * first + across * second + across * (1.0 - first - second)) + 1e-9 * POROSITY
        a, b = (value.narrow(axis, k, value.shape[axis] - 1) for k in (0, 1))
        mean = 2.0 * a * b / (a + b) if harmonic else 0.5 * (a + b)
        found.append(mean * VOLUME / SIZES[axis] ** 2)
    return found


def solve(harmonic: bool) -> Tensor:
    """Concentration [nz, ny, nx] after the 41 steps, upstream weighting."""
    flow = plume.water()
    flux = {name: value for name, value in flow.flux.items() if isinstance(value, Tensor)}
    matrix = torch.zeros(7, *SHAPE, dtype=torch.float64)
    for axis, conductance in enumerate(conductances(flux, harmonic)):
        last = SHAPE[axis] - 1
        through = flux["zyx"[axis]].narrow(axis, 1, last) * VOLUME / SIZES[axis]
        up, down = through.clamp(min=0.0) + conductance, (-through).clamp(min=0.0) + conductance
        matrix[0].narrow(axis, 0, last).add_(up)
        matrix[0].narrow(axis, 1, last).add_(down)
        matrix[1 + 2 * axis].narrow(axis, 1, last).sub_(up)
        matrix[2 + 2 * axis].narrow(axis, 0, last).sub_(down)
    area = SIZES[0] * SIZES[1]
    west, east = flux["x"][:, :, 0] * area, flux["x"][:, :, -1] * area
    assert float(west.min()) > 0.0
    assert float(east.min()) > 0.0
    matrix[0][:, :, -1] += east
    inflow = torch.zeros(SHAPE, dtype=torch.float64)
    inflow[10:30, 12:37, 0] = west[10:30, 12:37]
    c = torch.zeros(SHAPE, dtype=torch.float64)
    for length, count in ((1.0, 1), (plume.STEP, 40)):
        storage = POROSITY * VOLUME / length
        step = matrix.clone()
        step[0] += storage
        solver = LinearSolver(tolerance=1e-12)
        solver.setup(StencilMatrix(step))
        for _ in range(count):
            c = solver.solve(inflow + storage * c).x
    return c


def off(c: Tensor) -> tuple[float, float]:
    """Relative error of the mass and the largest of the four concentrations, against MODFLOW's."""
    layers = c.flip(0)
    errors = [abs(float(layers[place]) - value) for place, value in zip(PLACES, AT_CELLS, strict=True)]
    return abs(float(c.sum()) * POROSITY * VOLUME / MASS - 1.0), max(errors)


def test_the_coefficients_of_modflow_give_its_numbers() -> None:
    """To the six digits that are printed; its solver closes to 1e-6 or so of the mass."""
    mass, concentration = off(solve(harmonic=True))
    assert mass < 2e-6
    assert concentration < 2e-6
    # the mean alone makes a thousandth
    assert 1e-3 < off(solve(harmonic=False))[1] < 1.3e-3


def test_ours_differ_by_the_flux_on_a_face() -> None:
    """With MODFLOW's transverse dispersivity and our own faces: 3.0e-4 of the inflow's concentration."""
    inflow = torch.zeros(SHAPE[:2], dtype=torch.float64)
    inflow[10:30, 12:37] = 1.0
    flow = plume.water()
    flux = {name: value for name, value in flow.flux.items() if isinstance(value, Tensor)}
    solute = Solute("c", 5.0, plume.transverse(flux), 1e-9, tortuosity=1.0)
    model = Transport(dgpde.Grid(SHAPE, SIZES), solute, {"west": InflowConcentration(inflow)}, "upwind")
    times = [0.0, *(1.0 + plume.STEP * k for k in range(41))]
    with torch.no_grad():
        done = model.solve(0.0, flow, times, SolveOptions(dt_max=plume.STEP))
    mass, concentration = off(done.concentration[-1])
    assert mass < 2e-6
    assert concentration < 3.2e-4
