"""Gardner (1958): exponential conductivity and water content."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class Gardner(Soil):
    """Se = kr = exp(alpha psi) for psi < 0: the relation for which Richards' equation is linear.

        theta = theta_r + (theta_s - theta_r) exp(alpha psi),   K = k_sat exp(alpha psi)

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        alpha: [1/m], > 0
        k_sat: saturated conductivity [m/s], > 0

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Gardner, W. R. (1958) Soil Sci. 85, 228-232; with this retention, Srivastava, R., Yeh, T.-C. J. (1991)
    Water Resour. Res. 27, 753-762.
    """

    relation = "gardner"

    def __init__(self, theta_r: Value, theta_s: Value, alpha: Value, k_sat: Value) -> None:
        super().__init__(theta_r=theta_r, theta_s=theta_s, alpha=alpha, k_sat=k_sat)
        self._check_water_contents()
        self._check_above("alpha", 0.0, " 1/m")
