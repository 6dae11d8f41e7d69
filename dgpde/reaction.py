"""Reactions between the solutes of a transport: any function of PyTorch, a network among them, and Monod's kinetics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dgpde.frame import ANY, NOT_NEGATIVE, POSITIVE, Frame, Stored, store, tensor_of
from dgpde.kernels.transport_stencil.reaction import FEATURES
from dgpde.series import Series, Value, numeric

Rate = Callable[..., Tensor]
Values = dict[str, Tensor]
WEIGHT = "weight."  # before the names of a module's parameters


class Monod:
    """Growth and use by Monod's kinetics (Monod 1949, Annu. Rev. Microbiol. 3, 371-394), for ``Reaction``.

    With the water content theta, the mass that the reaction makes of solute i per volume of soil and time is

        stoichiometry_i theta rate X prod_j c_j/(K_j + c_j) prod_k I_k/(I_k + c_k)            [kg m-3 s-1]

    One substrate gives Monod's own law, two (donor and acceptor of electrons) the dual one. Where a concentration of
    these is negative, as an iterate of Newton's method may be, the rate is continued as a negative one: what is used is
    never used up beyond 0, so that with ``scheme="upwind"`` concentrations stay positive. A biomass that grows faster
    than one over the length of a step asks for shorter steps, as with any implicit Euler step.

    Every value may be a number, a tensor that broadcasts to ``grid.shape`` or an ``nn.Parameter``; all are
    differentiable.

    Args:
        rate: the largest rate, not negative: [1/s] with a biomass, else [kg m-3 s-1] per volume of water.
        half_saturation: names of the solutes that the reaction needs, to their K [kg/m3], > 0.
        stoichiometry: names of solutes to the mass made of them for a unit of reaction [-]: -1 for a substrate that
            ``rate`` counts, the yield for the biomass. A solute that is not named is not changed.
        biomass: X [kg/m3 of water], not negative; or the name of the solute that it is. Default None: X = 1, all in
            ``rate``.
        inhibition: names of solutes that hinder the reaction, to their I [kg/m3], > 0; default none.

    Raises:
        TypeError, ValueError: a value of the wrong kind or range; the message starts with the name of the argument.
    """

    def __init__(
        self,
        rate: Value,
        half_saturation: Mapping[str, Value],
        stoichiometry: Mapping[str, Value],
        biomass: Value | str | None = None,
        inhibition: Mapping[str, Value] | None = None,
    ) -> None:
        found: dict[str, Stored] = {"rate": _constant("rate", rate, NOT_NEGATIVE)}
        self.needed = _named("half_saturation", half_saturation, POSITIVE, found)
        self.made = _named("stoichiometry", stoichiometry, ANY, found)
        self.hindering = _named("inhibition", {} if inhibition is None else inhibition, POSITIVE, found)
        if not self.made:
            raise ValueError("stoichiometry names no solute; say what the reaction makes or uses")
        self.grown = biomass if isinstance(biomass, str) else None
        if biomass is not None and not isinstance(biomass, str):
            found["biomass"] = _constant("biomass", biomass, NOT_NEGATIVE)
        self.values = found

    @property
    def solutes(self) -> tuple[tuple[str, str], ...]:
        """(argument, name of a solute that it names)."""
        named = [("half_saturation", name) for name in self.needed]
        named += [("stoichiometry", name) for name in self.made]
        named += [("inhibition", name) for name in self.hindering]
        return tuple(named + ([("biomass", self.grown)] if self.grown is not None else []))

    def __call__(
        self,
        c: Mapping[str, Tensor],
        theta: Tensor | float,
        values: Mapping[str, Tensor | float] | None = None,
    ) -> dict[str, Tensor]:
        """What is made of each solute of ``stoichiometry`` [kg m-3 s-1].

        Args:
            c: concentrations by name [kg/m3], of any shape.
            theta: water content.
            values: in place of its own, by the names of ``self.values``.
        """
        v: Mapping[str, Tensor | float] = self.values if values is None else values  # type: ignore[assignment]
        speed = torch.as_tensor(1.0, dtype=torch.float64)
        negative = torch.zeros((), dtype=torch.bool)
        for name in self.needed:
            speed = speed * c[name] / (v[f"half_saturation[{name!r}]"] + c[name].abs())
            negative = negative | (c[name] < 0.0)
        if self.grown is not None:
            speed = speed * c[self.grown]
            negative = negative | (c[self.grown] < 0.0)
        # of two negative ones the product would be positive again, and use what is not there
        speed = torch.where(negative, -speed.abs(), speed)
        for name in self.hindering:
            limit = v[f"inhibition[{name!r}]"]
            speed = speed * limit / (limit + c[name].clamp(min=0.0))
        speed = speed * v["rate"] * theta
        if "biomass" in v:
            speed = speed * v["biomass"]
        return {name: v[f"stoichiometry[{name!r}]"] * speed for name in self.made}

    def __repr__(self) -> str:
        return f"Monod({', '.join(self.needed)} -> {', '.join(self.made)})"


class Reaction:
    """What the solutes of a transport make of each other, in every cell by itself, in each implicit step.

    ``rate(c, theta, features)`` returns the mass made of each solute per volume of soil and time [kg m-3 s-1], shaped
    as c; negative where it is used up. A step finds the concentrations at its end from transport, sorption, decay and
    this rate, taken there, together, to the tolerance of the linear solves. The rate must be a function of the cell
    alone, be finite for whatever concentrations Newton's method looks at (small negative ones too), and have a
    derivative nearly everywhere. For a rate that uses a solute up to keep it positive with ``scheme="upwind"``, let it
    vanish at c = 0 and not be positive use below, as ``Monod`` does.

    Args:
        rate: an ``nn.Module``, whose parameters receive gradients; a ``Monod``; or a function, whose ``parameters``
            follow as further arguments and receive gradients. c is [S, *grid.shape] with a list of solutes and
            [*grid.shape] with a single one, kg/m3 of (mobile) water; theta [*grid.shape] is the water content at the
            end of the step; features are those given here, or None. All float64, as are the parameters when they
            come in. Buffers of a module are not differentiated; modules that draw random numbers or mix cells (dropout,
            batch normalisation) must be in ``.eval()``.
        features: [F, *grid.shape] further properties of the cells; differentiable; default None.
        parameters: tensors that a plain function is handed after features; differentiable; default none.

    Raises:
        TypeError, ValueError: an argument of the wrong kind; the message starts with its name. What the rate returns
            is tried at the beginning of each run.
    """

    def __init__(
        self,
        rate: Rate | torch.nn.Module | Monod,
        features: Tensor | None = None,
        parameters: Sequence[Tensor] = (),
    ) -> None:
        if not callable(rate):
            raise TypeError(f"rate must be a function, an nn.Module or a Monod, not {type(rate).__name__}")
        if isinstance(parameters, Tensor) or not isinstance(parameters, Sequence):
            raise TypeError(f"parameters must be a sequence of tensors, not a {type(parameters).__name__}")
        for k, value in enumerate(parameters):
            if not isinstance(value, Tensor):
                raise TypeError(f"parameters[{k}] must be a tensor, not {type(value).__name__}")
        if parameters and isinstance(rate, torch.nn.Module | Monod):
            raise ValueError(
                f"parameters are for plain functions; a {type(rate).__name__} brings its own as attributes"
            )
        if features is not None and isinstance(rate, Monod):
            raise ValueError("features have no place in a Monod; make its values of them")
        self.rate = rate
        self.features = None if features is None else _features(features)
        self.parameters = tuple(parameters)

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError for solutes that a Monod names and that are not among ``names``."""
        if isinstance(self.rate, Monod):
            for argument, name in self.rate.solutes:
                if name not in names:
                    raise ValueError(
                        f"reaction: {argument} of its Monod names {name!r}; the solutes are {', '.join(names)}"
                    )

    def given(self) -> dict[str, Tensor]:
        """The tensors through which a run is differentiated, by name, as they were given."""
        found = {} if self.features is None else {FEATURES: self.features}
        rate = self.rate
        if isinstance(rate, Monod):
            stored = {name: tensor_of(value) for name, value in rate.values.items()}
            return found | {name: value for name, value in stored.items() if value is not None}
        if isinstance(rate, torch.nn.Module):
            return found | {WEIGHT + name: value for name, value in rate.named_parameters()}
        return found | {f"parameters[{k}]": value for k, value in enumerate(self.parameters)}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All of them with what messages call them, for the choice of type and device."""
        for name, value in self.given().items():
            yield f"{name} of the reaction", value

    def inputs(self, frame: Frame) -> Values:
        """The tensors in the type of a run; features [F, *grid.shape].

        Raises:
            ValueError: features or values of a Monod that do not fit the grid.
        """
        found, shape = {}, frame.grid.shape
        for name, value in self.given().items():
            if name == FEATURES:
                if tuple(value.shape[1:]) != shape:
                    raise ValueError(
                        f"features have the shape {list(value.shape)}; give [F, {', '.join(map(str, shape))}], F of "
                        "them for each cell"
                    )
                found[name] = value.to(frame.dtype)
            elif isinstance(self.rate, Monod):
                found[name] = frame.compact(f"{name} of the Monod", value, shape)[0]
            elif not bool(torch.isfinite(value.detach()).all()):
                raise ValueError(f"{name} of the reaction has values that are not finite")
            else:
                found[name] = value.to(frame.dtype) if value.is_floating_point() else value
        return found

    def function(self, names: tuple[str, ...], single: bool, dtype: torch.dtype) -> Rate:
        """(c [S, *grid.shape], theta, tensors by the names of ``inputs``) -> [S, *grid.shape]."""
        rate = self.rate
        if isinstance(rate, Monod):
            constants: dict[str, Tensor | float] = {
                name: value for name, value in rate.values.items() if isinstance(value, float)
            }

            def monod(c: Tensor, theta: Tensor, values: Values) -> Tensor:
                found = rate(dict(zip(names, c, strict=True)), theta, constants | values)
                zero = torch.zeros_like(theta)
                return torch.stack([found.get(name, zero) for name in names])

            return monod
        if isinstance(rate, torch.nn.Module):
            own = tuple(name for name, _ in rate.named_parameters())
            buffers = {
                name: value.to(dtype) if value.is_floating_point() else value
                for name, value in rate.named_buffers()
            }

            def plain(c: Tensor, theta: Tensor, values: Values) -> Tensor:
                state = buffers | {name: values[WEIGHT + name] for name in own}
                return torch.func.functional_call(rate, state, (c, theta, values.get(FEATURES)))

        else:
            count = len(self.parameters)

            def plain(c: Tensor, theta: Tensor, values: Values) -> Tensor:
                more = [values[f"parameters[{k}]"] for k in range(count)]
                return rate(c, theta, values.get(FEATURES), *more)

        def checked(c: Tensor, theta: Tensor, values: Values) -> Tensor:
            made = plain(c, theta, values)
            if not isinstance(made, Tensor):
                raise TypeError(
                    f"reaction: its rate returned a {type(made).__name__}; it must return a tensor"
                )
            if made.shape != c.shape:
                raise ValueError(
                    f"reaction: its rate returned the shape {list(made.shape)} for c of the shape {list(c.shape)}; "
                    "they must be the same"
                )
            if made.dtype != c.dtype:
                raise ValueError(f"reaction: its rate returned {made.dtype} for c of {c.dtype}; cast it")
            return made

        return (lambda c, theta, values: checked(c[0], theta, values)[None]) if single else checked

    def __repr__(self) -> str:
        name = getattr(self.rate, "__name__", None) or type(self.rate).__name__
        return f"Reaction({name})"


def _features(value: object) -> Tensor:
    tensor = numeric("features", value)
    if tensor.dim() < 2:
        raise ValueError(f"features have the shape {list(tensor.shape)}; give [F, *grid.shape]")
    ANY.check("features", tensor)
    return tensor


def _constant(name: str, value: Value, limits: object) -> Stored:
    if isinstance(value, Series):
        raise ValueError(f"{name} cannot vary in time; give a number or a tensor, not a Series")
    return store(name, value, limits)  # type: ignore[arg-type]


def _named(argument: str, given: object, limits: object, found: dict[str, Stored]) -> tuple[str, ...]:
    """The names of a mapping, whose values go to ``found``."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} must map names of solutes to values, it is a {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} must map names of solutes to values, {name!r} is no name")
        found[f"{argument}[{name!r}]"] = _constant(f"{argument}[{name!r}]", value, limits)
    return tuple(given)
