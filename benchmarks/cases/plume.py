"""A plume in a heterogeneous confined aquifer, 40 x 50 x 100 cells, steps of ten days along steady flow.

The case was run with MODFLOW 6 GWT; its check values are MODFLOW's. MODFLOW's transverse dispersivities, `ath1` =
`ath2` = 0.5 m, go over into `atv` = 0.05 m by the vertical share of the flow: here a field. Both take two half cells
in series; MODFLOW with the flux in each cell, here its component through the face is that of the face: with MODFLOW's
the upstream run agrees to 1e-6 (`tests/test_transport_modflow.py`), as it is to 3e-4 in concentration and 2e-6 in mass.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement, Timing, peak_memory, reset_peak_memory, timed
from benchmarks.peer_fields import conductivity, off
from dgpde.linear import LinearSolver, StencilMatrix
from dgpde.solute import Solute
from dgpde.steady_flow import SteadyFlow
from dgpde.transport import Transport
from dgpde.transport_boundary import InflowConcentration
from dgpde.transport_solution import TransportSolution

NZ, NY, NX = 40, 50, 100
SIZES = (1.0, 5.0, 5.0)  # m, along z, y, x
STEP = 10 * 86400.0
# MODFLOW 6.6.2: mass in place, concentrations at (layer, row, column), centre of mass along x
COLUMNS = ("mass", "c_20_25_25", "c_20_25_50", "c_20_25_75", "c_20_7_25", "x")
MODFLOW = {
    ("upwind", False, 40): (166034.090679, 0.709269, 0.149503, 0.035413, 0.165209, 126.0674),
    ("tvd", False, 40): (166079.766842, 0.729283, 0.143120, 0.029736, 0.172555, 125.0382),
    ("upwind", True, 8): (33236.387515, 0.016034, 0.000003, 0.0, 0.0109898, 38.5324),
    ("tvd", True, 8): (33236.402953, 0.010558, 0.000001, 0.0, 0.0100777, 37.3383),
}
# How far apart two codes may be: mass relative, concentration of 1 in the inflow, m. With TVD two limiters differ, as
# the upstream runs agree to 0.004 m: MODFLOW's looks upstream along the strongest inflow and moves the centre of the
# plume by 1.0 m from the upstream run's, here it looks along the axis and moves it by 0.4 m.
APART = {"upwind": (1e-4, 4e-3, 0.3), "tvd": (1e-4, 2e-2, 0.7)}


@cache
def water() -> SteadyFlow:
    """Steady flow between heads of 45 m in the western and 40 m in the eastern column of cells."""
    k = conductivity((NZ, NY, NX), 1e-4, 1.0, (2, 4, 4)).flip(0)  # layer 0 is the highest
    conductance = []
    matrix = torch.zeros(7, NZ, NY, NX, dtype=torch.float64)
    for axis in range(3):
        a, b = k.narrow(axis, 0, k.shape[axis] - 1), k.narrow(axis, 1, k.shape[axis] - 1)
        area = SIZES[0] * SIZES[1] * SIZES[2] / SIZES[axis]
        found = area * 2.0 / (SIZES[axis] / a + SIZES[axis] / b)
        conductance.append(found)
        matrix[2 + 2 * axis].narrow(axis, 0, k.shape[axis] - 1).sub_(found)
        matrix[1 + 2 * axis].narrow(axis, 1, k.shape[axis] - 1).sub_(found)
    matrix[0] = -matrix[1:].sum(0)
    rhs = torch.zeros(NZ, NY, NX, dtype=torch.float64)
    for column, beside, slot, held in ((0, 1, 5, 45.0), (-1, -2, 6, 40.0)):
        rhs[:, :, beside] -= matrix[slot][:, :, beside] * held
        matrix[slot][:, :, beside] = 0.0
        matrix[:, :, :, column] = 0.0
        matrix[0][:, :, column] = 1.0
        rhs[:, :, column] = held
    solver = LinearSolver(tolerance=1e-13)
    solver.setup(StencilMatrix(matrix))
    head = solver.solve(rhs).x
    flux = {}
    for axis, name in enumerate("zyx"):
        shape = [size + (1 if k == axis else 0) for k, size in enumerate((NZ, NY, NX))]
        flux[name] = torch.zeros(shape, dtype=torch.float64)
        area = SIZES[0] * SIZES[1] * SIZES[2] / SIZES[axis]
        flux[name].narrow(axis, 1, shape[axis] - 2).copy_(-conductance[axis] * head.diff(dim=axis) / area)
    # what the held heads give and take passes the outer faces of their cells
    flux["x"][:, :, 0], flux["x"][:, :, -1] = flux["x"][:, :, 1], flux["x"][:, :, -2]
    return SteadyFlow(0.25, flux)


def in_cells(flux: dict[str, Tensor]) -> list[Tensor]:
    """The flux in the cells, the mean of their two faces: components along z, y and x, [nz, ny, nx] m/s each."""
    halves = [
        [flux[name].narrow(axis, k, flux[name].shape[axis] - 1) for k in (0, 1)]
        for axis, name in enumerate("zyx")
    ]
    return [0.5 * (low + high) for low, high in halves]


def transverse(flux: dict[str, Tensor]) -> Tensor:
    """MODFLOW's transverse dispersivity of the cells [nz, ny, nx] m."""
    components = torch.stack(in_cells(flux)).square()
    vertical = components[0] / components.sum(0)
    return 0.5 * (1.0 - vertical) + 0.05 * vertical


