"""A medium that is always saturated: an aquifer, a ponded filter."""

from __future__ import annotations

from dgpde.soil.base import Soil, Value


class Saturated(Soil):
    """theta = theta_s and K = k_sat at every head; storage comes from ``specific_storage`` only.

    Parameters (number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``)
        k_sat: saturated conductivity [m/s], > 0 theta_s: porosity [-], in (0, 1], default 0.35; no effect on
        heads or fluxes, it scales water contents and transport

    Raises ValueError or TypeError, the message starting with the parameter's name.
    """

    relation = "saturated"

    def __init__(self, k_sat: Value, theta_s: Value = 0.35) -> None:
        super().__init__(k_sat=k_sat, theta_s=theta_s)
        self._check_within("theta_s", 0.0, 1.0)
        self._check_above("theta_s", 0.0)
