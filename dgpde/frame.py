"""From what users give to the tensors that a kernel reads: checks, broadcasting, type and device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.grid import Grid
from dgpde.series import Series, Value, numeric

Stored = float | Tensor | Series


@dataclass(frozen=True)
class Limits:
    """The range of a value; ``lower`` and ``upper`` belong to it unless they are open."""

    lower: float | None = None
    upper: float | None = None
    open_lower: bool = False
    open_upper: bool = False

    def check(self, name: str, value: Tensor) -> None:
        """Raise ValueError for values not finite or out of range; a meta tensor has none to check."""
        value = value.detach()
        if value.is_meta or value.numel() == 0:
            return
        low, high = (edge.item() for edge in torch.aminmax(value))  # both NaN where any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} has values that are not finite (NaN or infinite); fill or drop them")
        if self.lower is not None and (low <= self.lower if self.open_lower else low < self.lower):
            raise ValueError(
                f"{name} must be {'>' if self.open_lower else '>='} {self.lower:g}, it is {low:g}"
            )
        if self.upper is not None and (high >= self.upper if self.open_upper else high > self.upper):
            raise ValueError(
                f"{name} must be {'<' if self.open_upper else '<='} {self.upper:g}, it is {high:g}"
            )


ANY = Limits()
NOT_NEGATIVE = Limits(lower=0.0)
POSITIVE = Limits(lower=0.0, open_lower=True)


def store(name: str, value: Value, limits: Limits = ANY) -> Stored:
    """What is kept of a given value, a float, a tensor, or a Series; its type and range are checked.

    Numbers stay numbers, so that they take the type and the device of the tensors that they meet.
    """
    if isinstance(value, Series):
        limits.check(name, value.values)
        return value
    tensor = numeric(name, value)
    limits.check(name, tensor)
    return float(value) if isinstance(value, int | float) else tensor


def tensor_of(value: Stored) -> Tensor | None:
    """The tensor inside a stored value, None for a number."""
    if isinstance(value, Series):
        return value.values
    return value if isinstance(value, Tensor) else None


@dataclass
class Frame:
    """The shape, type and device that all inputs of a run share, and the span of intervals asked for.

    Attributes:
        grid: the grid; fields have its shape.
        intervals: T of the whole run, which every Series must have.
        dtype, device: of every tensor handed out.
        first, last: the intervals handed out, [first, last).
        seen: the compact tensors handed out so far, by name, for the fingerprint of a run on disk.
    """

    grid: Grid
    intervals: int
    dtype: torch.dtype
    device: torch.device
    first: int = 0
    last: int = -1
    seen: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.last < 0:
            self.last = self.intervals

    def constant(self, name: str, value: Stored, shape: tuple[int, ...], limits: Limits = ANY) -> Tensor:
        """A value without time, broadcast from the right to ``shape`` (a view; the graph is kept)."""
        if isinstance(value, Series):
            raise ValueError(f"{name} cannot vary in time; give a number or a tensor, not a Series")
        tensor = self._cast(name, value, limits)
        self._check_shape(name, tuple(tensor.shape), shape)
        return tensor.expand(shape)

    def compact(self, name: str, value: Stored, cell_shape: tuple[int, ...], limits: Limits = ANY) -> Tensor:
        """A value with time in front, not yet expanded: each dimension has its full size or 1.

        Args:
            name: what the messages call it.
            value: number, tensor that broadcasts to ``cell_shape``, or Series of [T, ...] that does.
            cell_shape: shape of one interval: of the grid, of its surface or of a side.
            limits: range of the value.

        Returns:
            [t or 1, *(full size or 1)], t = last - first.
        """
        tensor = self._cast(name, value.values if isinstance(value, Series) else value, limits)
        if not isinstance(value, Series):
            self._check_shape(name, tuple(tensor.shape), cell_shape)
            return tensor.reshape(*[1] * (1 + len(cell_shape) - tensor.dim()), *tensor.shape)
        if len(value) != self.intervals:
            raise ValueError(
                f"{name} is a Series of {len(value)} intervals, but times has {self.intervals}; "
                "give one value an interval (times has one entry more)"
            )
        self._check_shape(name, tuple(tensor.shape[1:]), cell_shape, "a Series whose intervals have")
        missing = 1 + len(cell_shape) - tensor.dim()
        tensor = tensor.reshape(tensor.shape[0], *[1] * missing, *tensor.shape[1:])
        return tensor[self.first : self.last]

    def series(self, name: str, value: Stored, side: str, limits: Limits = ANY) -> Tensor:
        """[t, *side] from a number, a tensor that broadcasts to the side, or a Series of them."""
        shape = self.grid.side_shape(side)
        return self.full(self.compact(name, value, shape, limits), shape)

    def full(self, tensor: Tensor, cell_shape: tuple[int, ...]) -> Tensor:
        """A compact tensor as a view of its full shape, [t, *cell_shape]."""
        return tensor.expand(self.last - self.first, *cell_shape)

    def _cast(self, name: str, value: float | Tensor, limits: Limits) -> Tensor:
        if not isinstance(value, Tensor):
            tensor = torch.tensor(value, dtype=self.dtype, device=self.device)
        else:
            if value.device != self.device and not is_number(value):
                raise ValueError(
                    f"{name} is on the device {value.device}, the run is on {self.device}; move it with .to()"
                )
            tensor = value.to(dtype=self.dtype, device=self.device)
        if name not in self.seen:
            limits.check(name, tensor)
            self.seen[name] = tensor.detach()
        return tensor

    def _check_shape(
        self, name: str, shape: tuple[int, ...], target: tuple[int, ...], what: str = "a tensor of"
    ) -> None:
        """Raise ValueError, with a hint, unless ``shape`` broadcasts from the right to ``target``."""
        pairs = zip(reversed(shape), reversed(target), strict=False)
        if len(shape) <= len(target) and all(given in (1, full) for given, full in pairs):
            return
        hint = ""
        if len(target) == 2 and shape == (target[0],):
            hint = "; a profile needs a column dimension: value[:, None]"
        elif shape and shape[0] == self.intervals:
            hint = "; a value that varies in time goes into Series(...)"
        raise ValueError(
            f"{name} is {what} the shape {list(shape)}, which does not broadcast to {list(target)}{hint}"
        )


def is_number(tensor: Tensor) -> bool:
    """True for a 0-dimensional CPU tensor, which takes type and device from the others, as PyTorch has it."""
    return tensor.dim() == 0 and tensor.device.type == "cpu"


def common_type(tensors: Iterable[tuple[str, Tensor]]) -> tuple[torch.dtype, torch.device]:
    """float32 when every tensor is, float64 otherwise; the device of the first one. Numbers have no say."""
    fields = [tensor for _, tensor in tensors if not is_number(tensor)]
    single = bool(fields) and all(tensor.dtype == torch.float32 for tensor in fields)
    return torch.float32 if single else torch.float64, fields[0].device if fields else torch.device("cpu")