def _measure(scheme: str, cross_terms: bool, steps: int, size: int, device: str, repeats: int) -> Measurement:
    """Check the plume, then time forward, and forward and backward; ``size`` is the number of columns, 5000."""
    if device != "cpu" or size != NY * NX:
        raise ValueError(f"size: this case has {NY * NX} columns, on the CPU")
    grid = dgpde.Grid((NZ, NY, NX), SIZES)
    inflow = torch.zeros(NZ, NY, dtype=torch.float64)
    inflow[10:30, 12:37] = 1.0
    times = [0.0, *(1.0 + STEP * k for k in range(steps + 1))]
    options = dgpde.SolveOptions(dt_max=STEP)
    flow = water()
    across = transverse({name: value for name, value in flow.flux.items() if isinstance(value, Tensor)})

    def forward(longitudinal: Tensor | float = 5.0) -> TransportSolution:
        solute = Solute("c", longitudinal, across, 1e-9, tortuosity=1.0)
        transport = Transport(grid, solute, {"west": InflowConcentration(inflow)}, scheme, cross_terms)
        return transport.solve(0.0, flow, times, options)

    def loss() -> Tensor:
        leaf = torch.full(grid.shape, 5.0, dtype=torch.float64, requires_grad=True)
        return forward(leaf).concentration[-1].square().sum()

    memory = {"start": reset_peak_memory()}
    with torch.no_grad():
        run = forward()
    memory["forward"] = peak_memory()
    c = run.concentration[-1].flip(0)
    x = (torch.arange(NX, dtype=torch.float64) + 0.5) * SIZES[2]
    found = [
        float(run.mass.total[-1]),
        *(float(c[p]) for p in ((20, 25, 25), (20, 25, 50), (20, 25, 75), (20, 7, 25))),
    ]
    found.append(float((c * x).sum() / c.sum()))
    wanted, apart = MODFLOW[scheme, cross_terms, steps], APART[scheme]
    allowed = [apart[0] * wanted[0], *4 * [apart[1]], apart[2]]
    checks = off(
        dict(zip(COLUMNS, found, strict=True)),
        {name: pair for name, *pair in zip(COLUMNS, wanted, allowed, strict=True)},  # type: ignore[misc]
    )
    balance = float(run.mass_balance_error)
    if not balance <= 1e-10:
        raise ArithmeticError(f"the mass balance is off by {balance:.3g} of the mass moved")
    reset_peak_memory()
    loss().backward()
    memory["backward"] = peak_memory()
    plain, taped, backward = Timing(), Timing(), Timing()
    for _ in range(repeats):
        with torch.no_grad():
            timed(forward, plain)
        value = timed(loss, taped)
        timed(partial(value.backward), backward)
    cells = float(NZ * NY * NX * (steps + 1))
    return Measurement(
        forward=plain.summary(),
        backward=backward.summary(),
        gradient=(taped + backward).summary(),
        peak_memory=memory,
        cell_steps=cells,
        newton_iterations=float(run.iterations) / (steps + 1),
        checks=checks,
        extra={
            "mass_balance_error": balance,
            "linear_iterations": float(run.iterations) / (steps + 1),
            "cell_steps_per_second": cells / float(plain.summary()["cpu_least"]),
        },
    )


def upwind(size: int, device: str, repeats: int) -> Measurement:
    """First-order advection, the diagonal of the dispersion tensor, 40 steps."""
    return _measure("upwind", False, 40, size, device, repeats)


def tvd(size: int, device: str, repeats: int) -> Measurement:
    """Limited advection, the diagonal of the dispersion tensor, 40 steps."""
    return _measure("tvd", False, 40, size, device, repeats)


def tensor(size: int, device: str, repeats: int) -> Measurement:
    """First-order advection, the whole dispersion tensor, 8 steps."""
    return _measure("upwind", True, 8, size, device, repeats)


def tvd_tensor(size: int, device: str, repeats: int) -> Measurement:
    """Limited advection, the whole dispersion tensor, 8 steps."""
    return _measure("tvd", True, 8, size, device, repeats)
