"""Learned retention and conductivity: a van Genuchten-Mualem prior whose suction axis two monotone networks warp.

Definition. With h = -psi [m], u = ln h, the features x of a cell and the prior's Se(u), kr(u) (both 1 as u -> -inf,
0 as u -> +inf, falling strictly in between):

    u_1 = u + D_1(u, x)          theta = theta_r + (theta_s - theta_r) Se(u_1)
    u_2 = u_1 + D_2(u_1, x)      kr    = kr_prior(u_2)

    D(u, x) = D_0 s(c + V.x) + sum_j (p_j/w_j) s(w_j (u - u_j) + U_j.x),      s(t) = t/sqrt(1 + t^2)

Any pair of strictly falling curves with these limits has this form, with u_1 = Se^-1(Se_true(u)) and likewise for kr.

Weights. s rises, with 0 < s' = (1 + t^2)^(-3/2) <= 1, so that

    dD/du = sum_j p_j s'(t_j) > -1   for every u and x, if   sum_j max(-p_j, 0) < 1

The free numbers slope_j, of which p_j is made, therefore enter as r_j = 100 s(slope_j/100) and

    p_j = r_j / (1 + sum_k [ phi(-r_k) + phi(r_k)/P ]),   phi(r) = (r + sqrt(r^2 + e^2))/2 > max(r, 0),   e = 0.1

whence sum_j max(-p_j, 0) < 1 and sum_j max(p_j, 0) < P, whatever r is; and as |r| < 100, 1 + dD/du stays above
1/(2 + 101 units), far from round-off. w_j = 5^s(rate_j) lies in (1/5, 5). Hence, for every value of every weight and
feature:

- theta falls strictly from theta_s (psi -> 0) to theta_r (psi -> -inf), since d theta/du = Se'(u_1) (1 + D_1') < 0;
- kr lies in (0, 1), is 1 at saturation and falls strictly with the suction, since
  d kr/du = kr'(u_2) (1 + D_2') (1 + D_1') < 0; u_1 is a function of theta alone, so kr is one too, and rises with it;
- |D| < D_0 + 5 P: the curves keep the prior's power laws far out on both sides, shifted;
- all is analytic in psi < 0, in the weights and in the features; at psi = 0 the curves are as smooth as the prior's.

At r = c = V = 0, where networks begin, D is exactly 0: an untrained soil is its prior.

Slopes, from which the capacity C = -(d theta/du)/h follows; f = y/(1 + y), g = 1 - f, y = (alpha h)^n of the prior:

    d theta/du = -(theta_s - theta_r)(n - 1) f(u_1) Se(u_1) (1 + D_1')
    d ln kr/du = -(n - 1)(l f + 2 g (1 - A)/A)(u_2) (1 + D_2')(1 + D_1')

Prior: van Genuchten (1980), Mualem (1976). A warp of the argument bounded in slope is how invertible residual networks
stay monotone (Behrmann et al. 2019, ICML); monotone networks by signs of weights: Sill (1998, NIPS), Daniels & Velikova
(2010, IEEE Trans. Neural Netw. 21, 906).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dgpde.kernels.node import is_tracked
from dgpde.kernels.soil_relation.function import soil_relation
from dgpde.kernels.soil_relation.module import WEIGHT, SoilFunction
from dgpde.kernels.soil_relation.reference_network import FEATURES, Curves, curves, warped, warped_ln
from dgpde.soil.base import Soil, Value
from dgpde.soil.roughness import bends, log10_suction
from dgpde.soil.tabulated import check_range
from dgpde.soil.van_genuchten import VanGenuchten

ROUTES = ("fused", "baked", "torch")
RELATIONS = {"fused": "network", "baked": "tabulated", "torch": "module"}
PRIOR = ("theta_r", "theta_s", "alpha", "n", "l")

#: D_0: the largest shift of a whole curve, a factor of 100 in suction.
LARGEST_SHIFT = math.log(100.0)
#: w_j lies between this number's inverse and it, per unit of ln h.
LARGEST_RATE = 5.0
#: Bound of r.
LARGEST_SLOPE = 100.0
#: e in phi.
SOFTNESS = 0.1


def bounded(t: Tensor) -> Tensor:
    """s(t) = t/sqrt(1 + t^2), in (-1, 1)."""
    return t * torch.rsqrt(1.0 + t * t)


class SoilNetwork(torch.nn.Module):
    """The two monotone networks of a :class:`NeuralSoil`; its ``parameters()`` are what an optimiser trains.

    One network may serve any number of soils, columns and mini-batches at the same time: it holds nothing of them.

    Args:
        units: hidden units of each curve, 1 to 16, default 8.
        features: numbers of a cell that both curves depend on besides psi, default 0; scaled to about [-1, 1] they
            and the first weights go well together.
        psi_range: heads [m] between which the units are centred at first, wettest and driest, default (-0.01, -1e3).
        steepest: P, the bound of the sum of the positive slopes p_j, > 0, default 8: locally the curves may be up to
            1 + P times as steep in ln h as the prior's.
        seed: of the features' first weights, which are drawn; default 0.
        dtype: of the parameters, torch.float64 (default) or torch.float32.

    Attributes (``nn.Parameter``), the first dimension being retention, conductivity:
        slope: r = 100 s(slope/100), [2, units], 0 at first.
        rate: [2, units], w = 5^s(rate), 0 at first.
        centre: u_j [2, units], ln of suctions in m, evenly over ``psi_range`` at first.
        shift: c, [2], 0 at first.
        mix: U, [2, units, features], normal with standard deviation 0.5 at first.
        shift_mix: V, [2, features], 0 at first.

    Raises TypeError or ValueError, the message starting with the argument's name.
    """

    def __init__(
        self,
        units: int = 8,
        features: int = 0,
        psi_range: tuple[float, float] = (-1e-2, -1e3),
        steepest: float = 8.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.units = _count("units", units, 1, 16)
        self.features = _count("features", features, 0, 64)
        first, last = check_range(psi_range)
        if not (isinstance(steepest, float | int) and 0.0 < steepest < math.inf):
            raise ValueError(
                f"steepest: is {steepest!r}; give a positive number, the bound of the added slope"
            )
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype: is {dtype}; give torch.float64 or torch.float32")
        self.steepest = float(steepest)
        generator = torch.Generator().manual_seed(_count("seed", seed, 0, 2**62))
        centre = torch.linspace(math.log(-first), math.log(-last), self.units + 2, dtype=torch.float64)[1:-1]
        mix = 0.5 * torch.randn(2, units, features, generator=generator, dtype=torch.float64)

        def parameter(value: Tensor) -> torch.nn.Parameter:
            return torch.nn.Parameter(value.to(dtype))

        self.slope = parameter(torch.zeros(2, units))
        self.rate = parameter(torch.zeros(2, units))
        self.centre = parameter(centre.expand(2, -1).clone())
        self.shift = parameter(torch.zeros(2))
        self.mix = parameter(mix)
        self.shift_mix = parameter(torch.zeros(2, features))

    def weights(self) -> Tensor:
        """The kernel's weights [2, units + 1, 3 + features]: a, w, b and U of every unit; row 0 is the shift."""
        r = LARGEST_SLOPE * bounded(self.slope / LARGEST_SLOPE)
        above = 0.5 * (r + torch.sqrt(r * r + SOFTNESS**2))
        below = above - r
        p = r / (1.0 + (below + above / self.steepest).sum(1, keepdim=True))
        w = torch.exp(math.log(LARGEST_RATE) * bounded(self.rate))
        units = torch.cat([torch.stack([p / w, w, -w * self.centre], -1), self.mix], -1)
        whole = torch.zeros_like(self.shift)
        shift = torch.stack([whole + LARGEST_SHIFT, whole, self.shift], -1)
        return torch.cat([torch.cat([shift, self.shift_mix], -1)[:, None], units], 1)

    def extra_repr(self) -> str:
        """Units and features."""
        return f"units={self.units}, features={self.features}"


