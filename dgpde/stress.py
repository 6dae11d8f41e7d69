"""Response of root uptake to pressure head, a(psi) in [0, 1]: by four heads, by a table, or learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dgpde.frame import ANY, NOT_NEGATIVE, Frame, Limits, Stored, store, tensor_of
from dgpde.series import Value, numeric
from dgpde.soil.tabulated import check_range, inner_slopes

DAY = 86400.0


@dataclass(frozen=True, eq=False)
class Feddes:
    """Response of root uptake to pressure head: 0 for psi >= h1, 1 between h2 and h3, 0 for psi <= h4.

    Feddes, Kowalik & Zaradny 1978, Simulation of Field Water Use and Crop Yield. It is linear in between. h3
    follows the demand of the air: h3_high at or above the transpiration ``rate_high``, h3_low at or below
    ``rate_low``, linear between the two (as HYDRUS has it). The defaults are those of grass (Wesseling,
    Elbers, Kabat & van den Broek 1991).

    Args:
        h1, h2: heads of the wet side [m], defaults -0.1 and -0.25.
        h3_high, h3_low: where stress begins at high and at low demand [m], defaults -2 and -8.
        h4: wilting point [m], default -80.
        rate_high, rate_low: the two transpiration rates [m/s], defaults 5 and 1 mm/d.

    Raises:
        TypeError, ValueError: a value of the wrong kind; h1 > h2 > h3_high >= h3_low > h4 and
            rate_high > rate_low >= 0 are asked for when a run is set up.
    """

    h1: Value = -0.1
    h2: Value = -0.25
    h3_high: Value = -2.0
    h3_low: Value = -8.0
    h4: Value = -80.0
    rate_high: Value = 5e-3 / DAY
    rate_low: Value = 1e-3 / DAY

    def __post_init__(self) -> None:
        for entry in fields(self):
            limits = NOT_NEGATIVE if entry.name.startswith("rate") else ANY
            object.__setattr__(self, entry.name, store(entry.name, getattr(self, entry.name), limits))

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        found = ((name, tensor_of(value)) for name, value in self._values().items())
        return [(name, tensor) for name, tensor in found if tensor is not None]

    def _values(self) -> dict[str, Stored]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def inputs(self, frame: Frame, transpiration: Tensor) -> dict[str, Tensor]:
        """h1, h2, h3, h4 [t, *top] for the intervals of the frame.

        Args:
            frame: shape, type and device of the run.
            transpiration: [t or 1, *(top or 1)] potential transpiration, m/s.

        Raises:
            ValueError: the heads or the rates are not in their order.
        """
        surface = frame.grid.side_shape("top")
        h = {
            name: frame.compact(f"{name} of Feddes", value, surface) for name, value in self._values().items()
        }
        for upper, lower in (("h1", "h2"), ("h2", "h3_high"), ("h3_low", "h4"), ("rate_high", "rate_low")):
            if not bool((h[upper].detach() > h[lower].detach()).all()):
                raise ValueError(f"{upper} of Feddes must be greater than {lower} everywhere")
        if not bool((h["h3_high"].detach() >= h["h3_low"].detach()).all()):
            raise ValueError(
                "h3_high of Feddes must not be below h3_low: stress begins earlier at high demand"
            )
        demand = (transpiration - h["rate_low"]) / (h["rate_high"] - h["rate_low"])
        h3 = h["h3_low"] + demand.clamp(0.0, 1.0) * (h["h3_high"] - h["h3_low"])
        return {
            name: frame.full(value, surface)
            for name, value in (("h1", h["h1"]), ("h2", h["h2"]), ("h3", h3), ("h4", h["h4"]))
        }


@dataclass(frozen=True, eq=False)
class TabulatedStress:
    """Response of root uptake by a table: a C1 cubic in x = ln(-psi) that between two knots stays between their values.

    Knots stand at equal distances of x from ``psi_range[0]`` (wettest) to ``psi_range[1]`` (driest). Wetter than the
    first a is the first value, drier than the last it is 0; slopes at both ends are 0. The values may rise and fall.
    Gradients flow to every knot, hence to whatever computed them.

    Args:
        values: a at the knots [n_knots] or [n_class, n_knots], in [0, 1], 0 at the last; at least 4 knots.
        psi_range: heads of the first and the last knot [m], 0 > first > last; the last is wilting.
        classes: integer class of each column [n], of sections and domains [*top]; may be left out for one class.

    Raises:
        TypeError, ValueError: a value of the wrong kind, shape or range; a class for every column is asked for when a
            run is set up.
    """

    values: Tensor
    psi_range: tuple[float, float]
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        values = numeric("values", self.values)
        object.__setattr__(self, "values", values)
        if values.dim() not in (1, 2) or values.shape[-1] < 4:
            raise ValueError(
                f"values has the shape {list(values.shape)}; give [n_knots] or [n_class, n_knots] with 4 knots or more"
            )
        Limits(lower=0.0, upper=1.0).check("values", values)
        if bool((values.detach()[..., -1] != 0.0).any()):
            raise ValueError(
                "values must be 0 at the last knot: roots that go on below it dry the soil without bound"
            )
        check_range(self.psi_range)
        n_class = values.shape[0] if values.dim() == 2 else 1
        if self.classes is None:
            if n_class > 1:
                raise ValueError(
                    f"classes are needed with {n_class} classes; give the class index of each column"
                )
            return
        if not isinstance(self.classes, Tensor) or self.classes.dtype not in (
            torch.int64,
            torch.int32,
            torch.int16,
        ):
            raise TypeError("classes must be an integer tensor, the class index of each column")
        if self.classes.numel() and not (int(self.classes.min()) >= 0 and int(self.classes.max()) < n_class):
            raise ValueError(f"classes must lie in [0, {n_class - 1}], the classes of the table")

    @property
    def knots(self) -> tuple[float, float]:
        """(ln of the first knot's suction, spacing in ln)."""
        first, last = (math.log(-head) for head in self.psi_range)
        return first, (last - first) / (self.values.shape[-1] - 1)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """The table, for the choice of type and device."""
        return [("values of TabulatedStress", self.values)]

    def table(self, frame: Frame, name: str) -> Tensor:
        """The kernel's table [n_knots, 2, *top] for a run: a and da/dx of each column.

        Args:
            frame: shape, type and device of the run.
            name: what the frame knows the table by.

        Raises:
            ValueError: classes has not one entry for each column.
        """
        surface = frame.grid.side_shape("top")
        values = torch.atleast_2d(self.values)
        secant = values.diff(dim=-1) / self.knots[1]
        end = torch.zeros_like(values[:, :1])
        table = torch.stack([values, torch.cat([end, inner_slopes(secant), end], -1)], -1)
        if self.classes is not None:
            if tuple(self.classes.shape) != surface:
                raise ValueError(
                    f"classes of TabulatedStress has the shape {list(self.classes.shape)}, it must be {list(surface)}"
                )
            table = table[self.classes.to(device=table.device, dtype=torch.int64)]
        else:
            table = table.reshape(*[1] * len(surface), -1, 2)
        return frame.constant(name, table.movedim((-2, -1), (0, 1)), (values.shape[1], 2, *surface))


#: The largest value of the prior of a ``NeuralStress``: from 1 itself no departure leads down.
PLATEAU = 0.98


class NeuralStress(torch.nn.Module):
    """A learned response of root uptake: four heads in the form of Feddes, and what a network departs from it.

    With F(psi) the trapezoid of Feddes through ``prior`` = (h1, h2, h3, h4), X = ln(-psi) scaled to [-1, 1] between h1
    and h4, and the features x of a column

        a = p/(p + (1 - p) exp(-D)),  p = 0.98 F(psi),   D = c + V.x + sum_j s_j tanh(w_j X + b_j + U_j.x)

    so that a lies in [0, 1], is 0 at h1 and wetter and at h4 and drier, and may take any form in between, for every
    value of the weights. At s = c = V = 0, where it begins, D is 0: an untrained response is its prior, lowered by 2 %.

    With two heads, ``prior`` = (h1, h4), it has no wet side, as for ``Atmosphere(evaporation_response=...)``: p = F
    falls linearly in ln(-psi) from 1 at h1 to 0 at h4, and a is 1 at h1 and wetter for every value of the weights.

    Whenever a run is set up, the network is evaluated at ``n_knots`` heads for each column and becomes a
    ``TabulatedStress``: a cell costs what a table costs, however large the network. Gradients flow to the weights, as
    with any module, and to the features.

    Args:
        prior: heads h1 > h2 >= h3 > h4 [m], negative; default those of grass (see ``Feddes``) with h3 = -4; or two,
            h1 > h4. They bound what can be learned: take h1 wet and h4 dry enough.
        features: what the response may depend on besides the head, such as demand, vegetation, salinity: one value for
            each, a number or [n] (of sections and domains [*top]), scaled to about [-1, 1]. Default none.
        units: of the hidden layer, default 8.
        n_knots: default 96.
        seed: of the first weights; None (default) draws them from torch's own generator.
        dtype: of the weights, torch.float64 (default) or torch.float32.

    Attributes (``nn.Parameter``): scale [units], s; rate [units], w; bias [units], b; mix [units, features], U;
        shift [], c; shift_mix [features], V.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range; weights that are not finite when a run is set up.
    """

    def __init__(
        self,
        prior: Sequence[float] = (-0.1, -0.25, -4.0, -80.0),
        features: Sequence[float | Tensor] = (),
        units: int = 8,
        n_knots: int = 96,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        heads = tuple(float(head) for head in prior)
        if (
            len(heads) not in (2, 4)
            or not 0.0 > heads[0] > heads[1] > -math.inf
            or (len(heads) == 4 and not heads[1] >= heads[2] > heads[3] > -math.inf)
        ):
            raise ValueError(
                f"prior must be four heads with 0 > h1 > h2 >= h3 > h4, or two with 0 > h1 > h4, it is {prior}"
            )
        if isinstance(features, Tensor | str) or not isinstance(features, Sequence):
            raise TypeError(
                f"features must be a list of numbers and tensors, not a {type(features).__name__}"
            )
        for name, value, least in (("units", units, 1), ("n_knots", n_knots, 4)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, it is {value!r}")
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, it is {dtype}")
        self.prior, self.n_knots = heads, n_knots
        self.features = [store(f"features[{k}]", value, ANY) for k, value in enumerate(features)]
        generator = None if seed is None else torch.Generator().manual_seed(seed)

        def drawn(*shape: int, deviation: float) -> torch.nn.Parameter:
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter((deviation * noise).to(dtype))

        def zeros(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(shape, dtype=dtype))

        count = len(self.features)
        self.scale, self.shift, self.shift_mix = zeros(units), zeros(), zeros(count)
        self.rate, self.mix = drawn(units, deviation=3.0), drawn(units, count, deviation=0.5)
        # the places where the units turn lie evenly over the heads at first
        with torch.no_grad():
            self.bias = torch.nn.Parameter(-self.rate * torch.linspace(-0.9, 0.9, units, dtype=dtype))

    def forward(self, psi: Tensor) -> Tensor:
        """a at heads.

        Args:
            psi: [m] m.

        Returns:
            [n or 1, m], one row for each column where the features differ, in the order of memory.
        """
        h1, h4 = self.prior[0], self.prior[-1]
        first, last = math.log(-h1), math.log(-h4)
        # the logarithm is not taken where the prior is 0 or 1 and the network has no say
        inside = (psi < h1) & (psi > h4)
        x = (torch.log(-torch.where(inside, psi, h4)) - 0.5 * (first + last)) / (0.5 * (last - first))
        if len(self.prior) == 4:
            _, h2, h3, _ = self.prior
            p = PLATEAU * torch.minimum((h1 - psi) / (h1 - h2), (psi - h4) / (h3 - h4)).clamp(0.0, 1.0)
        else:
            p = torch.where(psi >= h1, 1.0, torch.where(inside, 0.5 * (1.0 - x), 0.0))
        given = [value.flatten() for value in self._together(x)]
        shift, turn = self.shift.to(x)[None], self.bias.to(x)[None]  # [n or 1], [n or 1, units]
        for k, feature in enumerate(given):
            shift = shift + self.shift_mix[k].to(x) * feature
            turn = turn + feature[:, None] * self.mix[:, k].to(x)
        hidden = torch.tanh(self.rate.to(x) * x[:, None] + turn[:, None, :])  # [n or 1, m, units]
        departure = shift[:, None] + hidden @ self.scale.to(x)
        return torch.sigmoid(torch.logit(p) + departure)

    def _together(self, sample: Tensor) -> list[Tensor]:
        """The features in their common shape."""
        values = [torch.atleast_1d(torch.as_tensor(value).to(sample)) for value in self.features]
        return list(torch.broadcast_tensors(*values)) if values else []

    def baked(self) -> TabulatedStress:
        """The table of this response at its present weights, with their graph.

        Raises:
            ValueError: weights or features are not finite.
        """
        h1, h4 = self.prior[0], self.prior[-1]
        for name, value in self.tensors():
            ANY.check(name, value)
        psi = -torch.exp(torch.linspace(math.log(-h1), math.log(-h4), self.n_knots, dtype=torch.float64))
        psi[0], psi[-1] = h1, h4  # where a is 0 or 1, to the last bit
        values = self(psi.to(self.bias.device))
        classes = None
        if values.shape[0] > 1:
            classes = torch.arange(values.shape[0]).reshape(self._together(values)[0].shape)
        return TabulatedStress(values, (h1, h4), classes)

    @property
    def knots(self) -> tuple[float, float]:
        """(ln of the first knot's suction, spacing in ln)."""
        first, last = math.log(-self.prior[0]), math.log(-self.prior[-1])
        return first, (last - first) / (self.n_knots - 1)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Weights and features, for the choice of type and device."""
        given = ((f"features[{k}] of NeuralStress", value) for k, value in enumerate(self.features))
        weights = [(f"{name} of NeuralStress", value) for name, value in self.named_parameters()]
        return weights + [(name, value) for name, value in given if isinstance(value, Tensor)]

    def table(self, frame: Frame, name: str) -> Tensor:
        """The kernel's table, as ``TabulatedStress.table`` has it."""
        surface = frame.grid.side_shape("top")
        for k, value in enumerate(self.features):
            frame.constant(f"features[{k}] of NeuralStress", value, surface)
        table = self.baked()
        if table.classes is not None:
            table = replace(table, classes=table.classes.expand(surface))
        return table.table(frame, name)
