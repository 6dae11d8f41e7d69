"""Transport on columns: from the words to what the kernels read, and back."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from dgpde.frame import Stored
from dgpde.kernels.column_transport.function import column_transport
from dgpde.kernels.column_transport.problem import (
    FLOW_FAILED,
    SoluteProblem,
    TransportProblem,
    TransportReport,
    TransportResult,
)
from dgpde.kernels.column_transport.water import FlowWater, SteadyRows, Water
from dgpde.options import SolveOptions
from dgpde.solute import MILLINGTON_QUIRK, Freundlich, Langmuir, Linear, Solute
from dgpde.solution import Solution
from dgpde.transport_solution import Mass, TransportSolution
from dgpde.transport_words import TransportSetup

OSCILLATES = 2.0  # grid Peclet number beyond which central differences may


def solve_columns(setup: TransportSetup) -> TransportSolution:
    """Run the column engine.

    Raises:
        ValueError: the flow run cannot be ridden on, or its tensors are not on the CPU.
    """
    if setup.frame.device.type != "cpu":
        raise ValueError(
            "flow is on a GPU; transport in columns runs on the CPU only: move the tensors with .cpu()"
        )
    water, evaporation = water_of(setup)
    solutes: list[SoluteProblem] = []
    inputs: dict[str, Tensor] = {}
    for i, solute in enumerate(setup.words.solutes):
        values = _inputs(setup, i, solute)
        solutes.append(_problem(setup, solute, tuple(values)))
        inputs |= {f"{i}.{name}": value for name, value in values.items()}
    grid = setup.words.grid
    problem = TransportProblem(
        n=grid.n,
        nz=grid.nz,
        dz=grid.dz,
        times=setup.times,
        scheme=setup.words.scheme,
        solutes=tuple(solutes),
        evaporation=evaporation,
        dtype=setup.frame.dtype,
        linear_tolerance=setup.options.linear_tolerance,
    )
    result = column_transport(problem, inputs, water, setup.options.backend)
    _warn_of_oscillation(problem, result.report)
    return _solution(setup, result)


def water_of(setup: TransportSetup) -> tuple[Water, bool]:
    """The water, and whether what leaves at the top evaporates."""
    flow = setup.flow
    if isinstance(flow, Solution):
        if flow.ride is None:
            raise ValueError(
                "flow must be a run of the column engine that Richards.solve has just made, without progress: one "
                "that was read from a file, streamed, computed in blocks or by the reference has no steps to ride on"
            )
        return FlowWater(flow.ride), flow.ride.trajectory.problem.top == "atmosphere"
    found = flow.inputs(setup.frame)
    steps = steady_steps(setup.times, setup.options)
    return SteadyRows(found["theta"], found["flux.z"], steps, setup.options.checkpoint), False


def steady_steps(times: Tensor, options: SolveOptions) -> list[list[float]]:
    """Equal steps of each interval [s]: of dt_fixed at most, or as few as dt_max allows."""
    longest = options.dt_fixed or options.dt_max
    found = []
    for length in times.diff().tolist():
        count = max(1, math.ceil(length / longest * (1.0 - 1e-9)))
        found.append([length / count] * count)
    return found


def _problem(setup: TransportSetup, solute: Solute, present: tuple[str, ...]) -> SoluteProblem:
    words, sorption = setup.words, solute.sorption
    sides = words.boundaries[solute.name]
    return SoluteProblem(
        isotherm="none" if sorption is None else sorption.kind,
        kinetic=sorption is not None and "rate" in sorption.values(),
        immobile=solute.immobile is not None,
        uptake=solute.uptake == "passive",
        evaporates=solute.evaporates,
        diffusion_power=10.0 / 3.0 if isinstance(solute.tortuosity, str) else 1.0,
        parent=-1 if solute.parent is None else words.names.index(solute.parent),
        top=sides["top"].kind,
        bottom=sides["bottom"].kind,
        present=present,
    )


def _inputs(setup: TransportSetup, number: int, solute: Solute) -> dict[str, Tensor]:
    """The kernel's inputs of one solute; those that are plain zeros are left out."""
    given, values = solute.values(), setup.solute_inputs(solute)

    def there(name: str) -> bool:
        value: Stored = given[name]
        return not isinstance(value, float) or value != 0.0

    found = {"c0": setup.c0[number]}
    if there("longitudinal_dispersivity"):
        found["dispersivity"] = values["longitudinal_dispersivity"]
    if there("diffusion"):
        if solute.tortuosity == MILLINGTON_QUIRK:
            found["diffusion"] = values["diffusion"] / _theta_s(setup).square()
        else:
            found["diffusion"] = values["diffusion"] * values["tortuosity"]
    if there("decay"):
        found["decay"] = values["decay"]
    sorption = solute.sorption
    if isinstance(sorption, Linear):
        found["capacity"] = values["sorption.bulk_density"] * values["sorption.k_d"]
    elif isinstance(sorption, Freundlich):
        found["capacity"] = values["sorption.bulk_density"] * values["sorption.k_f"]
        found["shape"] = values["sorption.exponent"]
    elif isinstance(sorption, Langmuir):
        found["capacity"] = (
            values["sorption.bulk_density"] * values["sorption.s_max"] * values["sorption.k_l"]
        )
        found["shape"] = values["sorption.k_l"]
    if "sorption.rate" in values:
        found["sorption_rate"] = values["sorption.rate"]
    if solute.immobile is not None:
        found["immobile_theta"], found["immobile_rate"] = values["immobile.theta"], values["immobile.rate"]
    if solute.parent is not None:
        found["yield"] = values["yield_"]
    for name, ours in (("production", "production"), ("source_concentration", "source_c")):
        if there(name):
            found[ours] = values[name]
    for side in ("top", "bottom"):
        for name in ("c", "f"):
            if f"{side}.{name}" in values:
                found[side] = values[f"{side}.{name}"]
    return found


