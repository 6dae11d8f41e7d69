"""One column-flow problem on two backends: everything that a run returns, and both of its derivatives."""

from __future__ import annotations

from dataclasses import replace

import torch
from gradient_cases import CASES
from gradient_problem import OBSERVABLES, Case, Inputs, direction, weights
from torch import Tensor
from torch.autograd import forward_ad

from dgpde.kernels.column_flow.function import column_flow
from dgpde.kernels.column_flow.problem import ColumnProblem, ColumnResult

DECISIONS = (
    "steps",
    "cuts",
    "rejections",
)  # on how a column goes on; Newton iterations may differ by round-off
STORM = replace(CASES["storm, pond, run-off, drying"], transpiration=1e-7, omega_c=0.6, source=1e-9, n=70)
TABLE = replace(CASES["table"], n=70)
NETWORK = replace(CASES["network"], n=70)
SHARED = ("gradient soil.table", "gradient soil.weights")  # sums over all columns


def to(problem: ColumnProblem, inputs: Inputs, device: str) -> tuple[ColumnProblem, Inputs]:
    """The same problem with its tensors on a device; dz and times stay where the package keeps them."""
    classes = None if problem.classes is None else problem.classes.to(device)
    return replace(problem, classes=classes), {name: value.to(device) for name, value in inputs.items()}


def spread(case: Case, problem: ColumnProblem, inputs: Inputs) -> Inputs:
    """Columns that differ enough to take different numbers of steps."""
    factor = torch.logspace(-0.5, 0.5, case.n, dtype=torch.float64)
    return inputs | {"k_sat": inputs["k_sat"] * factor, "psi0": inputs["psi0"] * factor.flip(0)}


def observed(problem: ColumnProblem, inputs: Inputs, result: ColumnResult) -> dict[str, Tensor]:
    """Observables without theta, which is no output of the run."""
    values = {name: getattr(result, name) for name in OBSERVABLES if name != "theta"}
    return {name: values[name] for name in sorted(values)}


def cotangents(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random cotangents, the same on every device."""
    return {
        name: w.to(values[name].device)
        for name, w in weights({k: v.cpu() for k, v in values.items()}).items()
    }


def gradients(problem: ColumnProblem, inputs: Inputs, w: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, counters and gradients of all inputs."""
    at = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    result = column_flow(problem, at)
    values = observed(problem, at, result)
    loss = torch.stack([(w[name] * value).sum() for name, value in values.items()]).sum()
    found = {name: value.detach() for name, value in values.items()}
    found |= {name: getattr(result.report, name) for name in ("status", *DECISIONS)}
    grads = torch.autograd.grad(loss, list(at.values()))
    return found | {f"gradient {name}": value for name, value in zip(at, grads, strict=True)}


def tangents(problem: ColumnProblem, inputs: Inputs) -> dict[str, Tensor]:
    """Movement of the outputs when every input moves."""
    with forward_ad.dual_level():
        at = {
            name: forward_ad.make_dual(value, direction(name, value.cpu()).to(value.device))
            for name, value in inputs.items()
        }
        values = observed(problem, at, column_flow(problem, at))
        return {f"tangent {name}": forward_ad.unpack_dual(value).tangent for name, value in values.items()}


def everything(problem: ColumnProblem, inputs: Inputs) -> dict[str, Tensor]:
    """Outputs, counters, gradients and tangents."""
    with torch.no_grad():
        plain = observed(problem, inputs, column_flow(problem, inputs))
    found = gradients(problem, inputs, cotangents(plain))
    for name, value in plain.items():
        assert value.equal(found[name]), f"{name} of a run without history differs"
    return found | tangents(problem, inputs)


def same_decisions(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Tensor:
    """Columns [n] whose steps were cut and rejected alike.

    Near saturation, in soils whose kr is steep there, round-off decides whether Newton converges within its limit; a
    step is then cut on one machine and not on another, and the two runs are different discrete solutions.
    """
    return torch.stack([found[name].cpu() == expected[name] for name in DECISIONS]).all(0)


def of_columns(found: dict[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
    """What belongs to some of the columns; sums over all of them only when that is what they are."""
    if bool(columns.all()):
        return found
    own = {name: value for name, value in found.items() if name not in SHARED}
    return {name: value[..., columns.to(value.device)] for name, value in own.items()}


ROUND_OFF = 1e-13  # of sums over the outputs with weights of order 1


def disagreement(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """Largest difference of any tensor relative to the largest number in it, and whose it is.

    A tensor whose numbers are all below ROUND_OFF stands for zero (theta_s moves nothing in a saturated column): there
    the difference only has to be below ROUND_OFF too.
    """
    assert found.keys() == expected.keys()
    worst = (0.0, "")
    for name, value in expected.items():
        mine = found[name].cpu()
        assert mine.isnan().equal(value.isnan()), name
        size = float(value.abs().nan_to_num().max())
        difference = float((mine - value).abs().nan_to_num().max())
        if size < ROUND_OFF and difference < ROUND_OFF:
            continue
        worst = max(worst, (difference / size if size > 0 else difference, name))
    return worst
