"""Haverkamp et al. (1977): rational functions of the suction."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class Haverkamp(Soil):
    """Retention and conductivity fitted by Haverkamp et al. to sand and to Yolo light clay; h = -psi [m].

        theta = theta_r + (theta_s - theta_r) alpha / (alpha + h^beta)            retention="power" (default)
        theta = theta_r + (theta_s - theta_r) alpha / (alpha + ln(h/1 cm)^beta)   "logarithm", for h > 1 cm
        K     = k_sat a / (a + h^gamma)

    Published coefficients are for suctions in cm: alpha = alpha_cm 100^-beta ("power"; alpha_cm itself for
    "logarithm"), a = a_cm 100^-gamma.

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        alpha: [m^beta], > 0 ([-] for "logarithm");  beta: [-], > 0 (>= 1 for "logarithm")
        a: [m^gamma], > 0;  gamma: [-], > 0
        k_sat: saturated conductivity [m/s], > 0

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Haverkamp, R., Vauclin, M., Touma, J., Wierenga, P. J., Vachaud, G. (1977) Soil Sci. Soc. Am. J. 41,
    285-294.
    """

    relation = "haverkamp"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        alpha: Value,
        beta: Value,
        a: Value,
        gamma: Value,
        k_sat: Value,
        retention: str = "power",
    ) -> None:
        if retention not in ("power", "logarithm"):
            raise ValueError(f"retention: is {retention!r}; choose 'power' or 'logarithm'")
        super().__init__(
            variant=int(retention == "logarithm"),
            theta_r=theta_r, theta_s=theta_s, alpha=alpha, beta=beta, a=a, gamma=gamma, k_sat=k_sat,
        )  # fmt: skip
        self._check_water_contents()
        for name in ("alpha", "beta", "a", "gamma"):
            self._check_above(name, 0.0)
        if retention == "logarithm":
            # a smaller exponent has an unbounded capacity at a suction that is not the end of the curve
            self._check("beta", self._get("beta").detach() < 1.0, "must be >= 1 with retention='logarithm'")
