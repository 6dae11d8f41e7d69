"""The soil's pointwise passes in Triton: curves, their reverse mode and their forward mode, on flat fields.

A parameter is a field or one value that all cells share (SHARED, a bit each). A table's rows around a cell's
psi are the cell's eight parameters; its gradients come back for each cell, with the place in the table where they
belong.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpde.kernels.flow_stencil.curves import Curves
from dgpde.kernels.flow_stencil.triton_relations import RELATIONS, table_place, tabulated
from dgpde.triton_launch import launch

SLOTS = 8  # most parameters of a relation


@triton.jit
def _parameter(p, n, live, SHARED: tl.constexpr, SLOT: tl.constexpr):
    """A relation's parameter; past the end of the field what no relation divides by zero with."""
    return tl.load(p + n * (1 - ((SHARED >> SLOT) & 1)), mask=live, other=SLOT + 1.0)


@triton.jit
def _curves(psi, n, live, p, knots, RELATION: tl.constexpr, VARIANT: tl.constexpr, SHARED: tl.constexpr):
    """What the relation returns at psi, and the place of the cell's parameters."""
    if RELATION is None:  # a table: p holds the table, the classes, and first and step
        first, step = tl.load(p[2]), tl.load(p[2] + 1)
        wet, h, x, interval = table_place(psi, first, step, knots)
        kind = tl.load(p[1] + n, mask=live, other=0).to(tl.int64)
        place = 4 * (kind * knots + interval)
        at = p[0] + place
        rows = (
            tl.load(at, mask=live, other=1.0),
            tl.load(at + 1, mask=live, other=1.0),
            tl.load(at + 2, mask=live, other=1.0),
            tl.load(at + 3, mask=live, other=1.0),
            tl.load(at + 4, mask=live, other=1.0),
            tl.load(at + 5, mask=live, other=1.0),
            tl.load(at + 6, mask=live, other=1.0),
            tl.load(at + 7, mask=live, other=1.0),
        )
        point, dtheta, dkr = tabulated(wet, h, x, interval, step, knots, rows)
    else:
        place = n
        values = (
            _parameter(p[0], n, live, SHARED, 0),
            _parameter(p[1], n, live, SHARED, 1),
            _parameter(p[2], n, live, SHARED, 2),
            _parameter(p[3], n, live, SHARED, 3),
            _parameter(p[4], n, live, SHARED, 4),
            _parameter(p[5], n, live, SHARED, 5),
            _parameter(p[6], n, live, SHARED, 6),
            _parameter(p[7], n, live, SHARED, 7),
        )
        point, dtheta, dkr = RELATION(psi, values, VARIANT)
    return point, dtheta, dkr, place


