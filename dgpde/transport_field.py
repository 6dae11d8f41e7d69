"""Transport on the field engine: from the words of a problem to the stencil's tensors, and to a result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from dgpde.errors import SolveError
from dgpde.grid import Grid
from dgpde.kernels.column_transport.water import FlowWater
from dgpde.kernels.flow_stencil.problem import AXES, SIDES
from dgpde.kernels.node import as_node, is_tracked
from dgpde.kernels.transport_stencil.cell import Species, Values
from dgpde.kernels.transport_stencil.function import choose_network
from dgpde.kernels.transport_stencil.problem import Geometry
from dgpde.kernels.transport_stencil.reaction import FEATURES, PointRate
from dgpde.solute import Solute
from dgpde.solution import Solution
from dgpde.steady_flow import SteadyFlow
from dgpde.trajectory import FieldRun
from dgpde.transport_columns import water_of
from dgpde.transport_ride import FlowRide, Ride, SteadyRide
from dgpde.transport_rounds import ColumnRide, RoundsRun
from dgpde.transport_run import TransportRun
from dgpde.transport_solution import Mass, TransportSolution
from dgpde.transport_words import TransportSetup

OSCILLATES = 2.0  # grid Peclet number beyond which central differences may
RENAMED = {
    "sorption.k_d": "k_d",
    "sorption.k_f": "k_f",
    "sorption.exponent": "exponent",
    "sorption.k_l": "k_l",
    "sorption.s_max": "s_max",
    "sorption.bulk_density": "bulk_density",
    "sorption.rate": "rate",
    "immobile.theta": "immobile_theta",
    "immobile.rate": "immobile_rate",
    "yield_": "yield",
}


def solve_field_transport(setup: TransportSetup) -> TransportSolution:
    """Run solutes on a section, a domain or columns as one system; arguments as for ``Transport.solve``.

    Raises:
        TypeError, ValueError, SolveError: as ``Transport.solve``.
    """
    run, inputs = set_up_field_transport(setup)
    tracked = any(is_tracked(inputs[name]) for name in run.names)
    if tracked and isinstance(run.ride, FlowRide) and not run.ride.run.record:
        run.ride.run = _recorded(run.ride.run, inputs)
    out = as_node(run, inputs)
    if run.account.peclet > OSCILLATES:
        warnings.warn(
            f"scheme 'central' may oscillate: the largest grid Peclet number is {run.account.peclet:.3g} (more than "
            f"{OSCILLATES:g}), the largest Courant number {run.account.courant:.3g}; refine the grid, raise the "
            "dispersivity, or take 'tvd' or 'upwind'",
            stacklevel=3,
        )
    solution = _solution(setup, run, out)
    if run.account.failed is not None and setup.options.on_failure == "raise":
        raise SolveError(
            f"transport could not go on in the interval that begins at {run.account.failed:.6g} s: "
            f"{run.account.reason}. Shorten the steps of the flow (dt_max, dt_fixed, time_error), loosen "
            "linear_tolerance, or pass options=SolveOptions(on_failure='return') to receive what there is.",
            times=torch.tensor([run.account.failed], dtype=torch.float64),
        )
    return solution


def _recorded(flow: FieldRun, inputs: Values) -> FieldRun:
    """A flow run without a gradient has kept no history: the same run once more, with it."""
    again = replace(flow)
    again.record = True
    again.forward({name: inputs[f"water.{name}"].detach() for name in flow.names})
    return again


def set_up_field_transport(setup: TransportSetup) -> tuple[TransportRun, Values]:
    """The run and its differentiable inputs."""
    words, grid, frame = setup.words, setup.words.grid, setup.frame
    if frame.dtype != torch.float64:
        raise ValueError(
            f"c0 and the other tensors are {frame.dtype}; the field engine computes in float64: cast them"
        )
    make_engine = choose_network(frame.device, setup.options.backend)
    shape = _kernel_shape(grid)
    geometry = Geometry(
        shape=shape,
        widths=_widths(grid, frame.device),
        axes=tuple(k for k in range(3) if shape[k] > 1 and (grid.lateral or k == 0)),
        active=None if grid.active is None else grid.active.reshape(shape).to(frame.device),
        scheme=words.scheme,
        cross_terms=words.cross_terms,
    )
    flow = setup.flow
    inputs: Values = {"c0": setup.c0.reshape(-1, *shape)}
    ride: Ride
    sources = atmosphere = False
    if isinstance(flow, SteadyFlow):
        water = _steady(flow.inputs(frame), grid, geometry)
        every = _every(setup)
        ride = SteadyRide(geometry, _sides(grid), _steps(setup), every)
        theta_s = water.pop("theta_s")
    elif flow.field_run is None and not grid.lateral:
        column_ride = _column_ride(setup)
        ride = cast(Ride, column_ride)  # walked by RoundsRun, which knows it
        water = dict(zip(ride.names, column_ride.flow.tensors, strict=True))
        sources, atmosphere, theta_s = column_ride.sources, column_ride.atmosphere, None
    else:
        field_run, flow_inputs = _field_run(flow)
        ride = FlowRide(field_run, geometry)
        water = dict(flow_inputs)
        problem = field_run.problem
        if problem.roots:
            _check_passive(words.solutes, "in sections and domains")
        sources = problem.source or problem.wells is not None or problem.rivers is not None or problem.roots
        atmosphere = problem.sides.get("top") == "atmosphere"
        theta_s = None
    inputs |= {f"water.{name}": water[name] for name in ride.names}
    given = [setup.solute_inputs(solute) for solute in words.solutes]
    species, names = [], []
    for number, (solute, values) in enumerate(zip(words.solutes, given, strict=True)):
        if theta_s is None and _diffuses(solute) and not _numeric_tortuosity(solute):
            assert isinstance(flow, Solution)
            theta_s = flow.theta_at_saturation().reshape(shape)
        mine = _numbers(solute, values, geometry, theta_s)
        kind = _species(words.names, solute, number, setup, geometry, sources, atmosphere, ride, mine)
        species.append(kind)
        names.append(tuple(mine))
        inputs |= {f"{number}.{name}": value for name, value in mine.items()}
    reaction = None
    if words.reaction is not None:
        reaction, mine = point_rate(setup, geometry)
        theta = water["theta"] if isinstance(flow, SteadyFlow) else flow.theta_at_saturation().reshape(shape)
        reaction.check(inputs["c0"].detach(), theta.detach(), {k: v.detach() for k, v in mine.items()})
        names.append(tuple(mine))
        inputs |= {f"{len(species)}.{name}": value for name, value in mine.items()}
    make = RoundsRun if isinstance(ride, ColumnRide) else TransportRun
    run = make(
        geometry=geometry,
        species=tuple(species),
        times=setup.times,
        ride=ride,
        values=tuple(names),
        options=setup.options,
        make_engine=make_engine,
        reaction=reaction,
    )
    return run, inputs


def point_rate(setup: TransportSetup, geometry: Geometry) -> tuple[PointRate, Values]:
    """The reaction as the kernel calls it, and its tensors by the kernel's names."""
    words, frame = setup.words, setup.frame
    assert words.reaction is not None
    function = words.reaction.function(words.names, words.single, frame.dtype)
    given = words.reaction.inputs(frame)
    shape, count = words.grid.shape, len(words.solutes)
    short = {name: FEATURES if name == FEATURES else f"w{k}" for k, name in enumerate(given)}

    def call(c: Tensor, theta: Tensor, values: Values) -> Tensor:
        own = {
            name: values[key].reshape(-1, *shape) if key == FEATURES else values[key]
            for name, key in short.items()
        }
        return function(c.reshape(count, *shape), theta.reshape(shape), own)

    tensors = {
        short[name]: value.reshape(-1, *geometry.shape) if name == FEATURES else value
        for name, value in given.items()
    }
    return PointRate(call, geometry.volume, geometry.active), tensors


