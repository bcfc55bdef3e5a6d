"""Curvature along the gradient: passes 1 when the gradient has turned to the unstable direction."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from stabletune.signals.curvature.preconditioner import PreconditionedHessian


@dataclasses.dataclass(frozen=True)
class GradientCurvature:
    """Both forms of the ratio, and A g_s, which the eigenvalue solver can start from at no further cost."""

    ratio: float
    paper_ratio: float
    scaled_image: Tensor


def gradient_curvature(operator: PreconditionedHessian) -> GradientCurvature | None:
    """Measure the curvature along the gradient against the edge, from one Hessian product for both forms.

    symmetric: g_sᵀ A g_s / ‖g_s‖²,  g_s = W^½ g,  A = W^½ H W^½: a Rayleigh quotient, so at most S
    published: gᵀ W H g / ‖g‖² = gᵀ (H W g) / ‖g‖²: not one, since W H is not symmetric; it may exceed S

    Args:
        operator: A with the gradient at the same point.

    Returns:
        Both, with the edge at 1; None where the gradient vanishes or is not finite.

    Cost: one Hessian product.
    Source: arXiv:2506.04805 (the published form, η/2 · gᵀĤg/‖g‖²).
    """
    scaled = operator.scaled_gradient
    scaled_norm, norm = float(scaled.norm()), float(operator.gradient.norm())
    if not (0 < scaled_norm < float("inf") and 0 < norm < float("inf")):
        return None
    image = operator.half_product(scaled / scaled_norm)
    scaled_image = operator.unscaled(image)
    return GradientCurvature(
        ratio=float(torch.dot(scaled / scaled_norm, scaled_image)),
        paper_ratio=float(torch.dot(operator.gradient / norm, image)) * (scaled_norm / norm),
        scaled_image=scaled_image * scaled_norm,
    )


def alignment(scaled_gradient: Tensor, direction: Tensor) -> float | None:
    """Return |cos(g_s, u)| of the scaled gradient with the top direction u; None where either vanishes.

    Tends to 1 within about 8 steps of S > 1: the unstable component has taken over the gradient.
    """
    norm = float(scaled_gradient.norm()) * float(direction.norm())
    return min(1.0, abs(float(torch.dot(scaled_gradient, direction))) / norm) if 0 < norm < float("inf") else None
