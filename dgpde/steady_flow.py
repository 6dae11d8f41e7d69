"""Water that does not change, for transport without a flow run: data and checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dgpde.frame import ANY, POSITIVE, Frame, Stored, store, tensor_of
from dgpde.grid import Grid
from dgpde.series import Series, Value

AXES = ("z", "y", "x")
IMBALANCE = 1e-6  # of the largest flux; what is less is carried with the concentration of the cell


class SteadyFlow:
    """Water content and face fluxes that stay as they are.

    Args:
        theta: water content [-], positive; what broadcasts to ``grid.shape``.
        flux: [m/s], positive along the axis (up). Columns: a number or what broadcasts to [nz + 1, n], the faces from
            the lowest to the highest. Sections and domains: a mapping of "z", "y" (domains), "x" to the fluxes
            through the faces across that axis, both ends included: what broadcasts to ``grid.shape`` with one more
            along the axis; an axis that is left out has none.
        theta_s: water content at saturation [-], which Millington & Quirk's tortuosity asks for; default ``theta``.

    All of them may be tensors that ask for a gradient.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range.
    """

    def __init__(self, theta: Value, flux: Value | Mapping[str, Value], theta_s: Value | None = None) -> None:
        self.theta = _constant("theta", theta, POSITIVE)
        self.theta_s = None if theta_s is None else _constant("theta_s", theta_s, POSITIVE)
        if isinstance(flux, Mapping):
            for axis in flux:
                if axis not in AXES:
                    raise ValueError(f"flux has the unknown axis {axis!r}; axes are {', '.join(AXES)}")
            self.flux = {axis: _constant(f"flux[{axis!r}]", value) for axis, value in flux.items()}
        else:
            self.flux = {"z": _constant("flux", flux)}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        named = {"theta": self.theta, "theta_s": self.theta_s}
        named |= {f"flux[{axis!r}]": value for axis, value in self.flux.items()}
        for name, value in named.items():
            tensor = None if value is None else tensor_of(value)
            if tensor is not None:
                yield name, tensor

    def inputs(self, frame: Frame) -> dict[str, Tensor]:
        """theta and theta_s [*grid.shape], "flux.z" and so on with one more along their axis.

        Raises:
            ValueError: a shape that does not fit the grid, or fluxes that are not in balance in some cell.
        """
        grid = frame.grid
        axes: tuple[str, ...] = AXES if len(grid.shape) == 3 else ("z", "x")
        axes = axes if grid.lateral else ("z",)
        for axis in self.flux:
            if axis not in axes:
                raise ValueError(f"flux names the axis {axis!r}; this grid has {', '.join(axes)}")
        theta = frame.constant("theta", self.theta, grid.shape, POSITIVE)
        theta_s = theta
        if self.theta_s is not None:
            theta_s = frame.constant("theta_s", self.theta_s, grid.shape, POSITIVE)
        found = {"theta": theta, "theta_s": theta_s}
        for place, axis in enumerate(axes):
            shape = tuple(size + (1 if d == place else 0) for d, size in enumerate(grid.shape))
            name = f"flux[{axis!r}]" if grid.lateral else "flux"
            found[f"flux.{axis}"] = frame.constant(name, self.flux.get(axis, 0.0), shape)
        _check_balance(grid, axes, found)
        return found


def _constant(name: str, value: Value, limits: object = ANY) -> Stored:
    if isinstance(value, Series):
        raise ValueError(
            f"{name} cannot vary in time in a SteadyFlow; give a number or a tensor, or a flow run"
        )
    return store(name, value, limits)  # type: ignore[arg-type]


def _check_balance(grid: Grid, axes: tuple[str, ...], found: dict[str, Tensor]) -> None:
    """Raise where more water enters a cell than leaves it, or less."""
    gain = torch.zeros(grid.shape, dtype=torch.float64)
    largest = torch.zeros(grid.shape, dtype=torch.float64)
    for place, axis in enumerate(axes):
        across = torch.ones((), dtype=torch.float64)
        if grid.lateral:
            for d, sizes in enumerate(grid.spacing):
                across = across[..., None] * (torch.ones_like(sizes) if d == place else sizes)
        else:
            across = across.expand(1, 1)
        flux = found[f"flux.{axis}"].detach().to(device="cpu", dtype=torch.float64)
        count = flux.shape[place] - 1
        low, high = flux.narrow(place, 0, count) * across, flux.narrow(place, 1, count) * across
        gain += low - high
        largest = torch.maximum(largest, torch.maximum(low.abs(), high.abs()))
    inside = grid.active if grid.active is not None else torch.ones(grid.shape, dtype=torch.bool)
    wrong = (gain.abs() > IMBALANCE * largest) & inside
    if bool(wrong.any()):
        where = tuple(int(index) for index in wrong.nonzero()[0])
        share = (gain[where] / largest[where]).item()
        raise ValueError(
            f"flux is not in balance: cell {where} gains {share:.3g} of the largest flux through its faces, and so do "
            f"{int(wrong.sum()) - 1} more; a steady flow has no divergence"
        )
