"""theta(psi) and kr(psi) as one differentiable operation; the derivation is in README.md of this folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.soil_relation import cpu, reference
from dgpde.kernels.soil_relation.reference import is_shared, soil_names

BACKENDS = ("cpu", "reference")

logger = logging.getLogger(__name__)


def _reference(relation: cpu.Relation, psi: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    values = dict(zip(soil_names(relation.name), parameters, strict=True))
    if relation.classes is not None:
        values["classes"] = relation.classes
    return reference.theta_kr(relation.name, relation.variant, values, psi, relation.knots)


class SoilRelationFunction(torch.autograd.Function):
    """(relation, psi [batch, cells], parameters [cells] or one table) -> (theta, kr) [batch, cells]."""

    @staticmethod
    def forward(relation: cpu.Relation, psi: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Values by the C++ kernel."""
        return cpu.forward(relation, psi, parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs: every derivative is recomputed from them."""
        ctx.relation = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_theta: Tensor | None, grad_kr: Tensor | None) -> tuple[Any, ...]:
        """The vector-Jacobian product of the C++ kernel; of the reference when it is to be differentiated again."""
        psi, *parameters = ctx.saved_tensors
        relation: cpu.Relation = ctx.relation
        count = 2 + len(parameters)
        if grad_theta is None and grad_kr is None:
            return (None,) * count  # nothing depends on the outputs
        if torch.is_grad_enabled():
            wanted = [i for i in range(1, count) if ctx.needs_input_grad[i]]
            inputs = [psi, *parameters]
            theta, kr = _reference(relation, psi, tuple(parameters))
            pairs = [
                (y, g) for y, g in ((theta, grad_theta), (kr, grad_kr)) if g is not None and y.requires_grad
            ]
            if not pairs:
                return (None,) * count  # constants: kr of a saturated soil
            grads = torch.autograd.grad(
                [y for y, _ in pairs],
                [inputs[i - 1] for i in wanted],
                [g for _, g in pairs],
                create_graph=True,
                allow_unused=True,
            )
            result: list[Any] = [None] * count
            for i, grad in zip(wanted, grads, strict=True):
                result[i] = grad
            return tuple(result)
        grad_psi, grad_parameters = cpu.backward(
            relation,
            psi,
            parameters,
            None if grad_theta is None else grad_theta.contiguous(),
            None if grad_kr is None else grad_kr.contiguous(),
        )
        return None, grad_psi, *grad_parameters  # None: relation

    @staticmethod
    def jvp(ctx: Any, dot_relation: None, dot_psi: Tensor | None, *dot_parameters: Tensor | None) -> Any:
        """The Jacobian-vector product of the C++ kernel."""
        psi, *parameters = ctx.saved_tensors
        return cpu.tangent(
            ctx.relation,
            psi,
            parameters,
            None if dot_psi is None else dot_psi.contiguous(),
            [None if dot is None else dot.contiguous() for dot in dot_parameters],
        )


@cache
def _log_choice(backend: str, reason: str) -> None:
    logger.info("soil relations on the CPU are computed by %s%s", backend, reason and f" ({reason})")


@cache
def _why_no_native() -> str:
    try:
        module = native_module()
    except ImportError as reason:
        return str(reason)
    return "" if hasattr(module, "soil_run") else "dgpde._C is older than the package; run `make build`"


def _why_not_cpu(psi: Tensor, params: Mapping[str, Tensor]) -> str:
    """Why the C++ kernel cannot take these tensors; empty when it can."""
    for name, value in (("psi", psi), *params.items()):
        if value.device.type != "cpu":
            return f"{name} is on {value.device}"
        if torch._C._functorch.is_functorch_wrapped_tensor(value):
            return f"{name} is inside a torch.func transform"
    return _why_no_native()


def soil_relation(
    relation: str,
    variant: int,
    params: Mapping[str, Tensor],
    psi: Tensor,
    knots: tuple[float, float] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Water content and relative conductivity; arguments as for ``reference.theta_kr``, all of one dtype.

    backend: "cpu" (C++), "reference" (PyTorch) or None, which takes the C++ kernel for tensors on the CPU when it is
    built, outside torch.func transforms. Gradients flow to psi and to every parameter from both; second derivatives
    are those of the reference.

    Raises ValueError when the backend is unknown or cannot take these tensors.
    """
    if backend not in (None, *BACKENDS):
        raise ValueError(f"backend: is {backend!r}; choose None or one of {', '.join(BACKENDS)}")
    reason = "" if backend == "reference" else _why_not_cpu(psi, params)
    if backend == "cpu" and reason:
        raise ValueError(f"backend: 'cpu' cannot be used here: {reason}")
    if backend == "reference" or reason:
        if reason and psi.device.type == "cpu":
            _log_choice("the PyTorch reference", reason)
        return reference.theta_kr(relation, variant, params, psi, knots)
    _log_choice("the C++ kernel", "")
    return _on_cells(relation, variant, params, psi, knots)


def _on_cells(
    relation: str,
    variant: int,
    params: Mapping[str, Tensor],
    psi: Tensor,
    knots: tuple[float, float] | None,
) -> tuple[Tensor, Tensor]:
    """Shape everything as [batch, cells] and [cells]: cells are the trailing dimensions that parameters have."""
    tabulated = relation == "tabulated"
    names = soil_names(relation)
    fields = [params["classes"]] if tabulated else [params[name] for name in names if not is_shared(name)]
    # numpy's: torch.broadcast_shapes imports sympy, which takes seconds the first time
    core = np.broadcast_shapes(*(tuple(field.shape) for field in fields))
    full = np.broadcast_shapes(tuple(psi.shape), core)
    trailing = next((len(core) - i for i, size in enumerate(core) if size != 1), 0)
    shape = full[len(full) - trailing :] if trailing else full
    cells = math.prod(shape)
    batch = math.prod(full[: len(full) - trailing]) if trailing else 1

    def row(value: Tensor) -> Tensor:
        if value.numel() == 1:
            return (value if value.dim() == 1 else value.reshape(1)).expand(cells)
        lead = value.dim() - trailing
        return (value.reshape(value.shape[lead:]) if lead > 0 else value).expand(shape).reshape(cells)

    heads = (psi if psi.shape == full else psi.expand(full)).reshape(batch, cells).contiguous()
    if tabulated:
        what = cpu.Relation(relation, variant, row(params["classes"]), knots)
        parameters = [params["table"].contiguous()]
    else:
        what = cpu.Relation(relation, variant)
        parameters = [params[name].contiguous() if is_shared(name) else row(params[name]) for name in names]
    theta, kr = SoilRelationFunction.apply(what, heads, *parameters)
    return theta.reshape(full), kr.reshape(full)
