from __future__ import annotations

import ast
import importlib
import itertools
from pathlib import Path

import pytest
import torch

from stabletune.trial import workloads
from stabletune.trial.training import Training
from stabletune.trial.workloads import char_lm, modular_division, pinn, quadratic, tanh_regression

CPU = torch.device("cpu")
FOLDER = Path(next(iter(workloads.__path__)))
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
SMALL = {
    "char_lm": {"width": 16, "depth": 1, "batch_size": 4},
    "digits_cnn": {"channels": 2, "batch_size": 16},
    "modular_division": {"modulus": 13, "width": 16, "batch_size": 16},
    "pinn": {"width": 8},
    "quadratic": {"jitter": 0.1, "curvatures": (1.0, 4.0)},
}


def build(name: str, seed: int = 0) -> Training:
    module = importlib.import_module(f"stabletune.trial.workloads.{name}")
    training = module.build(seed, CPU, **SMALL.get(name, {}))
    assert isinstance(training, Training)
    return training


def first_losses(training: Training, n_steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-3)
    losses: list[float] = []
    epochs = itertools.chain.from_iterable(itertools.repeat(training.batches))
    for batch in itertools.islice(epochs, n_steps):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_first_steps_have_finite_losses_above_the_floor(name: str) -> None:
    training = build(name)
    losses = first_losses(training)
    assert all(training.loss_floor < loss < 100 for loss in losses)


def test_the_same_seed_gives_the_same_losses(name: str) -> None:
    assert first_losses(build(name)) == first_losses(build(name))


def test_the_global_random_state_before_build_does_not_matter(name: str) -> None:
    torch.manual_seed(1)
    losses = first_losses(build(name))
    torch.manual_seed(2)
    assert first_losses(build(name)) == losses


def test_different_seeds_give_different_losses(name: str) -> None:
    assert first_losses(build(name, seed=0)) != first_losses(build(name, seed=1))


def test_every_parameter_receives_a_gradient(name: str) -> None:
    training = build(name)
    batch = next(iter(training.batches))
    training.loss_fn(training.model, batch).backward()
    assert all(p.grad is not None for p in training.model.parameters())


def test_the_loss_is_twice_differentiable_with_the_math_attention_kernel(name: str) -> None:
    training = build(name)
    params = list(training.model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = training.loss_fn(training.model, next(iter(training.batches)))
    grads = torch.autograd.grad(loss, params, create_graph=True)
    slope = torch.stack([grad.sum() for grad in grads]).sum()
    products = torch.autograd.grad(slope, params, allow_unused=True)
    assert all(product.isfinite().all() for product in products if product is not None)


def test_the_eval_value_is_a_positive_number_and_the_same_for_the_same_seed(name: str) -> None:
    values = [eval_value(build(name)) for _ in range(2)]
    assert values[0] == values[1]
    assert values[0] is None or values[0] > 0


def eval_value(training: Training) -> float | None:
    training.model.eval()
    if training.eval_fn is not None:
        return training.eval_fn(training.model)
    if training.eval_batches is None:
        return None
    losses = [training.loss_fn(training.model, batch).item() for batch in training.eval_batches]
    return sum(losses) / len(losses)


def test_the_docstring_opens_with_one_line_that_a_list_can_show(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    assert docstring is not None
    assert docstring.splitlines()[0].endswith(".")


def test_quadratic_has_the_curvatures_as_its_hessian() -> None:
    training = quadratic.build(0, CPU, curvatures=(3.0, -1.0), dtype="float64")
    (h,) = training.batches
    theta = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(training.model, {"theta": theta}, (h,))

    assert torch.equal(torch.autograd.functional.hessian(loss, theta), torch.diag(torch.tensor([3.0, -1.0]).double()))


def test_quadratic_without_jitter_starts_at_one_for_every_seed() -> None:
    starts = [next(quadratic.build(seed, CPU).model.parameters()).item() for seed in range(3)]
    assert starts == [1.0, 1.0, 1.0]


def test_quadratic_stays_above_its_floor_when_adam_reaches_zero_exactly() -> None:
    training = quadratic.build(0, CPU, start=0.0)
    assert all(loss > training.loss_floor for loss in first_losses(training))


def test_tanh_regression_computes_the_sum_over_its_units() -> None:
    model = tanh_regression.build(0, CPU, width=3, dtype="float64").model
    x = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    w, b, a, c = (p.detach() for p in model.parameters())
    expected = [sum(a[i] * torch.tanh(w[i] * point + b[i]) for i in range(3)) + c for point in x]
    assert torch.allclose(model(x), torch.stack(expected).squeeze(-1), rtol=1e-14)


def test_modular_division_labels_are_quotients_and_both_halves_are_disjoint() -> None:
    tokens, quotients = modular_division._pairs(13)
    assert torch.equal(quotients * tokens[:, 2] % 13, tokens[:, 0])
    assert len({tuple(row) for row in tokens.tolist()}) == 13 * 12


def test_modular_division_at_53_trains_on_1378_pairs() -> None:
    training = modular_division.build(0, CPU, width=16)
    assert len(training.batches.dataset) == 1378


def test_pinn_loss_and_error_vanish_at_the_known_solution() -> None:
    training = pinn.build(0, CPU, frequency=3)

    class Solution(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(3 * torch.pi * x)

    (points,) = training.batches
    assert training.loss_fn(Solution(), points).item() < 1e-9
    assert training.eval_fn is not None
    assert training.eval_fn(Solution()) < 1e-5


def test_char_lm_cannot_see_the_character_it_predicts() -> None:
    model = build("char_lm").model
    text = torch.randint(0, 20, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = text.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 20
    assert torch.allclose(model(text)[0, :8], model(changed)[0, :8], atol=1e-6)


def test_char_lm_ties_its_readout_to_its_embedding() -> None:
    model = char_lm.build(0, CPU).model
    assert model.readout.weight is model.characters.weight
