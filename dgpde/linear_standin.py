from dataclasses import dataclass
import numpy as np, scipy.sparse as sp, scipy.sparse.linalg as sl, torch

@dataclass
class StencilMatrix:
    coefficients: torch.Tensor
    symmetric: bool = False

@dataclass
class LinearResult:
    x: torch.Tensor
    iterations: int
    residual: float
    converged: bool

class LinearSolver:
    def __init__(self, tolerance=1e-8, max_iterations=200, backend=None):
        self.tolerance = tolerance
    def setup(self, matrix, reuse=False):
        c = matrix.coefficients.numpy().reshape(7, -1)
        nz, ny, nx = matrix.coefficients.shape[1:]
        n = nz*ny*nx
        m = sp.diags(c[0]).tolil()
        m = sp.diags([c[0], c[1][ny*nx:], c[2][:n-ny*nx], c[3][nx:], c[4][:n-nx], c[5][1:], c[6][:n-1]], [0, -ny*nx, ny*nx, -nx, nx, -1, 1], shape=(n,n)) if False else self._sum(c, n, ny*nx, nx)
        self.m = m.tocsc(); self.lu = sl.splu(self.m)
    def _sum(self, c, n, a, b):
        m = sp.diags(c[0], 0, shape=(n, n))
        for v, o in ((c[1], -a), (c[2], a), (c[3], -b), (c[4], b), (c[5], -1), (c[6], 1)):
            if abs(o) < n:
                m = m + sp.diags(v[-o:] if o < 0 else v[: n - o], o, shape=(n, n))
        return m
    def solve(self, rhs, x0=None, tolerance=None, transposed=False):
        b = rhs.reshape(-1).numpy()
        x = self.lu.solve(b, "T" if transposed else "N")
        m = self.m.T if transposed else self.m
        r = np.linalg.norm(b - m @ x)/(np.linalg.norm(b) or 1.0)
        return LinearResult(torch.from_numpy(x).reshape(rhs.shape), 1, r, bool(r < 1e-6))
