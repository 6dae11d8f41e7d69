"""The C++ twin: one call of ``dgpde._C.soil_run`` on [batch, cells] heads and [cells] parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.soil_relation.reference import PARAMETERS
from dgpde.kernels.soil_relation.reference_network import OWN

#: Order of the relations in ``csrc/math/soil.h``.
RELATIONS = tuple(PARAMETERS)


@dataclass(frozen=True)
class Relation:
    """Which relation, and for tables the class of each cell and the position of the knots."""

    name: str
    variant: int = 0
    classes: Tensor | None = None  # [cells] int32
    knots: tuple[float, float] | None = None  # x of the first knot, spacing


def _row(value: Tensor) -> tuple[Tensor, int]:
    """A [cells] tensor that the kernel can read with one stride: as it is, or a copy."""
    stride = value.stride(0) if value.numel() > 1 else 0
    return (value, stride) if stride >= 0 else (value.contiguous(), 1)


class _Call:
    """A SoilCall and the tensors that it points to, which must outlive it."""

    def __init__(self, relation: Relation, dtype: torch.dtype, batch: int, cells: int) -> None:
        self.module = native_module()
        self.native: Any = self.module.SoilCall()
        self.native.relation = RELATIONS.index(relation.name)
        self.native.variant = relation.variant
        self.native.single = dtype == torch.float32
        self.native.threads = torch.get_num_threads()
        self.native.batch, self.native.cells = batch, cells
        self.dtype = dtype
        self.kept: list[Tensor] = []

    def set(self, name: str, value: Tensor | None) -> None:
        if value is None:
            return
        assert value.is_contiguous() and value.dtype == self.dtype, (name, value.dtype, value.stride())
        self.kept.append(value)
        self.native.set(name, value.data_ptr())

    def set_rows(self, name: str, values: Sequence[Tensor | None]) -> None:
        for slot, value in enumerate(values):
            if value is not None:
                assert value.dtype == self.dtype and value.dim() == 1, (name, slot, value.dtype, value.shape)
                row, stride = _row(value)
                self.kept.append(row)
                self.native.set_slot(name, slot, row.data_ptr(), stride)

    def set_soil(self, relation: Relation, parameters: Sequence[Tensor]) -> None:
        if relation.name == "network":
            *parameters, weights = parameters
            self.set("weights", weights)
            self.native.n_units, self.native.n_features = weights.shape[1], weights.shape[2] - OWN
        if relation.name != "tabulated":
            self.set_rows("raw", parameters)
            return
        table, classes, knots = parameters[0], relation.classes, relation.knots
        assert classes is not None and classes.dtype == torch.int32 and knots is not None
        self.set("table", table)
        self.native.n_classes, self.native.n_knots = table.shape[0], table.shape[1]
        self.native.x_first, self.native.x_step = knots
        row, stride = _row(classes)
        self.kept.append(row)
        self.native.set_classes(row.data_ptr(), stride)

    def run(self) -> None:
        if self.native.cells and self.native.batch:
            self.module.soil_run(self.native)


def _call(relation: Relation, psi: Tensor, parameters: Sequence[Tensor]) -> _Call:
    call = _Call(relation, psi.dtype, psi.shape[0], psi.shape[1])
    call.set("psi", psi)
    call.set_soil(relation, parameters)
    return call


def forward(relation: Relation, psi: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """theta and kr [batch, cells] at psi [batch, cells] m.

    parameters: [cells] each, in kernel order; for tables the single [n_class, n_knots, 4].
    """
    theta, kr = torch.empty_like(psi), torch.empty_like(psi)
    call = _call(relation, psi, parameters)
    call.set("theta", theta)
    call.set("kr", kr)
    call.run()
    return theta, kr


def curves(relation: Relation, psi: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """theta, kr and their slopes in psi, [batch, cells] each; arguments as for :func:`forward`."""
    call = _call(relation, psi, parameters)
    found = {name: torch.empty_like(psi) for name in ("theta", "kr", "capacity", "dkr")}
    for name, value in found.items():
        call.set(name, value)
    call.run()
    return tuple(found.values())


def slopes(relation: Relation, psi: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Slopes d theta/d psi and d kr/d psi [batch, cells] in 1/m; arguments as for :func:`forward`."""
    capacity, dkr = torch.empty_like(psi), torch.empty_like(psi)
    call = _call(relation, psi, parameters)
    call.set("capacity", capacity)
    call.set("dkr", dkr)
    call.run()
    return capacity, dkr


def partials(relation: Relation, psi: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Derivatives of theta and kr in each parameter, [parameters, batch, cells] each.

    For tables: in the 8 numbers of the two rows around psi. For networks: in all but the weights.
    """
    count = 8 if relation.name in ("tabulated", "network") else len(parameters)
    dtheta, dkr = psi.new_empty(count, *psi.shape), psi.new_empty(count, *psi.shape)
    call = _call(relation, psi, parameters)
    call.set("partial_theta", dtheta)
    call.set("partial_kr", dkr)
    call.run()
    return dtheta, dkr


def wet_suction(relation: Relation, parameters: Sequence[Tensor], cells: int) -> Tensor:
    """Suction [cells] m near the inflection of theta."""
    result = parameters[0].new_empty(cells)
    call = _Call(relation, result.dtype, 1, cells)
    call.set_soil(relation, parameters)
    call.set("wet_suction", result)
    call.run()
    return result


def backward(
    relation: Relation,
    psi: Tensor,
    parameters: Sequence[Tensor],
    grad_theta: Tensor | None,
    grad_kr: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients in psi [batch, cells] and in each parameter, given those in theta and kr (None is 0)."""
    call = _call(relation, psi, parameters)
    call.set("grad_theta", grad_theta)
    call.set("grad_kr", grad_kr)
    grad_psi = torch.empty_like(psi)
    call.set("grad_psi", grad_psi)
    if relation.name == "tabulated":
        grad_table = torch.zeros_like(parameters[0])
        call.set("grad_table", grad_table)
        call.run()
        return grad_psi, [grad_table]
    # zeros: the kernel leaves the sums alone when there is nothing to sum over
    fields = [value for value in parameters if value.dim() == 1]
    grad_raw = psi.new_zeros(len(fields), psi.shape[1])
    call.set("grad_raw", grad_raw)
    shared = []
    if relation.name == "network":
        shared.append(psi.new_zeros(call.module.WEIGHT_CHUNKS, *parameters[-1].shape))
        call.set("grad_weights", shared[0])
    call.run()
    return grad_psi, [*grad_raw.unbind(0), *(part.sum(0) for part in shared)]


def tangent(
    relation: Relation,
    psi: Tensor,
    parameters: Sequence[Tensor],
    dot_psi: Tensor | None,
    dot_parameters: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Tangents of theta and kr [batch, cells] along those of psi and of the parameters (None is 0)."""
    dot_theta, dot_kr = torch.empty_like(psi), torch.empty_like(psi)
    call = _call(relation, psi, parameters)
    call.set("dot_psi", dot_psi)
    if relation.name == "tabulated":
        call.set("dot_table", dot_parameters[0])
    else:
        if relation.name == "network":
            *dot_parameters, dot_weights = dot_parameters
            call.set("dot_weights", dot_weights)
        call.set_rows("dot_raw", dot_parameters)
    call.set("dot_theta", dot_theta)
    call.set("dot_kr", dot_kr)
    call.run()
    return dot_theta, dot_kr
