"""The front of tracer of `benchmarks.tracer`: steady water, one linear solute, 200 steps."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import dgpde
from benchmarks.measure import Measurement, Timing, peak_memory, reset_peak_memory, timed
from benchmarks.tracer import DT, DZ, NZ, SORBED, STEPS, T_END, TARGET, THETA, check, columns


def solve(flux: Tensor, spread: Tensor) -> dgpde.TransportSolution:
    """Run; flux and spread [n]."""
    solute = dgpde.Solute(
        "tracer", longitudinal_dispersivity=spread, sorption=dgpde.Linear(SORBED / 1500.0, 1500.0)
    )
    grid = dgpde.Grid.columns(n=flux.numel(), dz=[DZ] * NZ)
    model = dgpde.Transport(grid, solute, {"top": dgpde.InflowConcentration(1.0)})
    return model.solve(0.0, dgpde.SteadyFlow(THETA, -flux), [0.0, T_END], dgpde.SolveOptions(dt_fixed=DT))


def loss_of(run: dgpde.TransportSolution) -> Tensor:
    """Distance of the last profile from a concentration."""
    return (run.concentration[-1] - TARGET).square().sum() * DZ


def measure(size: int, device: str, repeats: int) -> Measurement:
    """Check column 0, then time forward, and forward and backward."""
    if device != "cpu":
        raise ValueError(f"device is {device!r}; transport in columns runs on the CPU only")
    flux, spread = (torch.from_numpy(value).requires_grad_() for value in columns(size))
    memory = {"start": reset_peak_memory()}
    with torch.no_grad():
        run = solve(flux, spread)
    memory["forward"] = peak_memory()
    loss_of(solve(flux, spread)).backward()
    memory["backward"] = peak_memory()
    assert spread.grad is not None
    last = run.concentration[-1, :, 0]
    found = {
        "held": float(run.mass.total[-1, 0]),
        "c_30cm": float(0.5 * (last[NZ - 30] + last[NZ - 31])),
        "grad_spread": float(spread.grad[0]),
    }
    checks = check(found)
    forward, taped, backward = Timing(), Timing(), Timing()
    for _ in range(repeats):
        with torch.no_grad():
            timed(partial(solve, flux, spread), forward)
        loss = timed(lambda: loss_of(solve(flux, spread)), taped)
        timed(loss.backward, backward)
    return Measurement(
        forward=forward.summary(),
        backward=backward.summary(),
        gradient=(taped + backward).summary(),
        peak_memory=memory,
        cell_steps=float(NZ * STEPS * size),
        newton_iterations=1.0,
        checks=checks,
    )
