"""From what is known of a place to physical parameters: a small network whose outputs keep to their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = ("linear", "log")


@dataclass(frozen=True)
class Range:
    """The values that a parameter may take, and the one that it has until something is learned.

    A coordinate z in (-inf, inf) stands for the value, and z = 0 for ``start``; with c = spread z + c_start

        low + (high - low) sigmoid(c)        "linear"
        low (high/low)^sigmoid(c)            "log"
        low + exp(c)                         high = inf, either scale

    Args:
        start: the value at z = 0, within the bounds; a prior's median.
        low, high: bounds, never reached; ``high`` may be infinite (default), "log" with a finite one asks for low > 0.
        scale: "linear" (default) or "log".
        spread: change of c along one unit of z, > 0, default 1; a prior's standard deviation.

    Raises:
        ValueError: a number outside of what is said above.
    """

    start: float
    low: float = 0.0
    high: float = math.inf
    scale: str = "linear"
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale: is {self.scale!r}; choose one of {', '.join(SCALES)}")
        if not (math.isfinite(self.low) and self.low < self.high):
            raise ValueError(f"low: is {self.low}; must be finite and below high, which is {self.high}")
        if not self.low < self.start < self.high:
            raise ValueError(
                f"start: is {self.start}; must lie between the bounds {self.low} and {self.high}"
            )
        if self.scale == "log" and math.isfinite(self.high) and self.low <= 0.0:
            raise ValueError(f"low: is {self.low}; must be > 0 on a logarithmic scale")
        if not (math.isfinite(self.spread) and self.spread > 0.0):
            raise ValueError(f"spread: is {self.spread}; must be > 0")

    def _part(self, value: float) -> float:
        if self.scale == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def coordinate(self, value: float) -> float:
        """The z that stands for a value within the bounds."""

        def c(at: float) -> float:
            if math.isinf(self.high):
                return math.log(at - self.low)
            part = self._part(at)
            return math.log(part / (1.0 - part))

        if not self.low < value < self.high:
            raise ValueError(f"value: is {value}; must lie between the bounds {self.low} and {self.high}")
        return (c(value) - c(self.start)) / self.spread

    def value(self, z: Tensor) -> Tensor:
        """The values that coordinates stand for, shaped as z."""
        if math.isinf(self.high):
            return self.low + (self.start - self.low) * torch.exp(self.spread * z)
        part = self._part(self.start)
        # sigmoid(c), with c_start = log(part/(1 - part)): exactly `part` at z = 0
        away = torch.sigmoid(self.spread * z + math.log(part / (1.0 - part)))
        if self.scale == "log":
            return self.low * torch.exp(math.log(self.high / self.low) * away)
        return self.low + (self.high - self.low) * away


def values_of(ranges: Mapping[str, Range], coordinates: Tensor) -> dict[str, Tensor]:
    """Parameters by name, [...] each, of coordinates [..., parameters]."""
    parts = coordinates.unbind(-1)
    return {name: entry.value(z) for (name, entry), z in zip(ranges.items(), parts, strict=True)}


class ParameterNet(torch.nn.Module):
    """Attributes of a site, a column or a cell -> parameters, each within its bounds, whatever the weights are.

    A multilayer perceptron with tanh gives one coordinate for each parameter, its :class:`Range` makes the value. The
    last layer is zero at first, so every place has the ranges' ``start``. The outputs are tensors with a graph: give
    them to soils, boundaries and sources in any mixture with numbers, which stay frozen::

        net = dgpde.ParameterNet(3, {"alpha": Range(3.6), "n": Range(1.5, 1.05, 4.0), "k_sat": Range(1e-5)})
        p = net(texture)                                                  # [columns, 3] -> [columns] each
        soil = dgpde.VanGenuchten(0.05, 0.42, p["alpha"], p["n"], p["k_sat"])

    Args:
        attributes: numbers known of a place, >= 1; scaled to about [-1, 1].
        ranges: of the parameters, by name.
        hidden: units of the hidden layers, default one layer of 16; () is a linear map.
        seed: of the first weights; None (default) draws them from torch's own generator.
        dtype: torch.float64 (default) or torch.float32.

    Raises:
        TypeError, ValueError: the message starts with the argument's name.
    """

    def __init__(
        self,
        attributes: int,
        ranges: Mapping[str, Range],
        hidden: Sequence[int] = (16,),
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        sizes = [attributes, *hidden]
        for name, size in (("attributes", attributes), *(("hidden", size) for size in hidden)):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name}: holds a {type(size).__name__}; give integers")
            if size < 1:
                raise ValueError(f"{name}: holds {size}; must be at least 1")
        if not isinstance(ranges, Mapping) or not ranges:
            raise TypeError("ranges: must map the names of one parameter or more to their Range")
        for name, entry in ranges.items():
            if not isinstance(entry, Range):
                raise TypeError(f"ranges: {name!r} is a {type(entry).__name__}; give a Range")
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype: is {dtype}; give torch.float64 or torch.float32")
        self.ranges = dict(ranges)
        layers: list[torch.nn.Module] = []
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            for before, after in zip(sizes, sizes[1:], strict=False):
                layers += [torch.nn.Linear(before, after, dtype=dtype), torch.nn.Tanh()]
            last = torch.nn.Linear(sizes[-1], len(self.ranges), dtype=dtype)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        self.layers = torch.nn.Sequential(*layers, last)

    def coordinates(self, attributes: Tensor) -> Tensor:
        """[..., attributes] -> [..., parameters], 0 before training."""
        if not isinstance(attributes, Tensor):
            raise TypeError(f"attributes: is a {type(attributes).__name__}; give a tensor")
        first = next(self.layers.parameters())
        if attributes.dtype != first.dtype:
            raise TypeError(
                f"attributes: is {attributes.dtype}, the network is {first.dtype}; cast one of them"
            )
        if attributes.dim() == 0 or attributes.shape[-1] != first.shape[-1]:
            raise ValueError(
                f"attributes: has shape {tuple(attributes.shape)}; its last dimension must be {first.shape[-1]}"
            )
        found: Tensor = self.layers(attributes)
        return found

    def values(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Parameters by name, [...] each, of coordinates [..., parameters]."""
        return values_of(self.ranges, coordinates)

    def forward(self, attributes: Tensor) -> dict[str, Tensor]:
        """Parameters by name, [...] each, of attributes [..., attributes]."""
        return self.values(self.coordinates(attributes))
