"""Brooks & Corey (1964)."""

from __future__ import annotations

import torch

from dgpde.soil.base import Soil, Value


class BrooksCorey(Soil):
    """Power-law retention above an air-entry suction, with Mualem or Burdine conductivity.

        Se = (psi_e / h)^lam  for h = -psi > psi_e, 1 otherwise;   theta = theta_r + (theta_s - theta_r) Se
        kr = Se^(l + 2 + 2/lam)   (relative_permeability="mualem")      kr = Se^(3 + 2/lam)   ("burdine")

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        theta_r, theta_s: residual and saturated water content [-], 0 <= theta_r < theta_s <= 1
        psi_e: air-entry suction [m], > 0 (the magnitude of the air-entry head)
        lam: pore-size index [-], > 0
        k_sat: saturated conductivity [m/s], > 0
        relative_permeability: "mualem" (default) or "burdine"
        l: pore connectivity [-], default 0.5; Mualem only, Burdine's exponent is fixed

    Raises ValueError or TypeError, the message starting with the parameter's name.

    Brooks, R. H., Corey, A. T. (1964) Hydraulic properties of porous media, Colorado State Univ. Hydrology
    Paper 3. Burdine, N. T. (1953) J. Petrol. Technol. 5, 71-78. Mualem, Y. (1976) Water Resour. Res. 12,
    513-522.
    """

    relation = "brooks_corey"

    def __init__(
        self,
        theta_r: Value,
        theta_s: Value,
        psi_e: Value,
        lam: Value,
        k_sat: Value,
        relative_permeability: str = "mualem",
        l: Value = 0.5,  # noqa: E741 - the name of the field
    ) -> None:
        if relative_permeability not in ("mualem", "burdine"):
            raise ValueError(
                f"relative_permeability: is {relative_permeability!r}; choose 'mualem' or 'burdine'"
            )
        burdine = relative_permeability == "burdine"
        super().__init__(
            variant=int(burdine), theta_r=theta_r, theta_s=theta_s, psi_e=psi_e, lam=lam, k_sat=k_sat, l=l
        )
        self._check_water_contents()
        self._check_above("psi_e", 0.0, " m: give the suction, the magnitude of the air-entry head")
        self._check_above("lam", 0.0)
        if burdine and isinstance(l, torch.Tensor) and l.requires_grad:
            raise ValueError(
                "l: requires a gradient but Burdine's conductivity does not depend on it; use 'mualem'"
            )
