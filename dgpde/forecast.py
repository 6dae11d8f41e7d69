"""First guesses for a row of linear systems whose answers vary smoothly in time."""

from __future__ import annotations

import torch
from torch import Tensor

POINTS = 3  # answers that the polynomial goes through, at most
LARGEST = (
    10.0  # sum of the magnitudes of their weights, at most: round-off and noise of the answers grow with it
)

KNOWN = 6  # systems of one matrix that are remembered
LEAST = 1e-12  # of the eigenvalues of their correlations the largest; what is below is round-off

Length = float | Tensor  # s; a tensor that broadcasts to an answer where cells have steps of their own


class Forecast:
    """Extrapolates the multipliers of an adjoint from step to step.

    A multiplier grows with the length of its step: what is extrapolated is the multiplier over that length, by
    Lagrange's polynomial through the last answers, with fewer of them where steps differ so much that the weights are
    large. A guess changes how many iterations a solve takes, and its answer by no more than the solve's tolerance.
    """

    def __init__(self) -> None:
        self.past: list[
            tuple[Length, Length, Tensor]
        ] = []  # time, length of the step, answer; the latest last
        self.time: Length = 0.0

    def guess(self, length: Length) -> Tensor | None:
        """For the step of that length [s] that comes next; None when nothing is known."""
        if not self.past:
            return None
        at = self.time + 0.5 * length
        for count in range(len(self.past), 0, -1):
            points = self.past[-count:]
            weights = _lagrange([time for time, _, _ in points], at)
            if _largest_sum(weights) <= LARGEST:
                break
        parts = [
            weight * length / dt * answer for weight, (_, dt, answer) in zip(weights, points, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def add(self, length: Length, answer: Tensor) -> None:
        """Take the answer of that step; the next one follows it."""
        self.past = [*self.past, (self.time + 0.5 * length, length, answer)][-POINTS:]
        self.time += length


class Projection:
    """First guesses for systems of one matrix whose right sides resemble each other.

    A combination of right sides belongs to the same combination of answers: the one that comes closest to a new right
    side, in the 2-norm, costs no product with the matrix (Fischer 1998, Comput. Methods Appl. Mech. Eng. 163:193). Of
    six systems at most, the latest. A guess changes an answer by no more than the solve's tolerance.
    """

    def __init__(self) -> None:
        self.rhs: list[Tensor] = []  # of norm 1
        self.answers: list[Tensor] = []
        self.correlation = torch.zeros((0, 0), dtype=torch.float64)

    def guess(self, rhs: Tensor) -> Tensor | None:
        """For the system with that right side; None when nothing is known."""
        if not self.rhs:
            return None
        values, vectors = torch.linalg.eigh(self.correlation)
        along = vectors.T @ self._products(rhs)
        some = values > LEAST * values[-1]
        weights = vectors @ torch.where(some, along / torch.where(some, values, 1.0), 0.0)
        total = torch.zeros_like(rhs)
        for weight, answer in zip(weights.tolist(), self.answers, strict=True):
            total.add_(answer, alpha=weight)
        return total

    def add(self, rhs: Tensor, answer: Tensor) -> None:
        """Take a system that was solved; a right side of zero teaches nothing."""
        norm = float(torch.linalg.vector_norm(rhs))
        if norm == 0.0:
            return
        one = rhs / norm
        self.rhs, self.answers = [*self.rhs, one][-KNOWN:], [*self.answers, answer / norm][-KNOWN:]
        products, count = self._products(one), len(self.rhs)
        correlation = products.new_zeros((count, count))
        if count > 1:
            correlation[:-1, :-1] = self.correlation[1 - count :, 1 - count :]
        correlation[-1] = correlation[:, -1] = products
        self.correlation = correlation

    def _products(self, rhs: Tensor) -> Tensor:
        return torch.stack([torch.vdot(one.flatten(), rhs.flatten()) for one in self.rhs])


def _largest_sum(weights: list[Length]) -> float:
    """Of the weights' magnitudes."""
    total: Length = 0.0
    for weight in weights:
        total = total + (weight.abs() if isinstance(weight, Tensor) else abs(weight))
    return float(total.max()) if isinstance(total, Tensor) else total


def _lagrange(times: list[Length], at: Length) -> list[Length]:
    """Weights of the polynomial through points at some times."""
    found = []
    for k, own in enumerate(times):
        weight: Length = 1.0
        for j, other in enumerate(times):
            if j != k:
                weight *= (at - other) / (own - other)
        found.append(weight)
    return found