def _species(
    names: tuple[str, ...],
    solute: Solute,
    number: int,
    setup: TransportSetup,
    geometry: Geometry,
    sources: bool,
    atmosphere: bool,
    ride: Ride,
    mine: Values,
) -> Species:
    open_sides = tuple(ride.run.problem.sides) if isinstance(ride, FlowRide) else ride.sides  # type: ignore[attr-defined]
    sides = {}
    for side in SIDES:
        boundary = setup.words.boundaries[solute.name].get(side)
        if boundary is None:
            continue
        if side in open_sides:
            sides[side] = boundary.kind
        elif boundary.kind in ("concentration", "solute_flux"):
            raise ValueError(
                f"boundaries[{side!r}] is a {type(boundary).__name__}, but no water passes that side in the flow run: "
                "give the flow a boundary there, Flux(0) if it is closed for water only"
            )
    for name in [name for name in mine if "." in name and name.partition(".")[0] not in sides]:
        del mine[name]
    return Species(
        sorption=None if solute.sorption is None else solute.sorption.kind,
        kinetic="rate" in mine,
        immobile=solute.immobile is not None,
        decays="decay" in mine,
        produces="production" in mine,
        parent=None if solute.parent is None else names.index(solute.parent),
        sides=sides,
        evaporates=solute.evaporates,
        atmosphere=atmosphere,
        sources=sources,
    )


