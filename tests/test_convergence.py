"""Observed orders of convergence: 1 in time, 2 in space (1 with the upstream mean), also across a layer interface.

On the cases of Srivastava & Yeh (1991), whose exact solutions are in `references`. Solutions on different grids
are compared cell by cell: a coarse cell centre is a face of the fine grid, where the mean of its two cells is
second-order accurate.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from references.cases import Array, problem, profile

import dgpde


def solve(case: str, dz: float, until: float, face: str = "arith", **options: object) -> tuple[Array, Array]:
    """Elevations and psi at the end of a run."""
    setting = problem(case, dz, face)
    chosen = dgpde.SolveOptions(tolerance=1e-12, **options)  # type: ignore[arg-type]
    solution = setting.flow.solve(setting.psi0, [0.0, until], options=chosen, save="last")
    return setting.z, solution.psi[-1, :, 0].numpy()


def orders(errors: list[float], ratio: float = 2.0) -> Array:
    logs = np.log(errors)
    return (logs[:-1] - logs[1:]) / np.log(ratio)


@pytest.mark.parametrize(
    ("case", "backend", "until"),
    [
        ("P3b", "cpu", 10800.0),
        ("P3b", "reference", 5400.0),
        ("P3a", "cpu", 54000.0),
        ("P3d", "cpu", 54000.0),
    ],
)
def test_first_order_in_time(case: str, backend: str, until: float) -> None:
    steps = (600.0, 300.0, 150.0, 75.0)
    ends = [solve(case, 0.1, until, dt_fixed=dt, backend=backend)[1] for dt in steps]
    errors = [float(np.abs(a - b).max()) for a, b in itertools.pairwise(ends)]
    assert np.abs(orders(errors) - 1.0).max() < 0.1, errors


@pytest.mark.parametrize(
    ("case", "face", "backend", "low", "high"),
    [
        ("P3a", "arith", "cpu", 1.9, 2.1),
        ("P3b", "arith", "cpu", 1.9, 2.1),
        ("P3b", "arith", "reference", 1.9, 2.1),
        ("P3d", "arith", "cpu", 1.85, 2.1),  # the layer interface costs no order
        ("P3a", "upwind", "cpu", 0.75, 1.1),
        ("P3d", "upwind", "cpu", 0.75, 1.1),
    ],
)
def test_order_in_space(case: str, face: str, backend: str, low: float, high: float) -> None:
    sizes = (0.04, 0.02, 0.01, 0.005) if case == "P3a" else (0.1, 0.05, 0.025, 0.0125)
    until = 54000.0 if backend == "cpu" else 3600.0
    fields = [solve(case, dz, until, face, dt_fixed=600.0, backend=backend)[1] for dz in sizes]
    errors = [
        float(np.abs(coarse - fine.reshape(-1, 2).mean(1)).mean())
        for coarse, fine in itertools.pairwise(fields)
    ]
    found = orders(errors)
    assert (found > low).all(), (found, errors)
    assert (found < high).all(), (found, errors)


@pytest.mark.parametrize("case", ["P3a", "P3b", "P3c", "P3d"])
def test_towards_the_exact_solution(case: str) -> None:
    """With dt in proportion to dz^2 the error against the exact solution falls by 4 when dz is halved."""
    errors = []
    # P3a and P3c have a front that 0.1 m does not resolve.
    first = 0.04 if case in ("P3a", "P3c") else 0.1
    for level in range(3):
        z, psi = solve(case, first / 2**level, 54000.0, dt_fixed=1200.0 / 4**level, backend="cpu")
        errors.append(float(np.abs(psi - profile(case, 54000.0, z, "psi_m")).mean()))
    found = orders(errors)
    assert (found > 1.8).all(), (found, errors)
    assert (found < 2.2).all(), (found, errors)


def test_error_follows_time_error() -> None:
    """The error of a step goes with dt^2, so that of a run goes with the square root of `time_error`."""

    def end(time_error: float) -> Array:
        return solve("P3b", 0.05, 10800.0, time_error=time_error, dt_initial=1.0, backend="cpu")[1]

    exact = end(1e-9)
    errors = [float(np.abs(end(limit) - exact).max()) for limit in (1e-4, 1e-5, 1e-6)]
    found = orders(errors, ratio=10.0)
    assert np.abs(found - 0.5).max() < 0.1, (found, errors)