class TableError(NamedTuple):
    """Largest distances between a baked table and its network.

    Attributes:
        theta: of the water content [-].
        ln_kr: of ln kr from the second knot on, where the network's kr is at least 1e-12.
        first: -ln kr of the network at the first knot, where the table counts as saturated.
    """

    theta: float
    ln_kr: float
    first: float


class Roughness(NamedTuple):
    """Integrals of squared second derivatives over log10 of suction, of theta and of log10 K."""

    theta: Tensor
    log10_k: Tensor


class NeuralSoil(Soil):
    """Learned theta(psi) and kr(psi): a van Genuchten-Mualem prior and what a :class:`SoilNetwork` departs from it.

    The definition and its proofs are at the head of this module. One interface, ways to compute it (``route``):

    - "fused" (default): the kernels of both engines evaluate the network in every cell, with derivatives in psi, prior,
      features and weights that are derived by hand. Up to three features.
    - "baked": the network is evaluated at the knots of a table, values and exact slopes, whenever a run is set up; a
      cell costs what a ``Tabulated`` one does, however large the network. The table's error is ``table_error()``.
    - "torch": PyTorch evaluates the network at every Newton iteration of the field engine; the column engine
      refuses it.

    Args:
        prior: a ``VanGenuchten`` without air entry. Its parameters (numbers, fields, ``nn.Parameter``s, outputs of a
            ``ParameterNet``) stay physical: theta_r, theta_s and k_sat keep their meaning. Gradients flow to them.
        network: what is learned; may be shared among soils.
        features: one value for each of the network's features: a number or what broadcasts to ``grid.shape``; gradients
            flow to them.
        route: one of the above.
        psi_range: heads of the first and the last knot [m], default (-1e-6, -1e6); "baked" only.
        n_knots: default 384; "baked" only.

    "baked" makes one table for each distinct soil: parameters and features that need no derivative are compared by
    value, others by cell, before they are broadcast. The first knot counts as saturated, as in ``Tabulated``. Where
    each cell has a soil of its own "fused" is the better choice.

    Raises TypeError or ValueError, the message starting with the argument's name.
    """

    def __init__(
        self,
        prior: VanGenuchten,
        network: SoilNetwork,
        features: Sequence[Value] = (),
        route: str = "fused",
        psi_range: tuple[float, float] = (-1e-6, -1e6),
        n_knots: int = 384,
    ) -> None:
        if not isinstance(prior, VanGenuchten):
            raise TypeError(f"prior: is a {type(prior).__name__}; give a VanGenuchten")
        if bool((prior._get("air_entry").detach() != 0.0).any()):
            raise ValueError("prior: has an air entry, which a warped curve does not keep; leave it 0")
        if not isinstance(network, SoilNetwork):
            raise TypeError(f"network: is a {type(network).__name__}; give a SoilNetwork")
        if isinstance(features, Tensor | str) or not isinstance(features, Sequence):
            raise TypeError(
                f"features: is a {type(features).__name__}; give a list of one value (number or tensor) for each"
            )
        if len(features) != network.features:
            raise ValueError(
                f"features: has {len(features)} entries but the network has {network.features}; give one for each"
            )
        if route == "fused" and network.features > len(FEATURES):
            raise ValueError(
                f"route: 'fused' takes networks of up to {len(FEATURES)} features, this one has {network.features}; "
                "choose 'baked'"
            )
        if route not in ROUTES:
            raise ValueError(f"route: is {route!r}; choose one of {', '.join(ROUTES)}")
        values = {name: getattr(prior, name) for name in PRIOR}
        self.relation = RELATIONS[route]
        self.route = route
        super().__init__(
            0, **values, k_sat=prior.k_sat, **{f"x{f + 1}": feature for f, feature in enumerate(features)}
        )
        self.network = network
        first, last = check_range(psi_range)
        self._first = math.log(-first)
        self._spacing = (math.log(-last) - self._first) / (_count("n_knots", n_knots, 4, 2**20) - 1)
        self._n_knots = n_knots

    # --------------------------------------------------------------------------------------------- the definition

    def _features(self) -> list[Tensor]:
        return [self._get(f"x{f + 1}") for f in range(self.network.features)]

    def _given(self) -> list[Tensor]:
        """What varies from cell to cell: the prior's parameters and the features."""
        return [*(self._get(name) for name in PRIOR), *self._features()]

    @property
    def knots(self) -> tuple[float, float] | None:
        """(ln of the first knot's suction, spacing in ln) of the table; None for the other routes."""
        return (self._first, self._spacing) if self.route == "baked" else None

    @property
    def function(self) -> SoilFunction | None:
        """The relation as a function of psi, prior, features and weights: of "torch"."""
        if self.route != "torch":
            return None
        features = [f"x{f + 1}" for f in range(self.network.features)]

        def call(psi: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            p = values | {"weights": values[WEIGHT + "weights"]}
            return warped(p, psi, [values[name] for name in features])

        return SoilFunction((*PRIOR, *features, WEIGHT + "weights"), call)

    # -------------------------------------------------------------------------------------------------- the table

    def _distinct(self) -> tuple[list[Tensor], Tensor]:
        """Prior and features of each class, [n_class] each, and the class of each cell of what they broadcast to."""
        given = self._given()
        shape = np.broadcast_shapes(*(tuple(value.shape) for value in given))
        cells = [value.expand(shape).reshape(-1) for value in given]
        count = cells[0].numel()
        index = torch.arange(count, device=cells[0].device)
        if count > 1:
            # equal values of what is learned are different numbers of the optimiser's
            keys = [
                index.to(cell.dtype) if is_tracked(value) and value.numel() > 1 else cell
                for value, cell in zip(given, cells, strict=True)
            ]
            _, classes = torch.unique(torch.stack([key.detach() for key in keys]), dim=1, return_inverse=True)
            n_class = int(classes.max()) + 1
            first = index.new_full((n_class,), count).scatter_reduce(0, classes, index, "amin")
            cells = [cell[first] for cell in cells]
        else:
            classes = torch.zeros_like(index)
        return cells, classes.to(torch.int32).reshape(shape)

    def _table(self, cells: list[Tensor]) -> Tensor:
        """[n_class, n_knots, 4]: theta, d theta/du, ln kr, d ln kr/du."""
        knots = self._first + self._spacing * torch.arange(
            self._n_knots, dtype=cells[0].dtype, device=cells[0].device
        )
        found = self._curves(cells, knots)
        # the soil is saturated from the first knot on
        theta = torch.cat([cells[1][:, None].expand(found.theta[:, :1].shape), found.theta[:, 1:]], 1)
        ln_kr = torch.cat([torch.zeros_like(found.ln_kr[:, :1]), found.ln_kr[:, 1:]], 1)
        columns = (
            theta,
            falling_slopes(theta, found.theta_slope, self._spacing),
            ln_kr,
            falling_slopes(ln_kr, found.ln_kr_slope, self._spacing),
        )
        return torch.stack(columns, -1)

    def _curves(self, cells: list[Tensor], u: Tensor) -> Curves:
        values = dict(zip(PRIOR, (cell[:, None] for cell in cells), strict=False))
        values["weights"] = self.network.weights().to(cells[0])
        return curves(
            values, u.expand(cells[0].shape[0], -1), [cell[:, None] for cell in cells[len(PRIOR) :]]
        )

    def curves(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """theta [-] and ln kr at ``psi`` [m], by PyTorch whatever the route; ln kr where kr itself underflows.

        psi broadcasts with the prior's parameters and the features; differentiable in all of them and the weights.
        """
        values = {name: self._get(name).to(psi) for name in PRIOR}
        values["weights"] = self.network.weights().to(psi)
        return warped_ln(values, psi, [feature.to(psi) for feature in self._features()])

    def roughness(self, psi: Tensor, of: str = "departure") -> Roughness:
        """How much the curves bend: integrals of squared second derivatives over x = log10(-psi).

        A penalty on the curves themselves. lambda/2 times an integral is, up to a constant, minus the logarithm of a
        prior whose slope wanders over log10 of suction like a random walk of variance 1/lambda a decade (the prior
        of a cubic smoothing spline: Wahba 1978, J. R. Stat. Soc. B 40, 364). It asks for straight lines, which power
        laws are, where the data say nothing, and does not care how the network is written. Weight decay does: it
        charges sharp bends wherever they are, also where the data ask for them. lambda is a matter of the data;
        `benchmarks/learning/evidence.py` shows how to find it.

        Args:
            psi: heads [m], negative, each below the one before; where the curves are to be smooth, 10 to 20 a decade.
            of: "departure" (default), theta and log10 K minus the prior's: what bends in the prior, as where it becomes
                saturated, is free; or "curves", theta and log10 K themselves.

        Returns:
            theta: [decade^-3], log10_k: [decade^-3]; of the shape that prior and features broadcast to. Differentiable
            in both and in the weights. k_sat bends nothing.

        Raises TypeError or ValueError, the message starting with the argument's name.
        """
        if of not in ("departure", "curves"):
            raise ValueError(f"of: is {of!r}; choose 'departure' or 'curves'")
        log10_suction(psi)
        shape = np.broadcast_shapes(*(tuple(value.shape) for value in self._given()))
        heads = psi.reshape(-1, *[1] * len(shape))
        theta, ln_kr = self.curves(heads)
        if of == "departure":
            values = {name: self._get(name).to(psi) for name in PRIOR}
            values["weights"] = torch.zeros_like(self.network.weights()).to(psi)
            own = warped_ln(values, heads, [feature.to(psi) for feature in self._features()])
            theta, ln_kr = theta - own[0], ln_kr - own[1]
        return Roughness(
            bends(theta, psi).square().sum(0), bends(ln_kr / math.log(10.0), psi).square().sum(0)
        )

    def table_error(self) -> TableError:
        """How far the table's curves are from the network's, half-way between knots and at the first one.

        With more knots the error falls with the fourth power of their distance; ``first`` falls with a wetter first
        knot.

        Raises ValueError for routes without a table.
        """
        if self.route != "baked":
            raise ValueError(f"route: is {self.route!r}, which has no table; table_error is for 'baked'")
        with torch.no_grad():
            cells, _ = self._distinct()
            n_class = cells[0].shape[0]
            half = self._spacing * (torch.arange(self._n_knots - 1, dtype=cells[0].dtype) + 0.5)
            u = torch.cat([torch.full((1,), self._first, dtype=half.dtype), self._first + half])
            exact = self._curves(cells, u)
            values = {
                "table": self._table(cells),
                "classes": torch.arange(n_class, dtype=torch.int32)[:, None],
            }
            theta, kr = soil_relation("tabulated", 0, values, -torch.exp(u).expand(n_class, -1), self.knots)
            seen = exact.ln_kr[:, 2:] > math.log(1e-12)
            distance = torch.where(seen, torch.log(kr[:, 2:]) - exact.ln_kr[:, 2:], 0.0)
        return TableError(
            float((theta - exact.theta).abs().max()),
            float(distance.abs().max()),
            -float(exact.ln_kr[:, 0].min()),
        )

    # ------------------------------------------------------------------------------------------- what kernels take

    def parameters_on(
        self, shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """What the kernels read; the table of the distinct soils is made anew at every call."""
        if self.route == "baked":
            for name in self._names:
                self._expand(name, self._get(name), shape)
            return {"table": self._table(self._distinct()[0]).to(dtype=dtype, device=device)}
        return super().parameters_on(shape, dtype, device)

    def classes_on(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """Class index of each cell, int32, expanded to ``shape``."""
        if self.route != "baked":
            return None
        return self._expand("classes", self._distinct()[1].to(device=device), shape)

    def _kernel_values(self) -> dict[str, Tensor]:
        if self.route == "baked":
            cells, classes = self._distinct()
            return {"table": self._table(cells), "classes": classes}
        if self.route == "fused":
            unused = self._get("theta_s").new_zeros(())
            values = {name: self._get(name) for name in PRIOR}
            values |= {name: getattr(self, name, unused) for name in FEATURES}
            return values | {"weights": self.network.weights()}
        values = {name: self._get(name) for name in self._names if name != "k_sat"}
        return values | {WEIGHT + "weights": self.network.weights()}


def falling_slopes(values: Tensor, slopes: Tensor, spacing: float) -> Tensor:
    """Given slopes, 0 at the first knot and nowhere steeper than three times the gentler secant beside them.

    With this a cubic through falling ``values`` [..., n] falls (Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17, 238).
    """
    secant = (values[..., 1:] - values[..., :-1]) / spacing
    steepest = 3.0 * torch.cat([torch.maximum(secant[..., :-1], secant[..., 1:]), secant[..., -1:]], -1)
    kept = torch.maximum(slopes[..., 1:], torch.minimum(steepest, torch.zeros_like(steepest)))
    return torch.cat([torch.zeros_like(slopes[..., :1]), kept], -1)


def _count(name: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: is a {type(value).__name__}; give an integer")
    if not least <= value <= most:
        raise ValueError(f"{name}: is {value}; must lie in [{least}, {most}]")
    return value