def _numbers(solute: Solute, values: Values, geometry: Geometry, theta_s: Tensor | None) -> Values:
    """The numbers of a solute that matter, by the kernel's names."""
    shape, found = geometry.shape, {}

    def cells(name: str) -> Tensor:
        return _compact(
            values[name].reshape(shape) if values[name].dim() == len(values["decay"].shape) else values[name]
        )

    def zero(value: object) -> bool:
        return isinstance(value, float) and value == 0.0

    if not zero(solute.longitudinal_dispersivity):
        found["longitudinal"] = cells("longitudinal_dispersivity")
    across = solute.transverse_dispersivity
    if isinstance(across, tuple):
        for part, axis in zip(across, ("horizontal", "vertical"), strict=True):
            if not zero(part):
                found[axis] = cells(f"transverse_dispersivity.{axis}")
    elif not zero(across):
        found["horizontal"] = found["vertical"] = cells("transverse_dispersivity")
    if _diffuses(solute):
        found["diffusion"] = cells("diffusion")
        if _numeric_tortuosity(solute):
            found["tortuosity"] = cells("tortuosity")
        else:
            assert theta_s is not None
            found["theta_s"] = theta_s
    if not zero(solute.decay):
        found["decay"] = cells("decay")
    if solute.parent is not None:
        found["yield"] = cells("yield_")
    for name, short in RENAMED.items():
        if name in values and name != "yield_":
            found[short] = cells(name)
    for name in ("production", "source_concentration"):
        if name == "production" and zero(solute.production):
            continue
        series = values[name]
        found[name] = (
            _once(series).reshape(-1, *shape) if series.stride(0) == 0 else series.reshape(-1, *shape)
        )
    for side in SIDES:
        for name in ("c", "f"):
            if f"{side}.{name}" in values:
                found[f"{side}.{name}"] = _once(values[f"{side}.{name}"]).reshape(
                    -1, *geometry.side_area(side).shape
                )
    return found


def _compact(value: Tensor) -> Tensor:
    """A number that all cells share with sizes of 1 instead of the grid's."""
    return value[(slice(0, 1),) * value.dim()] if not any(value.stride()) else value


def _once(value: Tensor) -> Tensor:
    """A series that does not vary in time with its first interval alone."""
    return value[:1] if value.stride(0) == 0 else value


def _diffuses(solute: Solute) -> bool:
    return not (isinstance(solute.diffusion, float) and solute.diffusion == 0.0)


def _numeric_tortuosity(solute: Solute) -> bool:
    return not isinstance(solute.tortuosity, str)


def _kernel_shape(grid: Grid) -> tuple[int, int, int]:
    if len(grid.shape) == 3:
        return grid.shape[0], grid.shape[1], grid.shape[2]
    return grid.shape[0], 1, grid.shape[1]


