"""What is carried by the water: solutes, how they sorb and react. Data and checks.

Every value may be a number, a tensor that broadcasts to ``grid.shape`` (an ``nn.Parameter`` too) or, where its text
says so, a ``Series``; all of them are differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from dgpde.frame import ANY, NOT_NEGATIVE, POSITIVE, Limits, Stored, store, tensor_of
from dgpde.series import Series, Value

UPTAKES = ("passive", "excluded")
MILLINGTON_QUIRK = "millington_quirk"
FRACTION = Limits(lower=0.0, upper=1.0, open_lower=True)


class _Values:
    """Dataclasses whose values are stored and checked by name."""

    limits: ClassVar[dict[str, Limits]] = {}
    in_time: ClassVar[tuple[str, ...]] = ()  # those that may be a Series
    optional: ClassVar[tuple[str, ...]] = ()  # those that may be None

    def __post_init__(self) -> None:
        for name, limits in self.limits.items():
            value = getattr(self, name)
            if value is None and name in self.optional:
                continue
            if isinstance(value, Series) and name not in self.in_time:
                raise ValueError(f"{name} cannot vary in time; give a number or a tensor, not a Series")
            object.__setattr__(self, name, store(name, value, limits))

    def values(self) -> dict[str, Stored]:
        """The values that are there, by name."""
        found = {name: getattr(self, name) for name in self.limits}
        return {
            name: value for name, value in found.items() if value is not None and not isinstance(value, str)
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors among the values, for the choice of type and device."""
        for name, value in self.values().items():
            tensor = tensor_of(value)
            if tensor is not None:
                yield name, tensor


class Sorption(_Values):
    """Base of all sorptions: mass on the solid per mass of solid, s(c) [kg/kg].

    Without ``rate`` the solid is in equilibrium with the water. With it ds/dt = rate (s(c) - s), from s = s(c0).
    """

    kind: ClassVar[str]
    optional: ClassVar[tuple[str, ...]] = ("rate",)


@dataclass(frozen=True, eq=False)
class Linear(Sorption):
    """s = k_d c.

    Args:
        k_d: distribution coefficient [m3/kg], not negative.
        bulk_density: dry mass of solid per volume of soil [kg/m3], not negative.
        rate: of first-order kinetics [1/s], not negative; None (default) for equilibrium.
    """

    k_d: Value
    bulk_density: Value
    rate: Value | None = None
    kind: ClassVar[str] = "linear"
    limits: ClassVar[dict[str, Limits]] = {
        "k_d": NOT_NEGATIVE,
        "bulk_density": NOT_NEGATIVE,
        "rate": NOT_NEGATIVE,
    }


@dataclass(frozen=True, eq=False)
class Freundlich(Sorption):
    """s = k_f c^exponent.

    Below an exponent of 1 its slope is infinite at c = 0: the derivative of a run in an initial concentration of 0 is
    then infinite too, all others are finite.

    Args:
        k_f: coefficient [(m3/kg)^exponent], not negative.
        exponent: [-], positive.
        bulk_density: dry mass of solid per volume of soil [kg/m3], not negative.
        rate: of first-order kinetics [1/s], not negative; None (default) for equilibrium.
    """

    k_f: Value
    exponent: Value
    bulk_density: Value
    rate: Value | None = None
    kind: ClassVar[str] = "freundlich"
    limits: ClassVar[dict[str, Limits]] = {
        "k_f": NOT_NEGATIVE,
        "exponent": POSITIVE,
        "bulk_density": NOT_NEGATIVE,
        "rate": NOT_NEGATIVE,
    }


@dataclass(frozen=True, eq=False)
class Langmuir(Sorption):
    """s = s_max k_l c/(1 + k_l c).

    Args:
        k_l: affinity [m3/kg], not negative.
        s_max: capacity of the solid [kg/kg], not negative.
        bulk_density: dry mass of solid per volume of soil [kg/m3], not negative.
        rate: of first-order kinetics [1/s], not negative; None (default) for equilibrium.
    """

    k_l: Value
    s_max: Value
    bulk_density: Value
    rate: Value | None = None
    kind: ClassVar[str] = "langmuir"
    limits: ClassVar[dict[str, Limits]] = {
        "k_l": NOT_NEGATIVE,
        "s_max": NOT_NEGATIVE,
        "bulk_density": NOT_NEGATIVE,
        "rate": NOT_NEGATIVE,
    }


@dataclass(frozen=True, eq=False)
class Immobile(_Values):
    """Water that stands and exchanges solute with the water that flows: theta dc_im/dt = rate (c - c_im).

    van Genuchten & Wierenga 1976, Soil Sci. Soc. Am. J. 40, 473-480. The rest of the water content, theta of the run
    minus this one, is mobile; all sorption is with the mobile water. c_im starts as c0.

    Args:
        theta: content of immobile water [-], not negative, below the water content of the run everywhere.
        rate: of exchange [1/s], not negative.
    """

    theta: Value
    rate: Value
    limits: ClassVar[dict[str, Limits]] = {"theta": NOT_NEGATIVE, "rate": NOT_NEGATIVE}


