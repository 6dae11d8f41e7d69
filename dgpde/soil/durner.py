"""Durner (1994): two pore systems."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class Durner(Soil):
    """Bimodal van Genuchten retention with Mualem's conductivity in closed form; h = -psi, m_i = 1 - 1/n_i.

        Se_i = (1 + (alpha_i h)^n_i)^-m_i,   w1 = 1 - w2,   Se = w1 Se_1 + w2 Se_2
        theta = theta_r + (theta_s - theta_r) Se
        kr   = Se^l [ sum_i w_i alpha_i (1 - (1 - Se_i^(1/m_i))^m_i) / sum_i w_i alpha_i ]^2

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        alpha1, alpha2: [1/m], > 0;  n1, n2: [-], > 1
        w2: weight of the second system [-], in (0, 1)
        k_sat: saturated conductivity [m/s], > 0
        l: pore connectivity [-], default 0.5

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Durner, W. (1994) Water Resour. Res. 30, 211-223. Priesack, E., Durner, W. (2006) Vadose Zone J. 5, 121-124.
    """

    relation = "durner"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        alpha1: Value,
        n1: Value,
        alpha2: Value,
        n2: Value,
        w2: Value,
        k_sat: Value,
        l: Value = 0.5,  # noqa: E741 - the name of the field
    ) -> None:
        super().__init__(
            theta_r=theta_r,
            theta_s=theta_s,
            alpha1=alpha1,
            n1=n1,
            alpha2=alpha2,
            n2=n2,
            w2=w2,
            k_sat=k_sat,
            l=l,
        )
        self._check_water_contents()
        for i in ("1", "2"):
            self._check_above("alpha" + i, 0.0, " 1/m")
            self._check_above("n" + i, 1.0)
        self._check(
            "w2",
            (self._get("w2").detach() <= 0.0) | (self._get("w2").detach() >= 1.0),
            "must lie inside (0, 1); use VanGenuchten for a single pore system",
        )
