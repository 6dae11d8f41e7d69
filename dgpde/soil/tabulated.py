"""A relation given by a table: measured points, another program's curve, or a network baked into knots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgpde.soil.base import Soil, Value, as_parameter

#: Rise along the table (relative to its largest value) and distance of ln kr from 0 that count as round-off.
FLAT = 1e-12


def monotone_slopes(values: Tensor, spacing: float) -> Tensor:
    """Slopes [..., n] of a monotone C1 cubic through falling ``values`` [..., n] at equal ``spacing``.

    The first slope is 0, the last one-sided, those between are :func:`inner_slopes`. Differentiable in the values.
    """
    secant = (values[..., 1:] - values[..., :-1]) / spacing
    secant = torch.minimum(secant, torch.zeros_like(secant))
    last = 1.5 * secant[..., -1:] - 0.5 * secant[..., -2:-1]
    last = torch.minimum(torch.maximum(last, 3.0 * secant[..., -1:]), torch.zeros_like(last))
    return torch.cat([torch.zeros_like(last), inner_slopes(secant), last], dim=-1)


def inner_slopes(secant: Tensor) -> Tensor:
    """Slopes [..., n - 2] at the inner knots of a C1 cubic that between two knots stays between their values.

    Fourth-order differences (second-order next to the ends), limited to three times the gentler of the two
    neighbouring secants, and 0 where these differ in sign (Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17, 238;
    Hyman 1983, SIAM J. Sci. Stat. Comput. 4, 645).

    Args:
        secant: [..., n - 1] between the knots, at equal spacing, n at least 4.
    """
    middle = 0.5 * (secant[..., :-1] + secant[..., 1:])
    wide = (7.0 * (secant[..., 1:-2] + secant[..., 2:-1]) - secant[..., :-3] - secant[..., 3:]) / 12.0
    centred = torch.cat([middle[..., :1], wide, middle[..., -1:]], dim=-1)
    nothing = torch.zeros_like(centred)
    falling = torch.minimum(3.0 * torch.maximum(secant[..., :-1], secant[..., 1:]), nothing)
    rising = torch.maximum(3.0 * torch.minimum(secant[..., :-1], secant[..., 1:]), nothing)
    return torch.minimum(torch.maximum(centred, falling), rising)


class Tabulated(Soil):
    """theta(psi) and kr(psi) by monotone C1 cubics in x = ln(-psi), one table for each soil class.

    Knots stand at equal distances of x from ``psi_range[0]`` (wettest) to ``psi_range[1]`` (driest). Wetter than the
    first knot the soil is saturated (slope 0). Drier than the last, theta falls as a power of the suction and ln kr
    linearly in x, continuing value and slope. Gradients flow to every knot, hence to whatever computed them.

    Parameters
        theta: water content at the knots [n_knots] or [n_class, n_knots], > 0, falling, at most 1
        ln_kr: ln of the relative conductivity, same shape, falling from 0 at the first knot
        psi_range: heads of the first and the last knot [m], 0 > first > last
        k_sat: saturated conductivity [m/s], > 0; number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``
        classes: integer class of each cell, broadcast to ``grid.shape``; may be left out for one class

    Raises ValueError or TypeError, the message starting with the parameter's name.
    """

    relation = "tabulated"

    def __init__(
        self,
        theta: Tensor,
        ln_kr: Tensor,
        psi_range: tuple[float, float],
        k_sat: Value,
        classes: Tensor | None = None,
    ) -> None:
        super().__init__(k_sat=k_sat)
        theta, ln_kr = _table("theta", theta), _table("ln_kr", ln_kr)
        if theta.shape != ln_kr.shape:
            raise ValueError(
                f"ln_kr: has shape {tuple(ln_kr.shape)} but theta has {tuple(theta.shape)}; give one value of each "
                "for every knot and class"
            )
        if (theta.detach() <= 0.0).any() or (theta.detach() > 1.0).any():
            raise ValueError("theta: must lie in (0, 1] at every knot")
        _check_falling("theta", theta)
        if (ln_kr.detach()[..., 0].abs() > FLAT).any():
            raise ValueError("ln_kr: must be 0 at the first knot, where the soil is saturated")
        _check_falling("ln_kr", ln_kr)
        self._adopt("theta_knots", theta)
        self._adopt("ln_kr_knots", ln_kr)
        first, last = check_range(psi_range)
        self._first = math.log(-first)
        self._spacing = (math.log(-last) - self._first) / (theta.shape[-1] - 1)
        n_class = theta.shape[0] if theta.dim() == 2 else 1
        if classes is None:
            if n_class > 1:
                raise ValueError(
                    f"classes: are needed with {n_class} classes; give the class index of each cell"
                )
            classes = torch.zeros((), dtype=torch.int32)
        if not isinstance(classes, Tensor) or classes.dtype not in (torch.int64, torch.int32, torch.int16):
            raise TypeError("classes: must be an integer tensor, the class index of each cell")
        if classes.numel() and not (int(classes.min()) >= 0 and int(classes.max()) < n_class):
            raise ValueError(f"classes: must lie in [0, {n_class - 1}], the classes of the table")
        self.register_buffer("classes", classes.to(torch.int32))

    classes: Tensor
    theta_knots: Tensor
    ln_kr_knots: Tensor

    @classmethod
    def from_function(
        cls,
        function: Callable[[Tensor], tuple[Tensor, Tensor]],
        k_sat: Value,
        classes: Tensor | None = None,
        psi_range: tuple[float, float] = (-1e-4, -1e6),
        n_knots: int = 256,
        logarithm: bool = False,
    ) -> Tabulated:
        """Bake any function of psi (a network, a fitted curve) into a table.

        function: psi [n_knots] float64 -> (theta, kr), each [n_knots] or [n_class, n_knots]; the first entry of psi
        is 0, where kr must be 1. logarithm: it returns (theta, ln kr) instead, for relations whose kr underflows.
        The table holds the graph of one evaluation: bake again after every optimiser step.
        Other arguments as for the class; raises what the class raises.
        """
        theta, kr = function(_knot_heads(psi_range, n_knots))
        return cls(theta, kr if logarithm else torch.log(kr), psi_range, k_sat, classes)

    @classmethod
    def from_soil(
        cls,
        soil: Soil,
        classes: Tensor | None = None,
        psi_range: tuple[float, float] = (-1e-4, -1e6),
        n_knots: int = 256,
    ) -> Tabulated:
        """Bake another soil, whose parameters are numbers or [n_class]; with ``classes``, k_sat follows the class."""
        psi = _knot_heads(psi_range, n_knots)
        theta, kr = soil.theta_kr(psi[:, None])
        k_sat = soil.k_sat
        if k_sat.dim() == 1 and k_sat.numel() > 1:
            if classes is None:
                raise ValueError(f"classes: are needed for a soil of {k_sat.numel()} classes")
            k_sat = k_sat[classes.to(torch.int64)]
        return cls(theta.T, torch.log(kr).T, psi_range, k_sat, classes)

    @property
    def knots(self) -> tuple[float, float]:
        """(ln of the first knot's suction, spacing in ln)."""
        return self._first, self._spacing

    def table(self) -> Tensor:
        """The kernel's table [n_class, n_knots, 4]: theta, dtheta/dx, ln kr, d ln kr/dx with x = ln(-psi)."""
        theta, ln_kr = torch.atleast_2d(self.theta_knots), torch.atleast_2d(self.ln_kr_knots)
        columns = (theta, monotone_slopes(theta, self._spacing), ln_kr, monotone_slopes(ln_kr, self._spacing))
        return torch.stack(columns, dim=-1)

    def parameters_on(
        self, shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """{"table": [n_class, n_knots, 4]}; the class of each cell of ``shape`` is :meth:`classes_on`."""
        return {"table": self.table().to(dtype=dtype, device=device)}

    def classes_on(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Class index of each cell, int32, expanded to ``shape``."""
        return self._expand("classes", self.classes.to(device=device), shape)

    def _kernel_values(self) -> dict[str, Tensor]:
        return {"table": self.table(), "classes": self.classes}


def _table(name: str, value: Tensor) -> Tensor:
    tensor = as_parameter(name, value)
    if tensor.dim() not in (1, 2) or tensor.shape[-1] < 4:
        raise ValueError(
            f"{name}: has shape {tuple(tensor.shape)}; give [n_knots] or [n_class, n_knots] with 4 knots or more"
        )
    return tensor


def _check_falling(name: str, table: Tensor) -> None:
    rise = (table[..., 1:] - table[..., :-1]).detach()
    bad = rise > FLAT * table.detach().abs().amax(-1, keepdim=True)
    if bad.any():
        knot = int(bad.nonzero()[0, -1])
        raise ValueError(f"{name}: rises from knot {knot} to knot {knot + 1}; it must fall with the suction")


def check_range(psi_range: tuple[float, float]) -> tuple[float, float]:
    """(wettest, driest) head in m, 0 > wettest > driest; raises ValueError."""
    first, last = psi_range
    if not (0.0 > first > last and math.isfinite(last)):
        raise ValueError(
            f"psi_range: is {psi_range}; give (wettest, driest) head in m with 0 > wettest > driest"
        )
    return float(first), float(last)


def _knot_heads(psi_range: tuple[float, float], n_knots: int) -> Tensor:
    """Heads of the knots [n_knots] float64; the first is 0, because the table is saturated from there on."""
    first, last = check_range(psi_range)
    if not isinstance(n_knots, int) or n_knots < 4:
        raise ValueError(f"n_knots: is {n_knots}; give an integer of 4 or more")
    psi = -torch.exp(torch.linspace(math.log(-first), math.log(-last), n_knots, dtype=torch.float64))
    psi[0] = 0.0
    return psi
