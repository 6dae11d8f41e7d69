"""The soil relations as functions of plain tensors, for solvers; see
:mod:`dgpde.kernels.soil_relation.reference`.
"""

from __future__ import annotations

from dgpde.kernels.soil_relation.reference import PARAMETERS, capacity, theta_kr, wet_suction

__all__ = ["PARAMETERS", "capacity", "theta_kr", "wet_suction"]
