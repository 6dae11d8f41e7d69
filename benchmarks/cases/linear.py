"""The linear solver on the systems of `benchmarks.linear`: set-up and solve, and the transposed solve."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks import linear
from benchmarks.measure import Measurement, Timing, timed
from benchmarks.torch_device import peak_memory, reset_peak_memory, synchronizer
from dgpde.linear import LinearResult, LinearSolver, StencilMatrix


def make(device: str) -> LinearSolver:
    """The device's own solver."""
    return LinearSolver(tolerance=linear.TOLERANCE, backend="cpu" if device == "cpu" else "triton")


def solve(matrix: StencilMatrix, rhs: Tensor) -> tuple[LinearResult, int]:
    """Everything that a new matrix needs, and the memory that the solver held [bytes]."""
    solver = make(matrix.device.type)
    solver.setup(matrix)
    return solver.solve(rhs), solver.nbytes


def measure(name: str, size: int, device: str, repeats: int) -> Measurement:
    """Check the values, then time set-up and solve together, and set-up alone."""
    system = linear.system(name)
    if size != system.rhs[0].size:
        raise ValueError(f"size: the {name} has {system.rhs[0].size} columns, not {size}")
    matrix = StencilMatrix(torch.from_numpy(system.coefficients()).to(device), symmetric=True)
    rhs, wait = torch.from_numpy(system.rhs).to(device), synchronizer(device)
    memory = {"start": reset_peak_memory(device)}
    found, held = solve(matrix, rhs)
    memory["forward"] = peak_memory(device)
    memory["planned forward"] = float(held + found.x.nbytes)
    checks = linear.check(name, found.x.cpu().numpy(), found.residual)

    whole, setup = Timing(), Timing()
    for _ in range(repeats):
        timed(partial(solve, matrix, rhs), whole, wait)
        solver = make(device)
        solver.setup(matrix)
        timed(solver.prepare, setup, wait)
    return Measurement(
        forward=whole.summary(),
        backward=None,
        gradient=None,
        peak_memory=memory,
        cell_steps=float(rhs.numel()),
        newton_iterations=float(found.iterations),
        checks=checks,
        extra={"setup": setup.summary(), "tolerance": linear.TOLERANCE},
    )


slab = partial(measure, "slab")
step = partial(measure, "step")
cube = partial(measure, "cube")
