"""What happens to solutes at the faces of the domain: data and checks.

Every value may be a number, a tensor that broadcasts to the faces of the side or, when it varies in time, a
``Series``; all of them are differentiable. What the water carries through a face follows the water: q > 0 below means
water that comes in. Under an ``Atmosphere`` the water that evaporates leaves its solutes behind, whatever stands on
top, unless ``Solute(evaporates=True)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dgpde.boundary import SideValues
from dgpde.series import Value


class SoluteBoundary(SideValues):
    """Base of all boundaries of solutes."""


@dataclass(frozen=True, eq=False)
class Concentration(SoluteBoundary):
    """First type: concentration held on the face, which water and dispersion over half a cell carry in or out.

    Args:
        c: concentration on the face [kg/m3].
    """

    c: Value
    kind: ClassVar[str] = "concentration"


@dataclass(frozen=True, eq=False)
class InflowConcentration(SoluteBoundary):
    """Third type: water that comes in carries c, water that leaves carries the concentration of its cell.

    No dispersion through the face. With c = 0 it is what a side has that is not named.

    Args:
        c: concentration of the water that comes in [kg/m3].
    """

    c: Value
    kind: ClassVar[str] = "inflow_concentration"


@dataclass(frozen=True, eq=False)
class ZeroGradient(SoluteBoundary):
    """Water carries the concentration of the cell at the face, in and out; no dispersion through the face."""

    kind: ClassVar[str] = "zero_gradient"


@dataclass(frozen=True, eq=False)
class SoluteFlux(SoluteBoundary):
    """Mass flux given through the face, whatever the water does.

    Args:
        f: mass flux [kg m-2 s-1], positive into the domain.
    """

    f: Value
    kind: ClassVar[str] = "solute_flux"