def _theta_s(setup: TransportSetup) -> Tensor:
    """Water content at saturation, [nz, n]."""
    if isinstance(setup.flow, Solution):
        return setup.flow.theta_at_saturation()
    return setup.flow.inputs(setup.frame)["theta_s"]


def _warn_of_oscillation(problem: TransportProblem, report: TransportReport) -> None:
    if problem.scheme != "central":
        return
    peclet, courant = report.peclet.max().item(), report.courant.max().item()
    if peclet > OSCILLATES:
        warnings.warn(
            f"scheme 'central' may oscillate: the largest grid Peclet number is {peclet:.3g} (more than "
            f"{OSCILLATES:g}), the largest Courant number {courant:.3g}; refine the layers, raise the dispersivity, "
            "or take 'tvd' or 'upwind'",
            stacklevel=4,
        )


def _solution(setup: TransportSetup, result: TransportResult) -> TransportSolution:
    """The result in the shapes that users see, with nan in all that a failed column did not reach."""
    report, flow = result.report, setup.flow
    status, failed_time = report.status, report.failed_time
    if isinstance(flow, Solution):
        lost = (status == 0) & (flow.status != 0)
        status = torch.where(lost, torch.full_like(status, FLOW_FAILED), status)
        failed_time = torch.where(lost, flow.failed_time, failed_time)
    concentration, fluxes, mass = result.concentration, [result.top_flux, result.bottom_flux], report.mass
    if bool((status != 0).any()):
        late = setup.times[:, None] > failed_time[None, :]  # [T + 1, n]; nan compares false
        concentration = _masked(concentration, late[:, None, None])
        fluxes = [_masked(flux, late[1:, None]) for flux in fluxes]
        mass = _masked(mass, late[:, None, None])
    moved = report.moved
    still = moved == 0.0
    error = torch.where(
        still, torch.zeros_like(moved), report.imbalance.abs() / torch.where(still, 1.0, moved)
    )
    if setup.words.single:
        concentration, fluxes, mass = concentration[:, 0], [flux[:, 0] for flux in fluxes], mass[:, 0]
        error, moved = error[0], moved[0]
    dissolved, sorbed, immobile = mass.unbind(-2)
    return TransportSolution(
        setup.words.grid,
        setup.times,
        setup.words.names,
        concentration=concentration,
        solute_flux=dict(zip(("top", "bottom"), fluxes, strict=True)),
        mass=Mass(dissolved, sorbed, immobile),
        mass_balance_error=error,
        mass_moved=moved,
        status=status,
        failed_time=failed_time,
        iterations=report.iterations,
    )


def _masked(value: Tensor, late: Tensor) -> Tensor:
    return torch.where(late, torch.full((), torch.nan, dtype=value.dtype), value)
