"""Soil hydraulic relations: water content and conductivity as functions of the pressure head."""

from __future__ import annotations

from dgpde.soil.base import Soil
from dgpde.soil.brooks_corey import BrooksCorey
from dgpde.soil.gardner import Gardner
from dgpde.soil.haverkamp import Haverkamp
from dgpde.soil.saturated import Saturated
from dgpde.soil.van_genuchten import VanGenuchten

__all__ = ["BrooksCorey", "Gardner", "Haverkamp", "Saturated", "Soil", "VanGenuchten"]
