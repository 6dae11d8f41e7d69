"""Peters-Durner-Iden (PDI): capillary and film water to oven dryness."""

from __future__ import annotations

import torch

from dgpde.soil.base import Soil, Value

#: Suction of oven dryness, pF 6.8, in m.
OVEN_DRY = 10.0**4.8


class PetersDurnerIden(Soil):
    """The PDI relations with van Genuchten's capillary part, without vapour flow; h = -psi, m = 1 - 1/n.

        G = (1 + (alpha h)^n)^-m,  G0 = G(h_0),  S_cap = (G - G0) / (1 - G0)
        S_nc  = 1 + (x - x_a + b ln(1 + exp((x_a - x)/b))) / (x_a - x_0),   x = log10 h,  x_a = log10(1/alpha)
        b     = 0.1 + 0.2/n^2 (1 - exp(-(theta_r/(theta_s - theta_r))^2))
        theta = (theta_s - theta_r) S_cap + theta_r S_nc
        K_cap = S_cap^l [1 - ((1 - G^(1/m)) / (1 - G0^(1/m)))^m]^2,   K_nc = (alpha h_0)^(a (1 - S_nc))
        kr    = (1 - omega) K_cap + omega K_nc

    Drier than ``h_0`` both curves stay at their values there (theta is then 0 up to the 1e-8 or less by which the
    smooth S_nc misses 0).

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r: maximum of the non-capillary water [-];  theta_s: saturated water content [-];
            0 <= theta_r < theta_s <= 1
        alpha: [1/m], > 0;  n: [-], > 1
        omega: weight of the film conductivity [-], in [0, 1]
        k_sat: saturated conductivity [m/s], > 0
        l: tortuosity of the capillary part [-], default 0.5; > -2 for K_cap to vanish at h_0
        h_0: suction of oven dryness [m], > 1/alpha, default 10^4.8 (pF 6.8)
        a: slope of the film conductivity in log-log [-], < 0, default -1.5

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Peters, A. (2013) Water Resour. Res. 49, 6765-6780. Iden, S. C., Durner, W. (2014) Water Resour. Res. 50,
    7530-7534. Peters, A. (2014) Water Resour. Res. 50, 7535-7539.
    """

    relation = "peters_durner_iden"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        alpha: Value,
        n: Value,
        omega: Value,
        k_sat: Value,
        l: Value = 0.5,  # noqa: E741 - the name of the field
        h_0: Value = OVEN_DRY,
        a: Value = -1.5,
    ) -> None:
        super().__init__(
            theta_r=theta_r,
            theta_s=theta_s,
            alpha=alpha,
            n=n,
            omega=omega,
            k_sat=k_sat,
            l=l,
            h_0=h_0,
            a=a,
        )
        self._check_water_contents()
        self._check_above("alpha", 0.0, " 1/m")
        self._check_above("n", 1.0)
        self._check_within("omega", 0.0, 1.0)
        self._check_above("l", -2.0)
        self._check("a", self._get("a").detach() >= 0.0, "must be < 0")
        h_0_, alpha_ = torch.broadcast_tensors(self._get("h_0").detach(), self._get("alpha").detach())
        self._check("h_0", h_0_ * alpha_ <= 1.0, "must be larger than 1/alpha, in m")
