"""S passes 1 exactly where the optimizer itself diverges on a quadratic once its second moment is frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stabletune.optim import InstrumentedAdamW
from stabletune.optim.second_moment_reset import AGE, YOUNG
from stabletune.signals.sharpness_ratio import SharpnessTracker
from tests.reference.frozen_iteration import FrozenIteration
from tests.signals.problems import operator_of

TOLERANCE = 1e-4
MOMENTA = (0.0, 0.9, 0.98)
AVERAGING = [
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"weight_decay": 0.0}),
    (torch.optim.AdamW, {"weight_decay": 0.0, "amsgrad": True}),
    (torch.optim.NAdam, {}),
    (torch.optim.NAdam, {"momentum_decay": 0.5}),
    (torch.optim.RAdam, {"eps": 0.05}),
]
CASES = [
    *((kind, settings | {"betas": (b, 0.99)}) for kind, settings in AVERAGING for b in MOMENTA),
    *((torch.optim.RMSprop, {"momentum": b, "centered": c}) for b in MOMENTA for c in (False, True)),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adagrad, {"lr_decay": 0.1, "eps": 0.5}),
]
MITIGATED = [
    {"beta2_exponent": 0.8},
    {"second_moment_reset": 5.0},
    {"second_moment_reset": 5.0, "beta2_exponent": 0.5, "amsgrad": True},
    {"second_moment_clip": 5000.0},
]
COUPLED = [
    (kind, settings | {"weight_decay": 0.5}) for kind, settings in CASES if not issubclass(kind, torch.optim.AdamW)
]
DECOUPLED = [
    (kind, settings if issubclass(kind, torch.optim.AdamW) else settings | {"decoupled_weight_decay": True})
    for kind, settings in CASES
    if not issubclass(kind, (torch.optim.RMSprop, torch.optim.Adagrad))
]


def hessian() -> Tensor:
    root = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(3, dtype=torch.float64)


def ratio(iteration: FrozenIteration, factor: float) -> float:
    optimizer = iteration.at_rest(factor)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    with torch.no_grad():
        for p in params:
            p.fill_(1.0)
    found = SharpnessTracker().measure(operator_of(optimizer, lambda: iteration.loss(params)), None)
    assert found is not None
    return found.ratio


def assert_the_ratio_is_one_at_the_edge(iteration: FrozenIteration) -> None:
    edge = iteration.edge()
    assert iteration.growth(edge * (1 - TOLERANCE)) < 1 < iteration.growth(edge * (1 + TOLERANCE))
    assert ratio(iteration, edge * (1 - TOLERANCE)) < 1 < ratio(iteration, edge * (1 + TOLERANCE))


def named(value: Any) -> str:
    return getattr(value, "__name__", None) or ",".join(f"{name}={setting}" for name, setting in value.items())


@pytest.mark.parametrize("t", [1, 3, 30, 30_000], ids=str)
@pytest.mark.parametrize(("kind", "settings"), [*CASES, *COUPLED], ids=named)
def test_the_ratio_is_one_where_the_optimizer_diverges(kind: Any, settings: dict[str, Any], t: int) -> None:
    def make(params: list[torch.nn.Parameter], factor: float) -> Any:
        return kind(params, lr=factor, **settings)

    assert_the_ratio_is_one_at_the_edge(FrozenIteration(make, hessian(), (2, 1), t=t))


@pytest.mark.parametrize("t", [1, 3, 30, 30_000], ids=str)
@pytest.mark.parametrize(("kind", "settings"), DECOUPLED, ids=named)
def test_the_ratio_is_one_where_the_optimizer_diverges_with_decoupled_decay(
    kind: Any, settings: dict[str, Any], t: int
) -> None:
    def make(params: list[torch.nn.Parameter], factor: float, decay: float = 0.0) -> Any:
        return kind(params, lr=factor, **(settings | {"weight_decay": decay}))

    decay = 0.5 / FrozenIteration(make, hessian(), (2, 1), t=t).edge()  # moves the edge by a fifth
    decayed = FrozenIteration(lambda params, factor: make(params, factor, decay), hessian(), (2, 1), t=t)
    assert_the_ratio_is_one_at_the_edge(decayed)


@pytest.mark.parametrize("t", [2, 3, 30, 30_000], ids=str)
@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("settings", MITIGATED, ids=named)
def test_the_ratio_is_one_where_adamw_diverges_under_each_mitigation(
    settings: dict[str, Any], momentum: float, t: int
) -> None:
    """From t = 2 on: at the first step of a schedule v̂ is the square of the gradient alone, and nothing is frozen."""

    def make(params: list[torch.nn.Parameter], factor: float) -> Any:
        return InstrumentedAdamW(params, factor, (momentum, 0.99), weight_decay=0.01 / factor, **settings)

    iteration = FrozenIteration(make, hessian(), (2, 1), t=t)
    assert_the_ratio_is_one_at_the_edge(iteration)
    if "second_moment_reset" in settings and t > 2:
        assert {state[AGE] for state in iteration.at_rest(1.0).state.values()} == {min(t - 1, YOUNG) + 1}


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (torch.optim.AdamW, {"betas": (0.0, 0.9), "weight_decay": 0.1}, {"lr": 0.3, "betas": (0.95, 0.999)}),
        (InstrumentedAdamW, {"second_moment_reset": 9.0}, {"lr": 3.0, "betas": (0.95, 0.9), "beta2_exponent": 0.8}),
        (torch.optim.NAdam, {"betas": (0.5, 0.9), "weight_decay": 0.3}, {"lr": 3.0, "betas": (0.95, 0.999)}),
        (torch.optim.RAdam, {"betas": (0.5, 0.9), "eps": 0.3}, {"lr": 3.0, "betas": (0.95, 0.999)}),
        (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}, {"lr": 3.0, "weight_decay": 0.3, "alpha": 0.5}),
        (torch.optim.Adagrad, {"lr_decay": 0.5}, {"lr": 3.0, "weight_decay": 0.3, "eps": 0.1}),
    ],
    ids=named,
)
def test_the_ratio_is_one_where_groups_with_settings_of_their_own_diverge(kind: Any, one: Any, other: Any) -> None:
    def make(params: list[torch.nn.Parameter], factor: float) -> Any:
        groups = [{"params": p, "lr": 1.0, **changes} for p, changes in zip(params, (one, other), strict=True)]
        for group in groups:
            group["lr"] *= factor
        return kind(groups)

    assert_the_ratio_is_one_at_the_edge(FrozenIteration(make, hessian(), (2, 1), t=40))
