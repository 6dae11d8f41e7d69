"""Transport of solutes with the water: the model that users run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dgpde.assembly import DEVICES, Times, check_times
from dgpde.errors import failure
from dgpde.frame import ANY, NOT_NEGATIVE, Frame, Stored, common_type, is_number, store, tensor_of
from dgpde.grid import SIDES, Grid
from dgpde.options import SolveOptions
from dgpde.reaction import Reaction
from dgpde.series import Value
from dgpde.solute import Freundlich, Langmuir, Solute
from dgpde.solution import Solution
from dgpde.steady_flow import SteadyFlow
from dgpde.transport_boundary import Concentration, InflowConcentration, SoluteBoundary
from dgpde.transport_columns import solve_columns
from dgpde.transport_solution import STATUS_TEXT, TransportSolution
from dgpde.transport_words import TransportSetup, TransportWords

DEFAULTS = SolveOptions()
SCHEMES = ("upwind", "central", "tvd")
Boundaries = Mapping[str, SoluteBoundary] | Mapping[str, Mapping[str, SoluteBoundary]]


class Transport:
    """Advection, dispersion, sorption and reactions of solutes on a grid, carried by a flow run.

    Args:
        grid: where the cells are; that of the flow run.
        solutes: one ``Solute``, or a list of them with different names, a parent before what it decays to. With a
            list results have an axis of solutes, also when it holds one.
        boundaries: names of sides to a boundary of all solutes, or names of solutes to such a mapping; a side that is
            not named is ``InflowConcentration(0)``.
        scheme: of advection: "upwind" (default; first order, positive), "central" (second order, may oscillate where
            grid Peclet numbers exceed 2: then it warns) or "tvd" (van Leer's limiter; positive and bounded).
        cross_terms: in sections and domains, the whole dispersion tensor instead of its diagonal; default False.
        reaction: what the solutes make of each other, a ``Reaction``; default None. It is solved by the field engine,
            in columns too, where each column of a flow run keeps the steps that it took.

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """

    def __init__(
        self,
        grid: Grid,
        solutes: Solute | Sequence[Solute],
        boundaries: Boundaries | None = None,
        scheme: str = "upwind",
        cross_terms: bool = False,
        reaction: Reaction | None = None,
    ) -> None:
        if not isinstance(grid, Grid):
            raise TypeError(f"grid must be a Grid, not {type(grid).__name__}")
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, it is {scheme!r}")
        if not isinstance(cross_terms, bool):
            raise TypeError(f"cross_terms must be True or False, not {type(cross_terms).__name__}")
        if cross_terms and not grid.lateral:
            raise ValueError("cross_terms has no meaning for columns, whose water moves along z only")
        kinds = _check_solutes(solutes)
        if reaction is not None:
            if not isinstance(reaction, Reaction):
                raise TypeError(f"reaction must be a Reaction or None, not {type(reaction).__name__}")
            reaction.check([solute.name for solute in kinds])
        self.grid = grid
        self.words = TransportWords(
            grid=grid,
            solutes=kinds,
            single=isinstance(solutes, Solute),
            boundaries=_check_boundaries(boundaries, grid, kinds),
            scheme=scheme,
            cross_terms=cross_terms,
            reaction=reaction,
        )

    def solve(
        self,
        c0: Value | Mapping[str, Value],
        flow: Solution | SteadyFlow,
        times: Times | None = None,
        options: SolveOptions = DEFAULTS,
    ) -> TransportSolution:
        """Carry the solutes along a flow run, on its accepted steps, or along a steady flow. Differentiable.

        A run of which no gradient was asked has kept no history: it is computed once more, to walk its steps, where the
        transport asks for gradients (in columns always). The backward sweep walks the flow's adjoint with it, so that
        one ``backward`` reaches the soil. In columns the type is float32 when the flow run and every tensor are and
        float64 otherwise, and a gradient or a tangent keeps 8 bytes (4) a cell, solute and accepted step (as many
        again for kinetic sorption, and for immobile water), or with ``Checkpoint(every=k)`` those of k intervals at a
        time and the states between.

        Args:
            c0: initial concentration of the water [kg/m3]; what broadcasts to ``grid.shape`` (a list of solutes:
                [S, *grid.shape]), or a mapping of the solutes' names to it.
            flow: what ``Richards.solve`` returned; gradients reach its inputs. Or a ``SteadyFlow``.
            times: [T + 1] output times [s], only and always with a ``SteadyFlow``. Its steps are those of
                ``options.dt_fixed``, or one an interval unless ``dt_max`` asks for more.
            options: linear_tolerance, checkpoint, backend, on_failure; dt_fixed and dt_max of a ``SteadyFlow``. In
                columns the checkpoint policy of the flow run holds for the transport on it.

        Raises:
            TypeError, ValueError: an argument of the wrong kind, shape, type, device or range.
            SolveError: a step could not be solved and ``options.on_failure`` is "raise".
        """
        setup = self.set_up(c0, flow, times, options)
        rides = isinstance(flow, Solution) and flow.field_run is not None
        if self.grid.lateral or rides or self.words.reaction is not None:
            from dgpde.transport_field import solve_field_transport

            return solve_field_transport(setup)
        solution = solve_columns(setup)
        if options.on_failure == "raise" and bool((solution.status != 0).any()):
            raise failure(solution.status, solution.failed_time, STATUS_TEXT)
        return solution

    def set_up(
        self,
        c0: Value | Mapping[str, Value],
        flow: Solution | SteadyFlow,
        times: Times | None,
        options: SolveOptions,
    ) -> TransportSetup:
        """Check the arguments of a run and fix its type and device; see ``solve`` for them.

        Raises:
            TypeError, ValueError: the message starts with the name of the argument.
        """
        if not isinstance(options, SolveOptions):
            raise TypeError(f"options must be a SolveOptions, not {type(options).__name__}")
        words, grid = self.words, self.grid
        given = (
            []
            if isinstance(flow, SteadyFlow)
            else [("psi", flow.psi)]
            if isinstance(flow, Solution)
            else None
        )
        if given is None:
            raise TypeError(
                f"flow must be a Solution of Richards.solve or a SteadyFlow, not {type(flow).__name__}"
            )
        if isinstance(flow, Solution):
            if times is not None:
                raise ValueError("times must be left out with a flow run, whose own output times are taken")
            if not flow.grid.same_as(grid):
                raise ValueError(
                    f"flow was run on {flow.grid!r}, the transport is on {grid!r}: use one grid for both"
                )
            seconds = flow.times
            if not bool(torch.isfinite(seconds).all()):
                raise ValueError(
                    "flow is a steady state, which has no steps to ride on; run from it with Richards.solve over the "
                    "times of the transport"
                )
        else:
            if times is None:
                raise ValueError("times must be given with a SteadyFlow: [T + 1] output times [s]")
            seconds = check_times(times)
            given = list(flow.tensors())
        start = self._initial(c0)
        tensors = given + [(name, t) for name, t in self._initial_tensors(start)] + list(words.tensors())
        if isinstance(flow, Solution):
            dtype, device = flow.psi.dtype, flow.psi.device
        else:
            dtype, device = common_type(tensors)
        if words.reaction is not None:  # networks are cast to the type of the run, and have no say in it
            tensors += list(words.reaction.tensors())
        for name, tensor in tensors:
            if not is_number(tensor) and tensor.device != device:
                raise ValueError(
                    f"{name} is on the device {tensor.device}, the run is on {device}; move it with .to()"
                )
            if tensor.device.type not in DEVICES:
                raise ValueError(
                    f"{name} is on the device {tensor.device}; move it to one of {', '.join(DEVICES)}"
                )
        frame = Frame(grid, seconds.numel() - 1, dtype, device)
        setup = TransportSetup(words, flow, seconds, frame, self._stacked(frame, start), options)
        for solute in words.solutes:
            setup.solute_inputs(solute)  # raises, by name, for what does not broadcast
        if isinstance(flow, SteadyFlow):
            flow.inputs(frame)
        return setup

    def _initial(self, c0: Value | Mapping[str, Value]) -> Stored | dict[str, Stored]:
        """The initial concentrations as given, of all solutes or by name."""
        if not isinstance(c0, Mapping):
            limits = NOT_NEGATIVE if any(_positive_only(solute) for solute in self.words.solutes) else ANY
            return store("c0", c0, limits)
        for name in c0:
            if name not in self.words.names:
                raise ValueError(f"c0 names {name!r}; the solutes are {', '.join(self.words.names)}")
        found = {}
        for solute in self.words.solutes:
            if solute.name not in c0:
                raise ValueError(f"c0 has no entry for {solute.name!r}; give one for each solute")
            limits = NOT_NEGATIVE if _positive_only(solute) else ANY
            found[solute.name] = store(f"c0[{solute.name!r}]", c0[solute.name], limits)
        return found

    def _initial_tensors(self, start: Stored | dict[str, Stored]) -> Iterator[tuple[str, Tensor]]:
        values = start if isinstance(start, dict) else {"": start}
        for name, value in values.items():
            tensor = tensor_of(value)
            if tensor is not None:
                yield f"c0[{name!r}]" if name else "c0", tensor

    def _stacked(self, frame: Frame, start: Stored | dict[str, Stored]) -> Tensor:
        """[S, *grid.shape]"""
        shape = self.grid.shape
        if isinstance(start, dict):
            return torch.stack(
                [frame.constant(f"c0[{name!r}]", value, shape) for name, value in start.items()]
            )
        if self.words.single:
            return frame.constant("c0", start, shape)[None]
        return frame.constant("c0", start, (len(self.words.solutes), *shape))

    def __repr__(self) -> str:
        return f"Transport({self.grid!r}, {', '.join(self.words.names)}, scheme={self.words.scheme!r})"


def _positive_only(solute: Solute) -> bool:
    """Whether negative concentrations have no meaning: the isotherm is one of amounts."""
    return isinstance(solute.sorption, Freundlich | Langmuir)


def _check_solutes(solutes: Solute | Sequence[Solute]) -> tuple[Solute, ...]:
    if isinstance(solutes, Solute):
        if solutes.parent is not None:
            raise ValueError(
                f"solutes is {solutes.name!r} alone, whose parent {solutes.parent!r} is not there"
            )
        return (solutes,)
    if isinstance(solutes, str) or not isinstance(solutes, Sequence):
        raise TypeError(f"solutes must be a Solute or a list of them, it is a {type(solutes).__name__}")
    if not solutes:
        raise ValueError("solutes holds no solute; give at least one")
    seen: list[str] = []
    for k, solute in enumerate(solutes):
        if not isinstance(solute, Solute):
            raise TypeError(f"solutes[{k}] must be a Solute, not {type(solute).__name__}")
        if solute.name in seen:
            raise ValueError(f"solutes holds {solute.name!r} twice; names must differ")
        if solute.parent is not None and solute.parent not in seen:
            raise ValueError(
                f"solutes[{k}] ({solute.name!r}) has the parent {solute.parent!r}, which does not stand before it"
            )
        seen.append(solute.name)
    return tuple(solutes)


def _check_boundaries(
    boundaries: Boundaries | None, grid: Grid, solutes: tuple[Solute, ...]
) -> dict[str, dict[str, SoluteBoundary]]:
    """A boundary for every solute and side."""
    given = {} if boundaries is None else boundaries
    if not isinstance(given, Mapping):
        raise TypeError(f"boundaries must map names of sides to boundaries, it is a {type(given).__name__}")
    names = [solute.name for solute in solutes]
    by_solute = any(isinstance(value, Mapping) for value in given.values())
    if by_solute:
        for name, value in given.items():
            if name not in names:
                raise ValueError(f"boundaries names {name!r}; the solutes are {', '.join(names)}")
            if not isinstance(value, Mapping):
                raise TypeError(
                    f"boundaries[{name!r}] must map names of sides to boundaries, as its other entries do, "
                    f"not be a {type(value).__name__}"
                )
    found = {}
    for solute in solutes:
        mine = given.get(solute.name, {}) if by_solute else given
        called = f"boundaries[{solute.name!r}]" if by_solute else "boundaries"
        found[solute.name] = _check_sides(called, mine, grid, solute)  # type: ignore[arg-type]
    return found


def _check_sides(
    called: str, given: Mapping[str, SoluteBoundary], grid: Grid, solute: Solute
) -> dict[str, SoluteBoundary]:
    found: dict[str, SoluteBoundary] = {side: InflowConcentration(0.0) for side in grid.sides}
    there = ", ".join(repr(side) for side in grid.sides)
    for side, boundary in given.items():
        if side not in SIDES:
            raise ValueError(f"{called} has the unknown side {side!r}; this grid has {there}")
        if side not in found:
            raise ValueError(f"{called} names {side!r}, but this grid has only {there}")
        if not isinstance(boundary, SoluteBoundary):
            raise TypeError(
                f"{called}[{side!r}] must be a boundary of solutes such as InflowConcentration, "
                f"not {type(boundary).__name__}"
            )
        if _positive_only(solute) and isinstance(boundary, Concentration | InflowConcentration):
            tensor = tensor_of(boundary.values()["c"])
            value = torch.tensor(boundary.c) if tensor is None else tensor
            NOT_NEGATIVE.check(f"{called}[{side!r}]", value)
        found[side] = boundary
    return found
