"""Sources, wells, rivers and elastic storage of a linearised step: what every twin does with them by PyTorch.

F holds -V source, -wells and -conductance (head - psi) of the rivers. Wells and rivers may share a cell, so what they
give is added by ``index_put_``, which accumulates in one order on every device.
"""

from __future__ import annotations

from torch import Tensor

from dgpde.kernels.flow_stencil.problem import Cotangents, StencilProblem, Step, Tangents, of_interval

Inputs = dict[str, Tensor]


def load_points(
    problem: StencilProblem,
    inputs: Inputs,
    step: Step,
    psi: Tensor,
    theta: Tensor,
    capacity: Tensor,
    cotangents: Cotangents,
    found: Tensor,
) -> Tensor:
    """``found`` with d/dpsi of elastic water and of what rivers bring."""
    if "elastic" in cotangents:
        slope = capacity * (psi - step.psi) + theta
        found = found + cotangents["elastic"] * inputs["storage"] * slope
    if "rivers" in cotangents:
        assert problem.rivers is not None
        conductance = of_interval("rivers.conductance", inputs["rivers.conductance"], step.interval)
        found.view(-1).index_put_((problem.rivers,), -conductance * cotangents["rivers"], accumulate=True)
    return found


def pull_elastic(
    inputs: Inputs,
    step: Step,
    psi: Tensor,
    theta: Tensor,
    cotangents: Cotangents,
    gradients: Inputs,
    grad_theta: Tensor,
    carry_psi: Tensor,
) -> None:
    """Add the cotangents of elastic water to those of theta, of the head before the step and of the storage."""
    if "elastic" not in cotangents:
        return
    seed, change = cotangents["elastic"], psi - step.psi
    stored = seed * inputs["storage"]
    grad_theta += stored * change
    carry_psi -= stored * theta
    if "storage" in gradients:
        gradients["storage"] += seed * theta * change


def pull_points(
    problem: StencilProblem,
    inputs: Inputs,
    step: Step,
    psi: Tensor,
    multiplier: Tensor,
    cotangents: Cotangents,
    gradients: Inputs,
) -> None:
    """Add what the multiplier of F, and seeds of what rivers bring, give to sources, wells and rivers."""
    if "wells" in gradients:
        assert problem.wells is not None
        row = of_interval("wells", gradients["wells"], step.interval)
        row.add_(multiplier.flatten()[problem.wells])
    if "source" in gradients:
        row = of_interval("source", gradients["source"], step.interval)
        row.add_((problem.volume(multiplier) * multiplier).sum_to_size(row.shape))
    if problem.rivers is None:
        return
    weight = multiplier.flatten()[problem.rivers]
    if "rivers" in cotangents:
        weight = weight + cotangents["rivers"]
    head, conductance = _river(inputs, step.interval)
    slopes = {"rivers.head": conductance, "rivers.conductance": head - psi.flatten()[problem.rivers]}
    for name, slope in slopes.items():
        if name in gradients:
            of_interval(name, gradients[name], step.interval).add_(weight * slope)


def push_points(
    problem: StencilProblem,
    inputs: Inputs,
    step: Step,
    psi: Tensor,
    dot_psi: Tensor,
    tangents: Tangents,
    found: Tensor,
) -> Tangents:
    """Add the tangents of sources, wells and rivers to that of F; returns that of what rivers bring, by name."""
    if "source" in tangents:
        found -= problem.volume(found) * of_interval("source", tangents["source"], step.interval)
    if "wells" in tangents:
        assert problem.wells is not None
        rate = of_interval("wells", tangents["wells"], step.interval)
        found.view(-1).index_put_((problem.wells,), -rate, accumulate=True)
    if problem.rivers is None:
        return {}
    cells = problem.rivers
    head, conductance = _river(inputs, step.interval)
    gain = -conductance * dot_psi.flatten()[cells]
    if "rivers.head" in tangents:
        gain = gain + conductance * of_interval("rivers.head", tangents["rivers.head"], step.interval)
    if "rivers.conductance" in tangents:
        moved = of_interval("rivers.conductance", tangents["rivers.conductance"], step.interval)
        gain = gain + moved * (head - psi.flatten()[cells])
    found.view(-1).index_put_((cells,), -gain, accumulate=True)
    return {"rivers": gain}


def push_elastic(
    inputs: Inputs,
    step: Step,
    psi: Tensor,
    theta: Tensor,
    dots: tuple[Tensor, Tensor, Tensor],
    tangents: Tangents,
) -> Tensor:
    """Tangent of the water that elastic storage takes up; ``dots``: of psi, of psi before the step, of theta."""
    (dot_psi, dot_old, dot_theta), change = dots, psi - step.psi
    found = inputs["storage"] * (dot_theta * change + theta * (dot_psi - dot_old))
    return found + tangents["storage"] * theta * change if "storage" in tangents else found


def _river(inputs: Inputs, interval: int) -> tuple[Tensor, Tensor]:
    """Head and conductance of the rivers."""
    return (
        of_interval("rivers.head", inputs["rivers.head"], interval),
        of_interval("rivers.conductance", inputs["rivers.conductance"], interval),
    )
