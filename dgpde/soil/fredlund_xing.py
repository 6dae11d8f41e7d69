"""Fredlund & Xing (1994)."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class FredlundXing(Soil):
    """Retention to zero water content at 1e6 kPa (1e5 m), with a power of it as conductivity; h = -psi.

        G     = ln(e + (h / a)^n)^-m,   C = 1 - ln(1 + h / s_r) / ln(1 + 1e5 m / s_r)
        theta = theta_s C G   (0 drier than 1e5 m),   kr = G^p

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_s: saturated water content [-], in (0, 1]
        a: suction scale [m], > 0;  n, m: shape [-], > 0
        p: exponent of the conductivity [-], > 0
        k_sat: saturated conductivity [m/s], > 0
        s_r: suction of the residual state in C [m], > 0

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Fredlund, D. G., Xing, A. (1994) Can. Geotech. J. 31, 521-532. Leong, E. C., Rahardjo, H. (1997) J. Geotech.
    Geoenviron. Eng. 123, 1118-1126 (conductivity).
    """

    relation = "fredlund_xing"

    def __init__(
        self, theta_s: Value, a: Value, n: Value, m: Value, p: Value, k_sat: Value, s_r: Value
    ) -> None:
        super().__init__(theta_s=theta_s, a=a, n=n, m=m, p=p, k_sat=k_sat, s_r=s_r)
        self._check_within("theta_s", 0.0, 1.0)
        self._check_above("theta_s", 0.0)
        for name, unit in (("a", " m"), ("n", ""), ("m", ""), ("p", ""), ("s_r", " m")):
            self._check_above(name, 0.0, unit)
