"""Matrices for the tests of the linear solver: random ones, and Jacobians of Richards steps."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from dgpde.linear import StencilMatrix

Array = np.ndarray


def _faces(field: Array, axis: int) -> tuple[Array, Array]:
    """Values on both sides of the faces across an axis."""
    return np.delete(field, -1, axis), np.delete(field, 0, axis)


def stencil(couplings: list[tuple[Array, Array]], diag: Array, symmetric: bool = False) -> StencilMatrix:
    """A matrix from its diagonal and, for z, y, x, the couplings (in the lower cell's row, in the upper's)."""
    c = np.zeros((7, *diag.shape))
    c[0] = diag
    for axis, (up, down) in enumerate(couplings):
        lower, upper = [slice(None)] * 3, [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        c[2 + 2 * axis][tuple(lower)] = up
        c[1 + 2 * axis][tuple(upper)] = down
    return StencilMatrix(torch.from_numpy(c), symmetric)


def random_matrix(
    shape: tuple[int, int, int],
    *,
    symmetric: bool = False,
    inactive: float = 0.0,
    excess: float = 0.1,
    seed: int = 0,
) -> StencilMatrix:
    """An M-matrix with couplings over three decades.

    Rows exceed the sum of their couplings by ``excess`` times a random number; a fraction ``inactive`` of the cells is
    cut out.
    """
    rng = np.random.default_rng(seed)
    active = rng.random(shape) >= inactive
    couplings = []
    for axis in range(3):
        a, b = _faces(active, axis)
        up = np.where(a & b, -(10.0 ** rng.uniform(-3, 0, a.shape)), 0.0)
        down = up.copy() if symmetric else np.where(a & b, -(10.0 ** rng.uniform(-3, 0, a.shape)), 0.0)
        couplings.append((up, down))
    rows = -np.asarray(stencil(couplings, np.zeros(shape)).coefficients.sum(0))
    diag = np.where(active, rows + excess * rng.random(shape) + 0.01 * excess, 1.0)
    return stencil(couplings, diag, symmetric)


def random_field(
    shape: tuple[int, int, int], variance: float, corr: tuple[float, float, float], seed: int = 1
) -> Array:
    """exp of a smooth Gaussian field with this variance."""
    g = np.random.default_rng(seed).standard_normal(shape)
    g = scipy.ndimage.gaussian_filter(g, sigma=corr, mode="wrap")
    spread = g.std()
    return np.exp(np.sqrt(variance) * (g - g.mean()) / spread) if spread > 0 else np.ones(shape)


def richards_jacobian(
    shape: tuple[int, int, int],
    *,
    spacing: tuple[float, float, float] = (0.25, 10.0, 10.0),
    variance: float = 4.0,
    blocks: float = 1.0,
    dt: float = 1e4,
    water_table: float = 3.0,
    rough: float = 0.5,
    inactive: float = 0.0,
    seed: int = 1,
) -> StencilMatrix:
    """Jacobian of one implicit step with upstream relative permeability, in a state as Newton meets it.

    The state is hydrostatic, with noise.

    Args:
        shape: (nz, ny, nx).
        spacing: (dz, dy, dx) m.
        variance: of ln K around 1e-5 m/s.
        blocks: K is divided by this in every other block of 5 x 8 x 8 cells.
        dt: step, s.
        water_table: height above the bottom, m.
        rough: standard deviation of the noise in psi, m.
        inactive: fraction of cells cut out.
        seed: of all random fields.
    """
    dz, dy, dx = spacing
    rng = np.random.default_rng(seed + 100)
    k_sat = 1e-5 * random_field(shape, variance, (2, 4, 4), seed)
    iz, iy, ix = np.indices(shape)
    k_sat = np.where((iz // 5 + iy // 8 + ix // 8) % 2 == 1, k_sat / blocks, k_sat)
    z = (iz + 0.5) * dz
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), sigma=(1, 2, 2), mode="nearest")
    psi = water_table - z + rough * noise / (noise.std() if noise.std() > 0 else 1.0)
    head = psi + z
    active = rng.random(shape) >= inactive

    # van Genuchten-Mualem with n = 2, m = 1/2, alpha = 1.5 /m
    h = 1.5 * np.maximum(-psi, 0.0)
    se = 1 / np.sqrt(1 + h**2)
    kr = np.sqrt(se) * (1 - np.sqrt(1 - se**2)) ** 2
    step = 1e-6
    later = 1 / np.sqrt(1 + (h + 1.5 * step) ** 2)
    dkr = np.where(psi < 0, (kr - np.sqrt(later) * (1 - np.sqrt(1 - later**2)) ** 2) / step, 0.0)
    capacity = np.where(psi < 0, 0.32 * 1.5 * h / (1 + h**2) ** 1.5, 0.0) + 1e-5

    volume = dz * dy * dx
    diag = volume * capacity / dt
    couplings = []
    for axis, geometry in enumerate((dy * dx / dz, dz * dx / dy, dz * dy / dx)):
        (ka, kb), (ha, hb) = _faces(k_sat, axis), _faces(head, axis)
        (ra, rb), (da, db), (on_a, on_b) = _faces(kr, axis), _faces(dkr, axis), _faces(active, axis)
        t = np.where(on_a & on_b, 2 * ka * kb / (ka + kb) * geometry, 0.0)
        up = ha >= hb  # the lower cell is upstream
        kf, drop = np.where(up, ra, rb), ha - hb
        by_a = t * (kf + np.where(up, da * drop, 0.0))  # d flux / d psi_a
        by_b = -t * (kf - np.where(up, 0.0, db * drop))  # d flux / d psi_b
        couplings.append((by_b, -by_a))
        lower, upper = [slice(None)] * 3, [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        diag[tuple(lower)] += by_a
        diag[tuple(upper)] -= by_b
    return stencil(couplings, np.where(active, diag, 1.0))


def darcy_matrix(
    k: Array, spacing: tuple[float, float, float], *, storage: float = 0.0, heads: bool = True
) -> tuple[StencilMatrix, Tensor]:
    """Symmetric matrix of saturated flow and the right-hand side of a head of 1 at x = 0 and of 0 at the far end.

    Args:
        k: [nz, ny, nx] m/s.
        spacing: (dz, dy, dx) m.
        storage: added to each row, 1/(m s) times the volume.
        heads: whether the two heads are there; without them the right-hand side is zero.
    """
    dz, dy, dx = spacing
    couplings = []
    for axis, geometry in enumerate((dy * dx / dz, dz * dx / dy, dz * dy / dx)):
        a, b = _faces(k, axis)
        t = 2 * a * b / (a + b) * geometry
        couplings.append((-t, -t))
    diag = storage * dz * dy * dx - np.asarray(stencil(couplings, np.zeros(k.shape)).coefficients.sum(0))
    rhs = np.zeros(k.shape)
    if heads:
        ends = 2 * dy * dz / dx
        rhs[:, :, 0] = k[:, :, 0] * ends
        diag[:, :, 0] += k[:, :, 0] * ends
        diag[:, :, -1] += k[:, :, -1] * ends
    return stencil(couplings, diag, symmetric=True), torch.from_numpy(rhs)


def random_rhs(matrix: StencilMatrix, seed: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(matrix.shape))