@dataclass(frozen=True, eq=False)
class Solute(_Values):
    """One dissolved species.

    Args:
        name: what it is called in boundaries, results and as a ``parent``.
        longitudinal_dispersivity: along the flow [m], not negative, default 0.
        transverse_dispersivity: across the flow [m], not negative, default 0; columns have no across. A pair
            (horizontal, vertical) where they differ.
        diffusion: molecular, in free water [m2/s], not negative, default 0.
        tortuosity: ratio of the diffusion in the soil's water to that in free water [-], not negative, or
            "millington_quirk" (default): theta^(7/3)/theta_s^2 (Millington & Quirk 1961, Trans. Faraday Soc. 57,
            1200-1207).
        sorption: Linear, Freundlich, Langmuir or None (default).
        decay: first-order rate of the dissolved and the sorbed mass [1/s], not negative, default 0.
        production: of dissolved mass [kg m-3 s-1] per volume of soil; may be a Series; default 0.
        parent: name of the solute whose decayed mass becomes this one; it must stand before this one.
        yield_: mass of this solute made of a mass of its parent [-], not negative, default 1.
        immobile: exchange with immobile water, or None (default).
        uptake: what root uptake carries: "passive" (default; the concentration of the water) or "excluded"
            (nothing).
        evaporates: whether evaporating water carries it (isotopes of water), default False.
        source_concentration: of the water that sources and wells bring in [kg/m3]; may be a Series; default 0. What
            they take out has the concentration of the cell.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range; the message starts with the name of the argument.
    """

    name: str
    longitudinal_dispersivity: Value = 0.0
    transverse_dispersivity: Value | tuple[Value, Value] = 0.0
    diffusion: Value = 0.0
    tortuosity: Value | str = MILLINGTON_QUIRK
    sorption: Sorption | None = None
    decay: Value = 0.0
    production: Value = 0.0
    parent: str | None = None
    yield_: Value = 1.0
    immobile: Immobile | None = None
    uptake: str = "passive"
    evaporates: bool = False
    source_concentration: Value = 0.0
    limits: ClassVar[dict[str, Limits]] = {
        "longitudinal_dispersivity": NOT_NEGATIVE,
        "transverse_dispersivity": NOT_NEGATIVE,
        "diffusion": NOT_NEGATIVE,
        "tortuosity": NOT_NEGATIVE,
        "decay": NOT_NEGATIVE,
        "production": ANY,
        "yield_": NOT_NEGATIVE,
        "source_concentration": ANY,
    }
    in_time: ClassVar[tuple[str, ...]] = ("production", "source_concentration")

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, not {type(self.name).__name__}")
        if not self.name:
            raise ValueError("name is empty; give the solute one, such as 'bromide'")
        for name, limits in self.limits.items():
            value = getattr(self, name)
            if isinstance(value, Series) and name not in self.in_time:
                raise ValueError(f"{name} cannot vary in time; give a number or a tensor, not a Series")
            if name == "tortuosity" and isinstance(value, str):
                if value != MILLINGTON_QUIRK:
                    raise ValueError(
                        f"tortuosity must be a number, a tensor or {MILLINGTON_QUIRK!r}, it is {value!r}"
                    )
                continue
            if name == "transverse_dispersivity" and isinstance(value, tuple):
                if len(value) != 2:
                    raise ValueError(
                        f"transverse_dispersivity must be one value or a pair (horizontal, vertical), "
                        f"it has {len(value)} entries"
                    )
                stored: object = tuple(store(name, part, limits) for part in value)
            else:
                stored = store(name, value, limits)
            object.__setattr__(self, name, stored)
        if self.sorption is not None and not isinstance(self.sorption, Sorption):
            raise TypeError(
                f"sorption must be Linear, Freundlich, Langmuir or None, not {type(self.sorption).__name__}"
            )
        if self.immobile is not None and not isinstance(self.immobile, Immobile):
            raise TypeError(f"immobile must be an Immobile or None, not {type(self.immobile).__name__}")
        if self.parent is not None and not isinstance(self.parent, str):
            raise TypeError(f"parent must be the name of a solute or None, not {type(self.parent).__name__}")
        if self.parent == self.name:
            raise ValueError(f"parent is {self.parent!r} itself; a solute cannot come from its own decay")
        if self.uptake not in UPTAKES:
            raise ValueError(f"uptake must be one of {', '.join(UPTAKES)}, it is {self.uptake!r}")
        if not isinstance(self.evaporates, bool):
            raise TypeError(f"evaporates must be True or False, not {type(self.evaporates).__name__}")

    def values(self) -> dict[str, Stored]:
        """The values by name, those of the sorption and the immobile water as ``sorption.k_d`` and so on."""
        found: dict[str, Stored] = {}
        for name in self.limits:
            value = getattr(self, name)
            if isinstance(value, tuple):
                for part, axis in zip(value, ("horizontal", "vertical"), strict=True):
                    found[f"{name}.{axis}"] = part
            elif not isinstance(value, str):
                found[name] = value
        for entry in fields(self):
            part = getattr(self, entry.name)
            if isinstance(part, _Values):
                found |= {f"{entry.name}.{name}": value for name, value in part.values().items()}
        return found
