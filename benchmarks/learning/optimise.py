"""L-BFGS over several independent problems at once: columns that share a pack cost little more than one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]

ENOUGH = 1e-4  # part of the descent that the gradient promises which a step must give (Armijo)
SHORTER = 0.3  # a step that gives less is shortened to this part
PATIENCE = 12  # trials without success before a row forgets its pairs and starts again downhill
LARGEST = 1.0  # of the changes of a row's numbers in one step


@dataclass(frozen=True)
class Minimum:
    """Where every row came to: x [n, p], loss [n], and how often the objective was evaluated."""

    x: Tensor
    loss: Tensor
    evaluations: int


def minimise(
    objective: Objective,
    start: Tensor,
    evaluations: int,
    memory: int = 20,
    curvature: Tensor | None = None,
) -> Minimum:
    """Minimise the losses of n independent problems, each by its own L-BFGS (Nocedal 1980, Math. Comput. 35, 773).

    Every evaluation is one trial step for every row: a row whose trial gives enough descent takes it and turns to its
    next direction, another shortens its step. A loss or a gradient that is not finite is a trial that failed.

    Args:
        objective: x [n, p] -> losses [n], each a function of its own row.
        start: [n, p].
        evaluations: of the objective with its gradient, all told.
        memory: pairs of changes of x and gradient kept for each row.
        curvature: of the losses [n, p, p], positive definite, from which the pairs start (such as Gauss and Newton's
            at the start); default a multiple of one, by the newest pair.

    Raises RuntimeError when a loss is not finite at the start.
    """

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        losses = objective(x)
        # a row that failed gives no gradient to the others
        finite = torch.isfinite(losses.detach())
        (gradient,) = torch.autograd.grad(losses[finite].sum(), x)
        return losses.detach(), gradient

    x = start.detach().clone()
    loss, gradient = evaluate(x)
    if not bool(torch.isfinite(loss).all()):
        raise RuntimeError(f"a loss at the start is not finite: {loss.tolist()}; start elsewhere")
    n, p = x.shape
    steps, turns = x.new_zeros(memory, n, p), x.new_zeros(memory, n, p)
    filled = torch.zeros(memory, n, dtype=torch.bool)
    slot = torch.zeros(n, dtype=torch.long)
    rows = torch.arange(n)
    factor = None if curvature is None else torch.linalg.cholesky(curvature)
    direction, length = _direction(gradient, steps, turns, filled, slot, factor)
    shortened = torch.zeros(n, dtype=torch.long)
    for _ in range(evaluations - 1):
        change = length[:, None] * direction
        change = change * (LARGEST / change.abs().amax(1, keepdim=True).clamp(min=LARGEST))
        trial_loss, trial_gradient = evaluate(x + change)
        promised = (gradient * change).sum(1)
        finite = torch.isfinite(trial_loss) & torch.isfinite(trial_gradient).all(1)
        taken = finite & (trial_loss <= loss + ENOUGH * promised)
        turn = trial_gradient - gradient
        # a pair without positive curvature would spoil the metric
        useful = taken & ((turn * change).sum(1) > 1e-10 * turn.norm(dim=1) * change.norm(dim=1))
        at = (slot[useful], rows[useful])
        steps[at], turns[at], filled[at] = change[useful], turn[useful], True
        slot = torch.where(useful, (slot + 1) % memory, slot)
        x = torch.where(taken[:, None], x + change, x)
        loss = torch.where(taken, trial_loss, loss)
        gradient = torch.where(taken[:, None], trial_gradient, gradient)
        shortened = torch.where(taken, 0, shortened + 1)
        lost = shortened == PATIENCE
        shortened[lost] = 0
        filled[:, lost] = False
        renewed, one = _direction(gradient, steps, turns, filled, slot, factor)
        direction = torch.where((taken | lost)[:, None], renewed, direction)
        length = torch.where(taken | lost, one, SHORTER * length)
    return Minimum(x, loss, evaluations)


def _direction(
    gradient: Tensor, steps: Tensor, turns: Tensor, filled: Tensor, slot: Tensor, factor: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Descent direction of each row [n, p] by the two-loop recursion, and the step to try first [n].

    factor: lower one of the curvature from which the pairs start, if one is given.
    """
    memory, rows = steps.shape[0], torch.arange(gradient.shape[0])
    q = gradient.clone()
    order = [(slot - 1 - k) % memory for k in range(memory)]  # newest first
    kept = []
    for index in order:
        s, y, there = steps[index, rows], turns[index, rows], filled[index, rows]
        curvature = torch.where(there, (s * y).sum(1), 1.0)
        part = torch.where(there, (s * q).sum(1) / curvature, 0.0)
        q = q - part[:, None] * y
        kept.append((s, y, there, curvature, part))
    newest = kept[0]
    if factor is not None:
        q = torch.cholesky_solve(q[..., None], factor)[..., 0]
    else:
        _, y, there, curvature, _ = newest
        scale = torch.where(there, curvature / torch.where(there, y.square().sum(1), 1.0), 1.0)
        q = scale[:, None] * q
    for s, y, there, curvature, part in reversed(kept):
        back = torch.where(there, (y * q).sum(1) / curvature, 0.0)
        q = q + torch.where(there, part - back, 0.0)[:, None] * s
    if factor is not None:
        return -q, torch.ones_like(q[:, 0])
    size = gradient.norm(dim=1)
    first = torch.where(size > 0.0, 0.1 / torch.where(size > 0.0, size, 1.0), 0.0)
    return -q, torch.where(newest[2], torch.ones_like(size), first)
