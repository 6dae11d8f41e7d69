"""Any ``nn.Module`` as a soil relation, evaluated by PyTorch inside the field engine's Newton iterations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from dgpde.kernels.soil_relation.module import WEIGHT, SoilFunction
from dgpde.soil.base import Soil, Value

#: Attributes of the soil itself.
KEPT = ("k_sat", "module", "field_names", "relation", "variant", "psi")


class ModuleSoil(Soil):
    """theta(psi) and kr(psi) by a module of your own, for relations that nothing else can hold.

    The field engine asks PyTorch for both curves and their slopes at every Newton iteration; the adjoint asks for the
    gradients of the module's parameters and of the fields. Nothing of the module is kept between steps. The column
    engine, whose kernels cannot call PyTorch, refuses it: bake such a relation with ``Tabulated.from_function``.

    Parameters
        module: ``module(psi, **fields) -> (theta, kr)``, elementwise: psi and the fields have one shape, whatever it
            is, and so have the results. theta [-] must rise with psi and be constant, with kr = 1, for psi >= 0; kr in
            [0, 1] must rise too; both continuous. Parameters of the module are differentiated, buffers are not.
        k_sat: saturated conductivity [m/s], > 0; number, tensor or ``nn.Parameter``, broadcast to ``grid.shape``
        fields: further arguments of the module by name: numbers or what broadcasts to ``grid.shape``; gradients flow to
            them.

    Raises ValueError or TypeError, the message starting with the parameter's name; the module is tried at a few heads.
    """

    relation = "module"

    def __init__(
        self, module: torch.nn.Module, k_sat: Value, fields: Mapping[str, Value] | None = None
    ) -> None:
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"module: is a {type(module).__name__}; give an nn.Module")
        given = {} if fields is None else fields
        if not isinstance(given, Mapping):
            raise TypeError(f"fields: is a {type(given).__name__}; give a mapping of names to values")
        taken = [
            name for name in given if not str(name).isidentifier() or hasattr(Soil, str(name)) or name in KEPT
        ]
        if taken:
            raise ValueError(f"fields: {taken[0]!r} cannot be the name of a field; choose another one")
        super().__init__(0, k_sat=k_sat, **given)
        self.module = module
        self.field_names = tuple(given)
        self._try()

    def _try(self) -> None:
        heads = [1.0, 0.0, -1e-3, -0.1, -1.0, -10.0, -1e3]
        with torch.no_grad():
            values = self._kernel_values()
            sample = next(iter(values.values()), self.k_sat)
            psi = torch.tensor(heads, dtype=sample.dtype, device=sample.device)
            at = {
                name: value if name.startswith(WEIGHT) else value.flatten()[0].expand(psi.shape)
                for name, value in values.items()
            }
            found = self.function.call(psi, at)
        if not (
            isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)
        ):
            raise TypeError("module: must return the two tensors (theta, kr)")
        for name, part in zip(("theta", "kr"), found, strict=True):
            if part.shape != psi.shape:
                raise ValueError(
                    f"module: returns {name} of shape {tuple(part.shape)} for psi of shape {tuple(psi.shape)}; "
                    "it must work element by element"
                )
            if not bool(torch.isfinite(part).all()):
                raise ValueError(f"module: returns a {name} that is not finite at one of the heads {heads} m")
            if bool((part.diff() > 1e-12).any()):
                raise ValueError(
                    f"module: {name} must not fall with psi, as it does at one of the heads {heads} m"
                )
        kr = found[1]
        if bool((kr < 0.0).any()) or bool(((kr[:2] - 1.0).abs() > 1e-6).any()):
            raise ValueError("module: kr must be 1 for psi >= 0 and not negative elsewhere")

    @cached_property
    def _function(self) -> SoilFunction:
        weights = tuple(name for name, _ in self.module.named_parameters())
        fields = self.field_names

        def call(psi: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            own = {name: values[WEIGHT + name] for name in weights}
            given = {name: values[name] for name in fields}
            return torch.func.functional_call(self.module, own, (psi,), given)

        return SoilFunction((*fields, *(WEIGHT + name for name in weights)), call)

    @property
    def function(self) -> SoilFunction:
        """The module as a function of psi, fields and its own parameters."""
        return self._function

    def _kernel_values(self) -> dict[str, Tensor]:
        values = {name: self._get(name) for name in self.field_names}
        return values | {WEIGHT + name: value for name, value in self.module.named_parameters()}
