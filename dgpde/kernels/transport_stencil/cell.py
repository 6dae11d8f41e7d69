"""What a solute does inside the cells and through the sides in one step, by PyTorch; differentiated by autograd.

With m the mobile water of a cell [m3] (m' at the end of the step), s the sorbed concentration, c_im that of immobile
water, lambda the decay, and all of the new level but what stands under `old`:

    L(c) = m_old (c - c_old)/dt + V rho [(s - s_old)/dt + lambda s] + V theta_im [(c_im - c_im_old)/dt + lambda c_im]
           + lambda m' c - V production - yield (what the parent loses by decay) + sum of inflows r (c - c_source)
           + sum over sides (w c - S)

    s    = s_eq(c)                                          or, with a rate k,  ds/dt = k (s_eq(c) - s) - lambda s
    c_im:  theta_im dc_im/dt = k (c - c_im) - lambda theta_im c_im

m_old stands before the whole change of c, since the water that enters is counted with c of the cell (problem.Network).
Both local states are linear in s_eq(c), c and their old values: they are eliminated here. S is the mass that a side
brings in: with the water w through it (positive inward), the concentration b given there and the conductance G over
half a cell

    inflow_concentration: w b where w > 0, else w c     concentration: the same + G (b - c)     zero_gradient: w c
    solute_flux: A f                   evaporating water (w < 0 under an atmosphere) carries nothing unless told to
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpde.kernels.flow_stencil.problem import SIDES, on_side
from dgpde.kernels.transport_stencil.problem import Geometry

Values = dict[str, Tensor]
INVERSIONS = 60  # iterations of the local inversion of Freundlich's isotherm, at most


@dataclass(frozen=True)
class Species:
    """What one solute does, besides its numbers.

    Attributes:
        sorption: "linear", "freundlich", "langmuir" or None.
        kinetic: whether sorption takes time.
        immobile: whether there is immobile water.
        decays, produces: whether there is decay, production.
        parent: number of the solute that it comes from, or None.
        sides: kind of boundary by side.
        evaporates: whether evaporating water carries it.
        atmosphere: whether the top loses water by evaporation.
        sources: whether sources, wells or rivers bring water in.
    """

    sorption: str | None = None
    kinetic: bool = False
    immobile: bool = False
    decays: bool = False
    produces: bool = False
    parent: int | None = None
    sides: dict[str, str] = field(default_factory=dict)
    evaporates: bool = False
    atmosphere: bool = False
    sources: bool = False

    @property
    def nonlinear(self) -> bool:
        """Whether a step is a nonlinear problem inside a cell."""
        return self.sorption in ("freundlich", "langmuir")

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what is carried from step to step."""
        return (
            "c",
            *(("sorbed",) if self.sorption else ()),
            *(("immobile",) if self.immobile else ()),
        )


def isotherm(kind: str, values: Values, c: Tensor) -> Tensor:
    """s_eq(c), continued as an odd function below c = 0."""
    if kind == "linear":
        return values["k_d"] * c
    if kind == "langmuir":
        k = values["k_l"]
        return values["s_max"] * k * c / (1.0 + k * c.abs())
    some = c != 0.0
    size = torch.where(some, c.abs(), 1.0)
    return torch.where(some, values["k_f"] * size ** values["exponent"] * c.sign(), 0.0)


def inverse_slope(kind: str, values: Values, c: Tensor) -> Tensor:
    """1/(ds_eq/dc); 0 where the slope is infinite, infinite where nothing sorbs."""
    if kind == "linear":
        return (1.0 / values["k_d"]).expand_as(c)
    if kind == "langmuir":
        k = values["k_l"]
        return (1.0 + k * c.abs()) ** 2 / (values["s_max"] * k)
    # c^(1 - n)/(k n): 0 at c = 0 for n < 1, infinite for n > 1
    return c.abs() ** (1.0 - values["exponent"]) / (values["k_f"] * values["exponent"])


