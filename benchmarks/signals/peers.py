"""Other tools for the same number, each on W^½ H W^½ at one point; the reason where one is not installed."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.signals.reference import Point

Peer = Callable[[Point], float]


class Reparametrized(torch.nn.Module):
    """The model as a function of u with θ = θ₀ + W^½ u, so that its Hessian is W^½ H W^½."""

    def __init__(self, at: Point) -> None:
        super().__init__()
        # in a list, so that its parameters are not found beside u
        self._inner = [at.model]
        self._names = [name for name, _ in at.model.named_parameters()]
        self._origin = [p.detach() for p in at.model.parameters()]
        self._roots = [root.to(p) for root, p in zip(at.roots, self._origin, strict=True)]
        self.u = torch.nn.ParameterList([torch.zeros_like(p) for p in self._origin])

    def forward(self, inputs: Tensor) -> Tensor:
        moved = [p + root * u for p, root, u in zip(self._origin, self._roots, self.u, strict=True)]
        found: Tensor = torch.func.functional_call(
            self._inner[0], dict(zip(self._names, moved, strict=True)), (inputs,)
        )
        return found


def _flat_roots(at: Point) -> Tensor:
    return torch.cat([root.reshape(-1) for root in at.roots]).float()


def pyhessian(at: Point) -> float:
    """Power iteration by PyHessian's defaults: at most 100 products, until two values agree to 1e-3."""
    from pyhessian import hessian

    model = Reparametrized(at)
    values, _ = hessian(model, at.criterion, data=at.batch, cuda=False).eigenvalues()
    # its backward(create_graph=True) leaves a cycle that would hold the graph
    for u in model.u:
        u.grad = None
    return float(values[0])


def curvlinops(at: Point) -> float:
    """The Hessian operator of curvlinops between two diagonals, in scipy's eigsh at tol 1e-2."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    params = list(at.model.parameters())
    hessian = HessianLinearOperator(at.model, at.criterion, params, [at.batch], check_deterministic=False)
    matrix, root = hessian.to_scipy(dtype=np.float32), _flat_roots(at).numpy()

    def product(x: np.ndarray) -> np.ndarray:
        return root * (matrix @ (root * x.reshape(-1).astype(np.float32)))

    operator = LinearOperator(matrix.shape, matvec=product, dtype=np.float32)
    return float(eigsh(operator, k=1, which="LA", tol=1e-2, return_eigenvectors=False)[0])


def eigenthings(at: Point, max_iter: int | None = 15) -> float:
    """Lanczos of hessian-eigenthings over its Hessian operator between two diagonals."""
    from hessian_eigenthings import HessianOperator, LambdaOperator, lanczos, supervised_loss

    hessian, root = HessianOperator(at.model, [at.batch], supervised_loss(at.criterion)), _flat_roots(at)
    operator = LambdaOperator(lambda x: root * hessian.matvec(root * x), size=len(root))
    return float(lanczos(operator, k=1, max_iter=max_iter, which="LA", seed=0).eigenvalues[0])


def eigenthings_default(at: Point) -> float:
    """The same with as many products as it takes for k = 1 by default, two."""
    return eigenthings(at, None)


_KNOWN: tuple[tuple[str, str, str, Peer], ...] = (
    ("PyHessian (defaults)", "pyhessian", "PyHessian", pyhessian),
    ("curvlinops + eigsh, tol 1e-2", "curvlinops", "curvlinops-for-pytorch", curvlinops),
    ("hessian-eigenthings, Lanczos 15", "hessian_eigenthings", "hessian-eigenthings", eigenthings),
    ("hessian-eigenthings, k=1 defaults", "hessian_eigenthings", "hessian-eigenthings", eigenthings_default),
)


def installed() -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that can be imported, by name with version, and the reason for each of the others."""
    found, missing = {}, {}
    for name, module, package, peer in _KNOWN:
        try:
            importlib.import_module(module)
            found[f"{name} [{importlib.metadata.version(package)}]"] = peer
        except Exception as error:  # a broken installation may raise anything; the table must say what
            missing[name] = f"{type(error).__name__}: {error}"
    return found, missing


def run_peer(peer: Peer, at: Point) -> float | str:
    """Its value, or the error's first line. Attention gets the kernel that has a second derivative, as ours does."""
    modes = [(module, module.training) for module in at.model.modules()]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return peer(at)
    except Exception as error:  # what a peer does not support belongs into the table
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        for module, mode in modes:
            module.training = mode