@triton.jit
def curves_kernel(
    psi,  # [cells] m
    p,  # parameters
    theta,
    kr,
    capacity,
    dkr,  # [cells] results; theta alone unless ALL
    knots,
    cells,
    RELATION: tl.constexpr,
    VARIANT: tl.constexpr,
    SHARED: tl.constexpr,
    ALL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """theta, kr and their slopes in psi."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, _, _, _ = _curves(here, n, live, p, knots, RELATION, VARIANT, SHARED)
    tl.store(theta + n, point[0], mask=live)
    if ALL:
        tl.store(kr + n, point[1], mask=live)
        tl.store(capacity + n, point[2], mask=live)
        tl.store(dkr + n, point[3], mask=live)


@triton.jit
def pull_kernel(
    psi,  # [cells] m
    p,  # parameters
    by_theta,
    by_kr,  # [cells] cotangents; by_kr only where KR
    by_psi,  # [cells] result
    gradients,  # of the parameters, [cells] each, added to where WANTED
    place,  # [cells] int64 result of a table
    knots,
    cells,
    RELATION: tl.constexpr,
    VARIANT: tl.constexpr,
    SHARED: tl.constexpr,
    KR: tl.constexpr,
    WANTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cotangents of theta and kr to psi and to the parameters."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, dtheta, dkr, where = _curves(here, n, live, p, knots, RELATION, VARIANT, SHARED)
    g = tl.load(by_theta + n, mask=live, other=0.0)
    k = tl.zeros_like(g)
    if KR:
        k = tl.load(by_kr + n, mask=live, other=0.0)
    tl.store(by_psi + n, g * point[2] + k * point[3], mask=live)
    for slot in tl.static_range(8):
        if (WANTED >> slot) & 1:
            to = gradients[slot] + n
            before = tl.load(to, mask=live, other=0.0)
            tl.store(to, before + (g * dtheta[slot] + k * dkr[slot]), mask=live)
    if RELATION is None:
        tl.store(place + n, where, mask=live)


@triton.jit
def push_kernel(
    psi,  # [cells] m
    p,  # parameters
    dot_psi,  # [cells] tangent
    dots,  # of the parameters where MOVING: fields, or one value (DOT_SHARED); of a table in slot 0
    dot_theta,
    dot_kr,  # [cells] results
    knots,
    cells,
    RELATION: tl.constexpr,
    VARIANT: tl.constexpr,
    SHARED: tl.constexpr,
    MOVING: tl.constexpr,
    DOT_SHARED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tangents of theta and kr."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < cells
    here = tl.load(psi + n, mask=live, other=0.0)
    point, dtheta, dkr, place = _curves(here, n, live, p, knots, RELATION, VARIANT, SHARED)
    dot = tl.load(dot_psi + n, mask=live, other=0.0)
    t, k = point[2] * dot, point[3] * dot
    for slot in tl.static_range(8):
        if (MOVING >> slot) & 1:
            if RELATION is None:
                d = tl.load(dots[0] + place + slot, mask=live, other=0.0)
            else:
                d = _parameter(dots[slot], n, live, DOT_SHARED, slot)
            t += dtheta[slot] * d
            k += dkr[slot] * d
    tl.store(dot_theta + n, t, mask=live)
    tl.store(dot_kr + n, k, mask=live)


class TritonSoil:
    """The soil of a run.

    Args:
        relation, variant: names of the relation.
        parameters: [nz, ny, nx] each, or the table [classes, knots, 4].
        classes: [nz, ny, nx], of a table.
        knots: ln of the first suction and spacing, of a table.

    Raises:
        ValueError: a relation that has no Triton form.
    """

    def __init__(
        self,
        relation: str,
        variant: int,
        parameters: list[Tensor],
        classes: Tensor | None,
        knots: tuple[float, float] | None,
    ) -> None:
        self.table = relation == "tabulated"
        if not self.table and relation not in RELATIONS:
            known = ", ".join([*RELATIONS, "tabulated"])
            raise ValueError(
                f"relation: {relation!r} has no Triton kernel; use backend='cpu' on the CPU or one of {known}"
            )
        self.parameters = parameters
        shared = 0
        if self.table:
            table = parameters[0].contiguous()
            assert classes is not None and knots is not None
            place = torch.tensor(knots, dtype=torch.float64, device=table.device)
            given = [table, classes.reshape(-1).contiguous(), place]
        else:
            given, shared = flat_or_one(parameters)
        self.constants = {
            "p": filled(given),
            "knots": parameters[0].shape[1] if self.table else 0,
            "RELATION": None if self.table else RELATIONS[relation],
            "VARIANT": variant,
            "SHARED": shared,
        }

    def theta(self, psi: Tensor) -> Tensor:
        """Water content at psi."""
        found = torch.empty_like(psi)
        rest = {"kr": found, "capacity": found, "dkr": found}
        launch(curves_kernel, psi.numel(), psi=psi, theta=found, ALL=False, **rest, **self.constants)
        return found

    def curves(self, psi: Tensor) -> Curves:
        """theta, kr and their slopes."""
        found = Curves(*(torch.empty_like(psi) for _ in range(4)))
        launch(curves_kernel, psi.numel(), psi=psi, ALL=True, **vars(found), **self.constants)
        return found

    def pull(
        self, psi: Tensor, by_theta: Tensor, by_kr: Tensor | None, gradients: list[Tensor | None]
    ) -> Tensor:
        """Add to the gradients of the parameters (contiguous, or None); returns that of psi."""
        by_psi = torch.empty_like(psi)
        table = gradients[0] if self.table else None
        place, rows = by_psi, psi.new_zeros(0)
        if self.table:
            place = torch.empty_like(psi, dtype=torch.int64)
            if table is not None:
                rows = psi.new_zeros(SLOTS, psi.numel())
            wanted = list(rows) if table is not None else []
        else:
            wanted = [by_psi if value is None else value for value in gradients]
        bits = sum(1 << slot for slot in range(len(wanted)) if self.table or gradients[slot] is not None)
        launch(
            pull_kernel,
            psi.numel(),
            psi=psi,
            by_theta=by_theta.contiguous(),
            by_kr=psi if by_kr is None else by_kr,
            by_psi=by_psi,
            gradients=filled([*wanted, by_psi]),
            place=place,
            KR=by_kr is not None,
            WANTED=bits,
            **self.constants,
        )
        if table is not None:
            # sorted inside, so the sum has one order on every device
            at = place.reshape(1, -1) + torch.arange(SLOTS, device=psi.device)[:, None]
            table.view(-1).index_put_((at.reshape(-1),), rows.reshape(-1), accumulate=True)
        return by_psi

    def push(self, psi: Tensor, dot_psi: Tensor, dots: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Tangents of theta and kr; parameters without a tangent do not move."""
        dot_theta, dot_kr = torch.empty_like(psi), torch.empty_like(psi)
        if self.table:
            given, shared = [psi if dots[0] is None else dots[0].contiguous()], 0
            bits = 0 if dots[0] is None else (1 << SLOTS) - 1
        else:
            given, shared = flat_or_one([psi if dot is None else dot for dot in dots])
            bits = sum(1 << slot for slot, dot in enumerate(dots) if dot is not None)
        launch(
            push_kernel,
            psi.numel(),
            psi=psi,
            dot_psi=dot_psi.contiguous(),
            dots=filled(given),
            dot_theta=dot_theta,
            dot_kr=dot_kr,
            MOVING=bits,
            DOT_SHARED=shared,
            **self.constants,
        )
        return dot_theta, dot_kr


def flat_or_one(values: list[Tensor]) -> tuple[list[Tensor], int]:
    """Fields as kernels read them, and a bit for each that is one value shared by all cells."""
    one = [not any(value.stride()) for value in values]
    found = [value if same else value.contiguous() for value, same in zip(values, one, strict=True)]
    return found, sum(1 << slot for slot, same in enumerate(one) if same)


def filled(values: list[Tensor]) -> tuple[Tensor, ...]:
    """As many pointers as a kernel takes; those past the end are not read."""
    return tuple((values + [values[0]] * SLOTS)[:SLOTS])
