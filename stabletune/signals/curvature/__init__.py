"""Curvature of the loss in the optimizer's own metric, by exact Hessian-vector products."""
