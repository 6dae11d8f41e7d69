"""A value that varies in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Number = int | float


class Series:
    """Values that are constant on each of the T output intervals of a run.

    Args:
        values: [T], [T, n] or, where a value belongs to a cell, [T, nz, n]; tensor, array or nested sequence.
            The first dimension is time, the others broadcast from the right against the shape of one
            interval, so that [T, nz, 1] is a profile for all columns. A tensor keeps its graph: series are
            differentiable.

    Raises:
        TypeError: values is not numeric, or a tensor of integers.
        ValueError: values has no time dimension or no interval.
    """

    def __init__(self, values: Tensor | NDArray[np.generic] | Sequence[object]) -> None:
        self.values = numeric("values", values)
        if self.values.dim() == 0:
            raise ValueError(
                "values must have time as its first dimension; it is one number, which needs no Series"
            )
        if self.values.shape[0] == 0:
            raise ValueError("values holds no interval; give one entry for each of the T intervals")

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __repr__(self) -> str:
        return f"Series({list(self.values.shape)}, {self.values.dtype})"


Value = Number | Tensor | Series | NDArray[np.generic] | Sequence[object]


def numeric(name: str, value: object) -> Tensor:
    """A floating tensor from a number, tensor, array or nested sequence; a tensor is returned as it is.

    Raises:
        TypeError: anything else, and tensors or arrays that are not float32 or float64 (integer arrays and
            sequences are read as float64: they carry no gradient that a cast could break).
    """
    if isinstance(value, Tensor):
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{name} is a tensor of {value.dtype}; only float64 and float32 are computed with: cast it"
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | np.ndarray | np.generic | list | tuple):
        raise TypeError(f"{name} must be a number, a tensor or a Series, not {type(value).__name__}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name} is not a regular array of numbers ({error})") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    dtype = torch.float32 if array.dtype == np.float32 else torch.float64
    return torch.as_tensor(np.array(array), dtype=dtype)
