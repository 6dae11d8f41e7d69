"""Kosugi (1996): log-normal pore sizes."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class Kosugi(Soil):
    """Retention of a log-normal pore-size distribution with Mualem's conductivity, h = -psi.

        u  = ln(h / s_m) / sigma,   Q(u) = erfc(u / sqrt 2) / 2
        Se = Q(u),   theta = theta_r + (theta_s - theta_r) Se,   kr = Se^l Q(u + sigma)^2

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        s_m: median suction [m], > 0 (Se = 1/2 there)
        sigma: standard deviation of ln h [-], > 0
        k_sat: saturated conductivity [m/s], > 0
        l: pore connectivity [-], default 0.5

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Kosugi, K. (1996) Water Resour. Res. 32, 2697-2703. Mualem, Y. (1976) Water Resour. Res. 12, 513-522.
    """

    relation = "kosugi"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        s_m: Value,
        sigma: Value,
        k_sat: Value,
        l: Value = 0.5,  # noqa: E741 - the name of the field
    ) -> None:
        super().__init__(theta_r=theta_r, theta_s=theta_s, s_m=s_m, sigma=sigma, k_sat=k_sat, l=l)
        self._check_water_contents()
        self._check_above("s_m", 0.0, " m: it is a suction")
        self._check_above("sigma", 0.0)
