"""van Genuchten (1980) retention with Mualem (1976) conductivity."""

from __future__ import annotations

import torch

from dgpde.soil.base import Soil, Value


class VanGenuchten(Soil):
    """van Genuchten-Mualem, with an optional air entry.

    With h = -psi, m = 1 - 1/n, Se_vG(h) = (1 + (alpha h)^n)^-m and Sc = Se_vG(air_entry):

        Se    = Se_vG(h) / Sc                       for h > air_entry, 1 otherwise
        theta = theta_r + (theta_s - theta_r) Se
        kr    = Se^l [ (1 - (1 - (Se Sc)^(1/m))^m) / (1 - (1 - Sc^(1/m))^m) ]^2

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        alpha: [1/m], > 0
        n: [-], > 1
        k_sat: saturated conductivity [m/s], > 0
        l: pore connectivity [-], default 0.5; kr falls with the suction when l > -2/m
        air_entry: suction [m] below which the soil is saturated, >= 0, default 0 (the plain relation). 1-2 cm
            bounds the slope of kr at saturation when n < 2 (Ippisch et al. 2006). To learn it start from a positive
            value: at 0 it has no derivative when n <= 2, and asking for one raises.

    Raises ValueError or TypeError, the message starting with the parameter's name.

    van Genuchten, M. Th. (1980) Soil Sci. Soc. Am. J. 44, 892-898. Mualem, Y. (1976) Water Resour. Res. 12,
    513-522. Ippisch, O., Vogel, H.-J., Bastian, P. (2006) Adv. Water Resour. 29, 1780-1789.
    """

    relation = "van_genuchten"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        alpha: Value,
        n: Value,
        k_sat: Value,
        l: Value = 0.5,  # noqa: E741 - the name of the field
        air_entry: Value = 0.0,
    ) -> None:
        super().__init__(
            theta_r=theta_r, theta_s=theta_s, alpha=alpha, n=n, k_sat=k_sat, l=l, air_entry=air_entry
        )
        self._check_water_contents()
        self._check_above("alpha", 0.0, " 1/m")
        self._check_above("n", 1.0)
        self._check("air_entry", self._get("air_entry").detach() < 0.0, "must be >= 0: it is a suction in m")
        entry, n_ = torch.broadcast_tensors(self._get("air_entry").detach(), self._get("n").detach())
        if self._get("air_entry").requires_grad and ((entry == 0.0) & (n_ <= 2.0)).any():
            # for n < 2 the derivative at 0 is unbounded, for n = 2 it is not the 0 that the formula would give
            raise ValueError(
                "air_entry: requires a gradient but is 0 where n <= 2, where kr has no derivative in it; start from "
                "a positive value, say 0.01 m"
            )
