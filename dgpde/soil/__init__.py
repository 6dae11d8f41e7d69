"""Soil hydraulic relations: water content and conductivity as functions of the pressure head."""

from __future__ import annotations

from dgpde.soil.base import Soil
from dgpde.soil.brooks_corey import BrooksCorey
from dgpde.soil.durner import Durner
from dgpde.soil.fredlund_xing import FredlundXing
from dgpde.soil.gardner import Gardner
from dgpde.soil.haverkamp import Haverkamp
from dgpde.soil.kosugi import Kosugi
from dgpde.soil.module import ModuleSoil
from dgpde.soil.neural import NeuralSoil, SoilNetwork, TableError
from dgpde.soil.peters_durner_iden import PetersDurnerIden
from dgpde.soil.saturated import Saturated
from dgpde.soil.tabulated import Tabulated
from dgpde.soil.van_genuchten import VanGenuchten

__all__ = [
    "BrooksCorey",
    "Durner",
    "FredlundXing",
    "Gardner",
    "Haverkamp",
    "Kosugi",
    "ModuleSoil",
    "NeuralSoil",
    "PetersDurnerIden",
    "Saturated",
    "Soil",
    "SoilNetwork",
    "TableError",
    "Tabulated",
    "VanGenuchten",
]
