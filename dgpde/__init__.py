"""Differentiable variably saturated flow for PyTorch.

Importing needs neither a GPU nor a compiler; the native module is loaded when a run first asks for it.
"""

from __future__ import annotations

from dgpde.boundary import (
    Atmosphere,
    Boundary,
    DeepWaterTable,
    Flux,
    FreeDrainage,
    GeneralHead,
    Head,
    HydraulicHead,
    NoFlow,
    SeepageFace,
)
from dgpde.checkpoint import Checkpoint, Plan
from dgpde.errors import SolveError
from dgpde.grid import Grid
from dgpde.options import SolveOptions
from dgpde.parameter_net import ParameterNet, Range
from dgpde.reaction import Monod, Reaction
from dgpde.richards import Richards
from dgpde.series import Series
from dgpde.soil import (
    BrooksCorey,
    Durner,
    FredlundXing,
    Gardner,
    Haverkamp,
    Kosugi,
    ModuleSoil,
    NeuralSoil,
    PetersDurnerIden,
    Saturated,
    Soil,
    SoilNetwork,
    Tabulated,
    VanGenuchten,
)
from dgpde.solute import Freundlich, Immobile, Langmuir, Linear, Solute
from dgpde.solution import Solution, Stats
from dgpde.sources import River, RootUptake, Source, Well, root_density
from dgpde.steady_flow import SteadyFlow
from dgpde.stress import Feddes, NeuralStress, TabulatedStress
from dgpde.transport import Transport
from dgpde.transport_boundary import Concentration, InflowConcentration, SoluteFlux, ZeroGradient
from dgpde.transport_solution import TransportSolution

__version__ = "0.1.0"

__all__ = [
    "Atmosphere",
    "Boundary",
    "BrooksCorey",
    "Checkpoint",
    "Concentration",
    "DeepWaterTable",
    "Durner",
    "Feddes",
    "Flux",
    "FredlundXing",
    "FreeDrainage",
    "Freundlich",
    "Gardner",
    "GeneralHead",
    "Grid",
    "Haverkamp",
    "Head",
    "HydraulicHead",
    "Immobile",
    "InflowConcentration",
    "Kosugi",
    "Langmuir",
    "Linear",
    "ModuleSoil",
    "Monod",
    "NeuralSoil",
    "NeuralStress",
    "NoFlow",
    "ParameterNet",
    "PetersDurnerIden",
    "Plan",
    "Range",
    "Reaction",
    "Richards",
    "River",
    "RootUptake",
    "Saturated",
    "SeepageFace",
    "Series",
    "Soil",
    "SoilNetwork",
    "Solute",
    "SoluteFlux",
    "Solution",
    "SolveError",
    "SolveOptions",
    "Source",
    "Stats",
    "SteadyFlow",
    "Tabulated",
    "TabulatedStress",
    "Transport",
    "TransportSolution",
    "VanGenuchten",
    "Well",
    "ZeroGradient",
    "root_density",
]
