"""What every soil shares: parameters (numbers, fields, nn.Parameters), their checks and the three curves."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dgpde.kernels.soil_relation.function import soil_relation
from dgpde.kernels.soil_relation.module import SoilFunction
from dgpde.kernels.soil_relation.reference import is_shared
from dgpde.soil import functional

Value = float | Tensor


def as_parameter(name: str, value: Value) -> Tensor:
    """A number or floating tensor as a tensor; tensors and ``nn.Parameter`` objects are kept as they are.

    Raises TypeError (neither number nor floating tensor) or ValueError (NaN or infinite), naming the parameter.
    """
    if isinstance(value, Tensor):
        if value.dtype not in (torch.float64, torch.float32):
            raise TypeError(
                f"{name}: has dtype {value.dtype}; give a tensor of torch.float64 or torch.float32"
            )
        tensor = value
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        tensor = torch.tensor(float(value), dtype=torch.float64)
    else:
        raise TypeError(
            f"{name}: is a {type(value).__name__}; give a number, a torch tensor or an nn.Parameter"
        )
    if not torch.isfinite(tensor.detach()).all():
        raise ValueError(f"{name}: holds NaN or infinite values; every value must be finite")
    return tensor


def _worst(tensor: Tensor, bad: Tensor) -> str:
    return f"{tensor.detach().expand(bad.shape)[bad].flatten()[0].item():g}"


class Soil(torch.nn.Module):
    """A soil hydraulic relation with its parameters.

    Attributes: ``relation`` (kernel name), ``variant`` (0 unless the class says otherwise), ``k_sat`` [m/s] and
    one attribute for each parameter, as tensors. Parameters given as ``nn.Parameter`` are listed by
    ``soil.parameters()``; tensors that need no gradient are buffers; results of other computations (a network's
    output) are kept as they are, so that gradients flow through them.

    ``psi`` is a pressure head in m, [..., *grid.shape] or anything that broadcasts with the parameters; results
    have the dtype of ``psi``.
    """

    relation: str
    k_sat: Tensor

    def __init__(self, variant: int = 0, **values: Value) -> None:
        super().__init__()
        self.variant = variant
        self._names = tuple(values)
        for name, value in values.items():
            self._adopt(name, as_parameter(name, value))
        # numpy's: torch.broadcast_shapes imports sympy, which takes seconds the first time
        shape: tuple[int, ...] = ()
        for name in self._names:
            try:
                shape = np.broadcast_shapes(shape, self._get(name).shape)
            except ValueError:
                raise ValueError(
                    f"{name}: has shape {tuple(self._get(name).shape)}, which does not broadcast with "
                    f"{shape} of the parameters before it; give every parameter a shape that broadcasts "
                    "to grid.shape"
                ) from None
        self._check_above("k_sat", 0.0)

    # ------------------------------------------------------------------------------------------------- checks

    def _adopt(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, torch.nn.Parameter):
            self.register_parameter(name, tensor)
        elif tensor.requires_grad:
            # graph tensors (and leaves that an optimiser holds) must stay the caller's own objects
            setattr(self, name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _get(self, name: str) -> Tensor:
        return getattr(self, name)

    def _check(self, name: str, bad: Tensor, rule: str) -> None:
        if bad.any():
            raise ValueError(f"{name}: is {_worst(self._get(name), bad)}; {rule}")

    def _check_above(self, name: str, bound: float, unit: str = "") -> None:
        self._check(name, self._get(name).detach() <= bound, f"must be > {bound:g}{unit}")

    def _check_within(self, name: str, low: float, high: float) -> None:
        value = self._get(name).detach()
        self._check(name, (value < low) | (value > high), f"must lie in [{low:g}, {high:g}]")

    def _check_water_contents(self) -> None:
        """0 <= theta_r < theta_s <= 1."""
        self._check_within("theta_r", 0.0, 1.0)
        self._check_within("theta_s", 0.0, 1.0)
        theta_r, theta_s = torch.broadcast_tensors(
            self._get("theta_r").detach(), self._get("theta_s").detach()
        )
        self._check("theta_r", theta_r >= theta_s, "must be smaller than theta_s everywhere")

    # -------------------------------------------------------------------------------------- what kernels take

    def _kernel_values(self) -> dict[str, Tensor]:
        """Kernel name -> tensor as given, without k_sat."""
        return {name: self._get(name) for name in functional.PARAMETERS[self.relation]}

    def _expand(self, name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
        if value.shape == tuple(shape):  # no node of the graph for nothing
            return value
        try:
            return value.expand(tuple(shape))
        except RuntimeError:
            raise ValueError(
                f"{name}: has shape {tuple(value.shape)}, which does not broadcast to the grid's shape "
                f"{tuple(shape)}; give a number or a field of that shape"
            ) from None

    def parameters_on(
        self, shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """The kernel's parameters as views expanded to ``shape``; gradients flow back to the values given.

        dtype, device: converted to these when given. Raises ValueError when a parameter does not broadcast.
        """
        moved = {name: value.to(dtype=dtype, device=device) for name, value in self._kernel_values().items()}
        return {
            name: value if is_shared(name) else self._expand(name, value, shape)
            for name, value in moved.items()
        }

    def k_sat_on(
        self, shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Tensor:
        """``k_sat`` [m/s] as a view expanded to ``shape``; arguments as in :meth:`parameters_on`."""
        return self._expand("k_sat", self.k_sat.to(dtype=dtype, device=device), shape)

    def classes_on(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """Class index of each cell, int32, expanded to ``shape``; None for relations without classes."""
        return None

    @property
    def knots(self) -> tuple[float, float] | None:
        """(ln of the first knot's suction, spacing in ln) of a table; None for other relations."""
        return None

    @property
    def function(self) -> SoilFunction | None:
        """The relation itself where PyTorch evaluates it, as the field engine can; None for compiled relations."""
        return None

    # ------------------------------------------------------------------------------------------------- curves

    def _prepared(self, psi: Tensor) -> dict[str, Tensor]:
        if not isinstance(psi, Tensor):
            raise TypeError(f"psi: is a {type(psi).__name__}; give a torch tensor of pressure heads in m")
        if psi.dtype not in (torch.float64, torch.float32):
            raise TypeError(f"psi: has dtype {psi.dtype}; give torch.float64 or torch.float32")
        return {
            name: value.to(psi.device, psi.dtype if value.is_floating_point() else value.dtype)
            for name, value in self._kernel_values().items()
        }

    def theta_kr(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Water content [-] and relative conductivity [-] at ``psi`` [m]."""
        values = self._prepared(psi)
        if self.function is not None:
            fields = (value.shape for name, value in values.items() if not is_shared(name))
            psi = psi.expand(np.broadcast_shapes(psi.shape, *fields))
        return self._evaluate(values, psi)

    def theta(self, psi: Tensor) -> Tensor:
        """Volumetric water content [-] at ``psi`` [m]; differentiable in psi and every parameter."""
        return self.theta_kr(psi)[0]

    def theta_of_cells(self, psi: Tensor, cells: Tensor, shape: Sequence[int]) -> Tensor:
        """Water content [..., m] of some cells of a grid of that shape at their psi [..., m].

        cells: [m] flat indices.
        """
        values = self.parameters_on(shape, psi.dtype, psi.device)
        classes = self.classes_on(shape, psi.device)
        if classes is not None:
            values["classes"] = classes
        chosen = {
            name: value if is_shared(name) else value.flatten()[cells] for name, value in values.items()
        }
        return self._evaluate(chosen, psi)[0]

    def _evaluate(self, values: dict[str, Tensor], psi: Tensor) -> tuple[Tensor, Tensor]:
        if self.function is not None:
            return self.function.theta_kr(psi, values)
        return soil_relation(self.relation, self.variant, values, psi, self.knots)

    def conductivity(self, psi: Tensor) -> Tensor:
        """Hydraulic conductivity k_sat kr [m/s] at ``psi`` [m]; differentiable in psi and every parameter."""
        return self.k_sat.to(dtype=psi.dtype, device=psi.device) * self.theta_kr(psi)[1]

    def capacity(self, psi: Tensor) -> Tensor:
        """Slope d theta / d psi [1/m] at ``psi`` [m], 0 when saturated.

        Differentiable in psi and every parameter. Always by the PyTorch reference, which has its derivatives.
        """
        if self.function is not None:
            with torch.enable_grad():
                x = psi if psi.requires_grad else psi.detach().requires_grad_()
                theta = self.theta(x)
                slope = torch.autograd.grad(theta.sum(), x, create_graph=True)[0]
            return slope if torch.is_grad_enabled() else slope.detach()
        return functional.capacity(self.relation, self.variant, self._prepared(psi), psi, self.knots)

    def forward(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """(theta, K): the two curves that a solver needs."""
        theta, kr = self.theta_kr(psi)
        return theta, self.k_sat.to(dtype=psi.dtype, device=psi.device) * kr

    def extra_repr(self) -> str:
        """The parameters: values of single numbers, shapes of fields."""
        parts = []
        for name in self._names:
            value = self._get(name)
            parts.append(f"{name}={value.item():g}" if value.numel() == 1 else f"{name}={list(value.shape)}")
        return ", ".join(parts)
