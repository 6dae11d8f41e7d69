"""The words of a problem and their checks; from them what the column kernels read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgpde.boundary import Atmosphere, Boundary
from dgpde.frame import ANY, NOT_NEGATIVE, Frame, Stored, common_type, is_number, store, tensor_of
from dgpde.grid import Grid
from dgpde.kernels.column_flow.problem import ColumnProblem
from dgpde.options import SolveOptions
from dgpde.series import Value
from dgpde.soil import Soil
from dgpde.sources import River, RootUptake, Source, Well
from dgpde.stress import Feddes, NeuralStress, TabulatedStress

Times = Tensor | NDArray[np.generic] | Sequence[float]
Save = str | Sequence[int]
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Words:
    """The checked arguments of a ``Richards``: what stays the same from run to run."""

    grid: Grid
    soil: Soil
    boundaries: dict[str, Boundary]  # one for every side of the grid
    roots: RootUptake | None
    sources: tuple[Source, ...]
    wells: tuple[Well, ...]
    rivers: tuple[River, ...]
    specific_storage: Stored
    anisotropy: Stored
    face_mean: str
    engine: str

    @property
    def top(self) -> Boundary:
        """What happens at the surface."""
        return self.boundaries["top"]

    @property
    def bottom(self) -> Boundary:
        """What happens at the lowest face."""
        return self.boundaries["bottom"]

    def responses(self) -> dict[str, TabulatedStress | NeuralStress]:
        """What has a tabulated response to the head, by the kernels' names."""
        found: dict[str, TabulatedStress | NeuralStress] = {}
        if self.roots is not None and not isinstance(self.roots.response, Feddes):
            found["root_response"] = self.roots.response
        if isinstance(self.top, Atmosphere) and self.top.evaporation_response is not None:
            found["evaporation_response"] = self.top.evaporation_response
        return found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the words, for the choice of type and device."""
        yield "k_sat", self.soil.k_sat
        # On the grid's shape they are views, whose dimension says nothing: a number is looked at as it was
        # given.
        for name, value in self.soil.parameters_on(self.grid.shape).items():
            yield name, value if any(value.stride()) else value[(0,) * value.dim()]
        for boundary in self.boundaries.values():
            yield from boundary.tensors()
        if self.roots is not None:
            yield from self.roots.tensors()
        for source in self.sources:
            yield from source.tensors()
        places: tuple[Well | River, ...] = (*self.wells, *self.rivers)
        for place in places:
            yield from place.tensors()
        for name in ("specific_storage", "anisotropy"):
            tensor = tensor_of(getattr(self, name))
            if tensor is not None:
                yield name, tensor


@dataclass(frozen=True)
class Setup:
    """A run that is ready to be computed, whole or a span of intervals at a time.

    Attributes:
        problem: of the whole run.
        psi0: [nz, n] m, ponding0: [n] m; views of what was given.
    """

    words: Words
    problem: ColumnProblem
    frame: Frame
    psi0: Tensor
    ponding0: Tensor

    def span(self, first: int, last: int, save: tuple[int, ...]) -> tuple[ColumnProblem, dict[str, Tensor]]:
        """The problem of the intervals [first, last) and its inputs, initial state left out.

        Args:
            first, last: the intervals.
            save: indices into the span's own times whose psi is kept.
        """
        frame, words = replace(self.frame, first=first, last=last), self.words
        problem = replace(self.problem, times=self.problem.times[first : last + 1], save=save)
        inputs = {
            "k_sat": words.soil.k_sat_on(words.grid.shape, frame.dtype, frame.device),
            "specific_storage": frame.constant(
                "specific_storage", words.specific_storage, words.grid.shape, NOT_NEGATIVE
            ),
        }
        soil = words.soil.parameters_on(words.grid.shape, frame.dtype, frame.device)
        inputs |= {f"soil.{name}": value for name, value in soil.items()}
        for side, boundary in (("top", words.top), ("bottom", words.bottom)):
            values = boundary.inputs(frame, side)
            inputs |= {f"{side}.{name}": value for name, value in values.items()}
        if words.roots is not None:
            inputs |= words.roots.inputs(frame)
        for name, response in words.responses().items():
            inputs[name] = response.table(frame, name)
        if words.sources:
            total = sum(source.compact(frame, k) for k, source in enumerate(words.sources))
            assert isinstance(total, Tensor)
            inputs["source"] = frame.full(total, words.grid.shape)
        return problem, inputs


def compact_view(tensor: Tensor) -> Tensor:
    """A view in which every dimension of stride 0 has the size 1: the values that are really there."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


@dataclass(frozen=True)
class Start:
    """What every engine asks of the arguments of a run: times, frame and the state at the start."""

    times: Tensor
    frame: Frame
    psi0: Tensor
    ponding0: Tensor


