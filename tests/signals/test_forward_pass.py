"""What a forward pass shows: the largest inputs of its softmaxes, its narrowest format, its loss in float64."""

import math

import pytest
import torch
from torch.nn import functional

from stabletune.signals.forward_pass import loss_in_float64, watch_forward

LOGITS = torch.tensor([[1.0, -7.0, 2.0], [3.0, 0.5, -1.0]], requires_grad=True)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "closure",
    [
        lambda: functional.cross_entropy(LOGITS, LABELS),
        lambda: functional.log_softmax(LOGITS, dim=1).mean(),
        lambda: torch.softmax(LOGITS, dim=1).square().mean(),
        lambda: torch.logsumexp(LOGITS, dim=1).mean(),
        lambda: functional.binary_cross_entropy_with_logits(LOGITS, torch.ones(2, 3)),
        lambda: functional.logsigmoid(LOGITS).mean(),
    ],
    ids=["cross entropy", "log softmax", "softmax", "logsumexp", "binary cross entropy", "log sigmoid"],
)
def test_the_largest_logit_is_the_largest_absolute_input(closure):
    assert watch_forward(closure).largest_logits == [7.0]


def test_attention_comes_before_the_output_and_its_mask_is_left_out():
    q = torch.full((1, 1, 4, 2), 3.0, requires_grad=True)

    def closure():
        attended = functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        return functional.cross_entropy(attended.reshape(4, 2) * 2.0, torch.zeros(4, dtype=torch.long))

    attention, output = watch_forward(closure).largest_logits
    assert attention == pytest.approx(18.0 / math.sqrt(2.0))
    assert output == pytest.approx(6.0)


def test_a_squared_error_has_no_logits():
    assert watch_forward(lambda: LOGITS.square().mean()).largest_logits == []


def test_the_narrowest_format_is_that_of_the_autocast():
    layer = torch.nn.Linear(3, 2)

    def closure():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return layer(LOGITS).float().square().mean()

    assert watch_forward(closure).narrowest == torch.bfloat16
    assert watch_forward(lambda: layer(LOGITS).mean()).narrowest == torch.float32


def test_float64_undoes_an_overflow_of_float16_and_of_float32():
    assert loss_in_float64(lambda: (LOGITS.half() * 6e4).float().square().mean()) == pytest.approx(
        float((LOGITS.detach().double() * 6e4).square().mean())
    )
    loss = loss_in_float64(lambda: (LOGITS * 100).exp().log().mean() / 100)
    assert loss == pytest.approx(float(LOGITS.detach().double().mean()), rel=1e-6)


def test_float64_agrees_where_nothing_overflows():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 4, 3, padding=1), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.LayerNorm(12), torch.nn.Linear(12, 3),
    )  # fmt: skip
    x = torch.randn(5, 1, 3)

    def closure():
        return functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0, 1]))

    assert loss_in_float64(closure) == pytest.approx(float(closure().detach()), rel=1e-5)


def test_a_recurrent_layer_can_be_computed_in_float64():
    torch.manual_seed(0)
    layer, x = torch.nn.GRU(2, 3, batch_first=True), torch.randn(2, 4, 2)
    assert loss_in_float64(lambda: layer(x)[0].square().mean()) == pytest.approx(
        float(layer(x)[0].square().mean().detach()), rel=1e-5
    )


def test_an_operation_that_float64_cannot_do_gives_none():
    def closure():
        raise RuntimeError("no kernel for Double")

    assert loss_in_float64(closure) is None