def invert(kind: str, values: Values, linear: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
    """c with linear c + weight s_eq(c) = amount."""
    size = amount.abs()
    if kind == "langmuir":
        k = values["k_l"]
        b = linear + weight * values["s_max"] * k - size * k
        root = (b * b + 4.0 * linear * k * size).sqrt()
        # of the two forms of the root the one that does not cancel
        large = torch.where(k > 0.0, (root - b) / torch.where(k > 0.0, 2.0 * linear * k, 1.0), 0.0)
        positive = b > 0.0
        c = torch.where(positive, 2.0 * size / torch.where(positive, b + root, 1.0), large)
        return c * amount.sign()
    k, n = weight * values["k_f"], values["exponent"]
    some = size > 0.0
    u = torch.where(some, size, 1.0)
    # Two points between which the solution lies. The left one starts Newton where the isotherm is concave, the right
    # one where it is convex: from there Newton is monotone.
    sorbs = k > 0.0
    by_sorbed = torch.where(sorbs, (u / torch.where(sorbs, k, 1.0)) ** (1.0 / n), torch.inf)
    half_sorbed = torch.where(sorbs, (0.5 * u / torch.where(sorbs, k, 1.0)) ** (1.0 / n), torch.inf)
    left, right = torch.minimum(0.5 * u / linear, half_sorbed), torch.minimum(u / linear, by_sorbed)
    c = torch.where(n < 1.0, left, right)
    for _ in range(INVERSIONS):
        held = k * c**n
        step = (u - linear * c - held) * c / (linear * c + n * held)
        c = c + step
        if not bool((step.abs() > 4e-16 * c.abs()).any()):
            break
    return torch.where(some, c, 0.0) * amount.sign()


@dataclass
class Cell:
    """The cells of one solute in one step.

    Attributes:
        geometry, species: what is solved.
        dt: s; [1, 1, nx] where columns take steps of their own.
        values: the solute's numbers by name, each broadcasts to [nz, ny, nx]: k_d ... of the sorption, bulk_density,
            rate, decay, production, yield, immobile_theta, immobile_rate, source_concentration; of each side
            <side>.c or <side>.f.
        water: "old" and "new" [nz, ny, nx] m3; "inflow" [nz, ny, nx] m3/s, what sources bring in; by side what enters,
            [*side] m3/s.
        conductance: by side, [*side] m3/s.
        old: states before the step, by name.
        born: [nz, ny, nx] kg/s, what the parent's decay makes; None without a parent.
    """

    geometry: Geometry
    species: Species
    dt: float | Tensor
    values: Values
    water: Values
    conductance: Values
    old: Values
    born: Tensor | None = None

    def kept(self) -> tuple[Tensor | float, Tensor | float]:
        """(a, b) of s = a s_eq(c) + b s_old."""
        if not self.species.kinetic:
            return 1.0, 0.0
        k, dt = self.values["rate"], self.dt
        total = 1.0 + dt * (k + self.values["decay"]) if self.species.decays else 1.0 + dt * k
        return dt * k / total, 1.0 / total

    def standing(self) -> tuple[Tensor, Tensor]:
        """(a, b) of c_im = a c + b c_im_old."""
        theta, k, dt = self.values["immobile_theta"], self.values["immobile_rate"], self.dt
        lost = 1.0 + dt * self.values["decay"] if self.species.decays else 1.0
        total = theta * lost + dt * k
        some = total > 0.0  # else there is neither immobile water nor exchange
        total = torch.where(some, total, 1.0)
        return torch.where(some, dt * k / total, 0.0), torch.where(some, theta / total, 0.0)

    def states(self, c: Tensor) -> Values:
        """The states at the end of the step."""
        found = {"c": c}
        if self.species.sorption:
            a, b = self.kept()
            found["sorbed"] = a * isotherm(self.species.sorption, self.values, c)
            if self.species.kinetic:
                found["sorbed"] = found["sorbed"] + b * self.old["sorbed"]
        if self.species.immobile:
            a_im, b_im = self.standing()
            found["immobile"] = a_im * c + b_im * self.old["immobile"]
        return found

    def held(self, states: Values, water: Tensor) -> dict[str, Tensor]:
        """Mass in the cells by phase, kg: dissolved (mobile), sorbed, immobile."""
        volume, found = self.geometry.volume, {"dissolved": water * states["c"]}
        if self.species.sorption:
            found["sorbed"] = volume * self.values["bulk_density"] * states["sorbed"]
        if self.species.immobile:
            found["immobile"] = volume * self.values["immobile_theta"] * states["immobile"]
        return found

    def decayed(self, states: Values) -> Tensor:
        """What is lost by decay, [nz, ny, nx] kg/s."""
        return self.values["decay"] * sum(self.held(states, self.water["new"]).values())

    def side(self, side: str, c: Tensor) -> tuple[Tensor, Tensor]:
        """(S, the water that S counts) through the faces of a side, kg/s and m3/s, given c of their cells [*side]."""
        kind, flow = self.species.sides[side], self.water[side]
        leaving = flow if self.species.evaporates or not (side == "top" and self.species.atmosphere) else 0.0
        if kind == "solute_flux":
            return self.geometry.side_area(side) * self.values[f"{side}.f"] + 0.0 * c, flow
        entering = c if kind == "zero_gradient" else self.values[f"{side}.c"]
        carried = torch.where(flow > 0.0, flow * entering, leaving * c)
        return (
            carried + self.conductance[side] * (entering - c) if kind == "concentration" else carried
        ), flow

    def residual(self, c: Tensor, states: Values | None = None) -> Tensor:
        """L(c), [nz, ny, nx] kg/s."""
        species, values, volume, dt = self.species, self.values, self.geometry.volume, self.dt
        states = self.states(c) if states is None else states
        total = self.water["old"] * (c - self.old["c"]) / dt
        if species.sorption:
            solid = volume * values["bulk_density"] / dt
            total = total + solid * (states["sorbed"] - self.old["sorbed"])
        if species.immobile:
            standing = volume * values["immobile_theta"] / dt
            total = total + standing * (states["immobile"] - self.old["immobile"])
        if species.decays:
            total = total + self.decayed(states)
        if species.produces:
            total = total - volume * values["production"]
        if self.born is not None:
            total = total - values["yield"] * self.born
        if species.sources:
            total = total + self.water["inflow"] * (c - values["source_concentration"])
        for side in species.sides:
            near = on_side(c, side)
            mass, flow = self.side(side, near)
            total = total + _in_field(self.geometry, side, flow * near - mass)
        return total

    def slopes(self) -> tuple[Tensor, Tensor | None]:
        """(slope of L in c without sorption that is not linear, weight of s_eq in L), [nz, ny, nx] m3/s and kg/s."""
        species, values, volume, dt = self.species, self.values, self.geometry.volume, self.dt
        linear = self.water["old"] / dt
        weight = None
        lost = values["decay"] if species.decays else None
        if lost is not None:
            linear = linear + lost * self.water["new"]
        if species.sorption:
            weight = (
                volume
                * values["bulk_density"]
                * self.kept()[0]
                * (1.0 / dt if lost is None else 1.0 / dt + lost)
            )
        if species.sorption == "linear":
            assert weight is not None
            linear, weight = linear + weight * values["k_d"], None
        if species.immobile:
            rate = 1.0 / dt if lost is None else 1.0 / dt + lost
            linear = linear + volume * values["immobile_theta"] * self.standing()[0] * rate
        if species.sources:
            linear = linear + self.water["inflow"]
        for side in species.sides:
            linear = linear + _in_field(self.geometry, side, self.water[side] - self.side_slope(side))
        if self.geometry.active is not None:
            linear = torch.where(self.geometry.active, linear, 1.0)
        return linear, weight

    def side_slope(self, side: str) -> Tensor:
        """dS/dc, [*side] m3/s."""
        kind, flow = self.species.sides[side], self.water[side]
        leaving = flow if self.species.evaporates or not (side == "top" and self.species.atmosphere) else 0.0
        if kind == "solute_flux":
            return torch.zeros_like(flow)
        entering = flow if kind == "zero_gradient" else torch.zeros_like(flow)
        carried = torch.where(flow > 0.0, entering, leaving)
        return carried - self.conductance[side] if kind == "concentration" else carried


def _in_field(geometry: Geometry, side: str, value: Tensor) -> Tensor:
    """A value of a side's faces at their cells, 0 elsewhere: [nz, ny, nx]."""
    at = SIDES.index(side)
    value, empty = value.unsqueeze(at // 2), geometry.shape[at // 2] - 1
    zeros = torch.zeros_like(value).expand(*(empty if k == at // 2 else -1 for k in range(3)))
    return torch.cat([value, zeros] if at % 2 == 0 else [zeros, value], at // 2)