def _widths(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    one = torch.ones(1, dtype=torch.float64, device=device)
    dz, *others = (size.to(device) for size in grid.spacing)
    if not grid.lateral:
        return dz, one, one.expand(grid.n)
    if len(others) == 1:
        return dz, one, others[0]
    return dz, others[0], others[1]


def _sides(grid: Grid) -> tuple[str, ...]:
    return tuple(side for side in SIDES if side in grid.sides)


def _steady(found: Values, grid: Grid, geometry: Geometry) -> Values:
    """The kernel's tensors of a steady flow."""
    shape = geometry.shape
    water = {"theta": found["theta"].reshape(shape), "theta_s": found["theta_s"].reshape(shape)}
    for axis in range(3):
        name = f"flux.{AXES[axis]}"
        if name not in found:
            continue
        sizes = tuple(size + (1 if k == axis else 0) for k, size in enumerate(shape))
        flux = found[name].reshape(sizes)
        last = shape[axis]
        low, high = SIDES[2 * axis], SIDES[2 * axis + 1]
        water[f"side.{low}"] = flux.select(axis, 0) * geometry.side_area(low)
        water[f"side.{high}"] = -flux.select(axis, last) * geometry.side_area(high)
        if axis in geometry.axes:
            inner = flux.narrow(axis, 1, last) * geometry.area[axis]
            water[f"flow_{AXES[axis]}"] = torch.where(geometry.inverse[axis] > 0.0, inner, 0.0)
    return water


def _every(setup: TransportSetup) -> int:
    checkpoint, intervals = setup.options.checkpoint, setup.times.numel() - 1
    return (checkpoint.every or 1) if checkpoint is not None and checkpoint.policy == "every" else intervals


def _steps(setup: TransportSetup) -> list[tuple[int, float]]:
    """(interval, length) of the steps of a steady flow: of dt_fixed, or one an interval unless dt_max says less."""
    options, found = setup.options, []
    limit = options.dt_fixed or options.dt_max
    for interval, length in enumerate(setup.times.diff().tolist()):
        count = max(1, math.ceil(length / limit * (1.0 - 1e-9)))
        found += [(interval, length / count)] * count
    return found


def _column_ride(setup: TransportSetup) -> ColumnRide:
    """The steps of a run of the column engine, on which solutes that a reaction joins ride."""
    flow = setup.flow
    assert isinstance(flow, Solution)
    if setup.frame.device.type != "cpu":
        raise ValueError(
            "flow is a run of columns on a GPU; a reaction rides on those of the CPU: move its tensors with .cpu()"
        )
    if bool((flow.status != 0).any()):
        raise ValueError(
            "flow has columns that failed; a reaction needs a run of which all columns came to their end"
        )
    _check_passive(setup.words.solutes, "with a reaction")
    water, _ = water_of(setup)
    return ColumnRide(cast(FlowWater, water))


def _check_passive(solutes: Sequence[Solute], where: str) -> None:
    for solute in solutes:
        if solute.uptake != "passive":
            raise ValueError(
                f"uptake of {solute.name!r} is {solute.uptake!r}; {where} roots take solutes up with the water: leave "
                "it 'passive'"
            )


def _field_run(flow: Solution) -> tuple[FieldRun, Values]:
    if flow.field_run is None:
        raise ValueError("flow has not kept its run: only what Richards.solve returns can carry solutes")
    run, inputs = flow.field_run
    if run.account.status != 0:
        raise ValueError(
            f"flow failed at {run.account.failed_time:.6g} s; transport needs a run that came to its end"
        )
    return run, inputs


def _solution(setup: TransportSetup, run: TransportRun, out: Values) -> TransportSolution:
    """The run's outputs in the shapes of the grid."""
    words, grid, account = setup.words, setup.words.grid, run.account
    count = len(run.species)

    def shaped(value: Tensor, *size: int) -> Tensor:
        full = value.reshape(value.shape[0], count, *size)
        return full[:, 0] if words.single else full

    flux = {}
    for side in grid.sides:
        size = grid.side_shape(side)
        zero = out["c"].new_zeros((run.intervals, count, *size))
        flux[side] = shaped(out.get(side, zero), *size)
    total = run.mass[0] + run.mass[1] + run.mass[2]
    change = total[-1] - total[0]

    def one(value: Tensor) -> Tensor:
        return value[:, None] if not words.single else value

    moved = account.moved + change.abs()
    error = (change - account.entered - account.carried).abs()
    relative = torch.where(moved > 0.0, error / torch.where(moved > 0.0, moved, 1.0), 0.0)
    failed = account.failed is not None
    return TransportSolution(
        grid,
        setup.times,
        words.names,
        concentration=shaped(out["c"], *grid.shape),
        solute_flux=flux,
        mass=Mass(*(shaped(part, 1) for part in run.mass)),
        mass_balance_error=one(relative),
        mass_moved=one(moved),
        status=torch.tensor([1 if failed else 0], dtype=torch.int32),
        failed_time=torch.tensor(
            [account.failed if account.failed is not None else math.nan], dtype=torch.float64
        ),
        iterations=torch.tensor([account.iterations]),
    )