def check_start(words: Words, psi0: Value, times: Times, options: SolveOptions, ponding0: Value) -> Start:
    """Check the arguments of a run against the words and fix its type and device.

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """
    if not isinstance(options, SolveOptions):
        raise TypeError(f"options must be a SolveOptions, not {type(options).__name__}")
    grid = words.grid
    seconds = check_times(times)
    start, ponding = store("psi0", psi0, ANY), store("ponding0", ponding0, NOT_NEGATIVE)
    given = [(name, tensor_of(value)) for name, value in (("psi0", start), ("ponding0", ponding))]
    tensors = [(name, tensor) for name, tensor in given if tensor is not None] + list(words.tensors())
    dtype, device = common_type(tensors)
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
    psi = frame.constant("psi0", start, grid.shape)
    standing = frame.constant("ponding0", ponding, grid.side_shape("top"), NOT_NEGATIVE)
    if not isinstance(words.top, Atmosphere) and bool((standing.detach() != 0).any()):
        raise ValueError(
            "ponding0 must be 0 unless the top boundary is an Atmosphere, which lets water stand"
        )
    return Start(seconds, frame, psi, standing)


def set_up(
    words: Words, psi0: Value, times: Times, options: SolveOptions, save: Save, ponding0: Value
) -> Setup:
    """A run of the column engine.

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """
    start = check_start(words, psi0, times, options, ponding0)
    grid, soil = words.grid, words.soil
    problem = ColumnProblem(
        n=grid.n,
        nz=grid.nz,
        dz=grid.dz,
        gravity=grid.gravity,
        relation=soil.relation,
        variant=soil.variant,
        face_mean=words.face_mean,
        top=words.top.kind,
        bottom=words.bottom.kind,
        roots=words.roots is not None,
        responses={name: response.knots for name, response in words.responses().items()},
        sources=bool(words.sources),
        times=start.times,
        save=check_save(save, start.times.numel()),
        options=options,
        classes=soil.classes_on(grid.shape, start.frame.device),
        knots=soil.knots,
    )
    return Setup(words, problem, start.frame, start.psi0, start.ponding0)


def check_times(times: Times) -> Tensor:
    """[T + 1] float64 s on the CPU, finite and strictly increasing, T at least 1."""
    if isinstance(times, Tensor):
        if times.requires_grad:
            raise ValueError("times requires a gradient, but none is computed to the output times: detach it")
        seconds = times.detach().to(device="cpu", dtype=torch.float64)
    else:
        try:
            array = np.asarray(times)
        except ValueError as error:
            raise TypeError(f"times is not a regular array of numbers ({error})") from error
        if array.dtype.kind not in "iuf":
            raise TypeError(f"times must hold numbers of seconds, not {array.dtype}")
        seconds = torch.from_numpy(array.astype(np.float64))
    if seconds.dim() != 1 or seconds.numel() < 2:
        raise ValueError(f"times has the shape {list(seconds.shape)}, it must be [T + 1] with T at least 1")
    if not bool(torch.isfinite(seconds).all()):
        raise ValueError("times has values that are not finite (NaN or infinite)")
    step = seconds.diff()
    if not bool((step > 0).all()):
        where = int((step <= 0).nonzero()[0])
        raise ValueError(
            f"times must increase, but times[{where + 1}] = {seconds[where + 1].item():g} s follows "
            f"times[{where}] = {seconds[where].item():g} s"
        )
    return seconds.contiguous()


def check_save(save: Save, count: int) -> tuple[int, ...]:
    """Indices into times whose psi is kept, from "all", "last", or increasing integers (-1 is the last)."""
    if isinstance(save, str):
        if save not in ("all", "last"):
            raise ValueError(f"save must be 'all', 'last' or indices into times, it is {save!r}")
        return tuple(range(count)) if save == "all" else (count - 1,)
    try:
        given = [int(index) for index in save] if not isinstance(save, int) else None
    except (TypeError, ValueError):
        given = None
    if given is None:
        raise TypeError("save must be 'all', 'last' or a sequence of integers")
    indices = tuple(index + count if index < 0 else index for index in given)
    if not indices:
        raise ValueError("save keeps no time; give at least one index, or 'last'")
    if min(indices) < 0 or max(indices) >= count:
        raise ValueError(f"save has an index outside of times, which has {count} entries")
    if any(second <= first for first, second in zip(indices, indices[1:], strict=False)):
        raise ValueError("save must increase, with no index twice")
    return indices


def kept_in(save: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
    """The saved times of the intervals [first, last) as indices into the span's own times.

    A time between two spans belongs to the earlier one; the start of the run belongs to the first.
    """
    return tuple(index - first for index in save if first < index <= last or index == first == 0)
