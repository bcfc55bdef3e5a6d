"""Small models of the kinds people train, each with its loss, to be measured and compared with a dense Hessian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

Loss = Callable[[nn.Module], Tensor]
Task = tuple[nn.Module, Loss]


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def like(model: nn.Module, x: Tensor) -> Tensor:
    """The input in the precision of the model, so that a copy in float64 can stand beside it."""
    return x.to(next(model.parameters()).dtype)


def regression(model: nn.Module, x: Tensor) -> Task:
    return model, lambda m: (m(like(m, x)) - like(m, x).sin().mean(-1, keepdim=True)).square().mean()


class Attention(nn.Module):
    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.qkv = nn.Linear(4, 12)
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:-1], 2, 6).transpose(1, 2).chunk(3, dim=-1)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return self.out(mixed.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


def plain_attention() -> Task:
    return regression(Attention(is_causal=False), inputs(3, 5, 4))


def causal_attention() -> Task:
    return regression(Attention(is_causal=True), inputs(3, 5, 4))


class Heads(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.heads(x, x, x, need_weights=self.need_weights)[0])  # type: ignore[no-any-return]


def multihead_attention() -> Task:
    return regression(Heads(need_weights=False), inputs(3, 5, 4))


def multihead_attention_with_weights() -> Task:
    return regression(Heads(need_weights=True), inputs(3, 5, 4))


def multihead_attention_in_eval_mode() -> Task:
    return regression(Heads(need_weights=False).eval(), inputs(3, 5, 4))


def encoder_layer() -> Task:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    return regression(nn.Sequential(layer, nn.Linear(4, 1)), inputs(3, 4, 4))


def encoder_layer_in_eval_mode() -> Task:
    model, loss = encoder_layer()
    return model.eval(), loss


def layer_norm() -> Task:
    return regression(nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 1)), inputs(16, 3))


def batch_norm() -> Task:
    return regression(nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)), inputs(16, 3))


def batch_norm_in_eval_mode() -> Task:
    model, loss = batch_norm()
    return model.eval(), loss


def dropout() -> Task:
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
    return regression(model.double(), inputs(16, 3))


def embedding_with_unseen_rows() -> Task:
    tokens = torch.tensor([0, 1, 2, 1, 0])
    model = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 4))
    return model, lambda m: cross_entropy(m(tokens), torch.tensor([1, 2, 3, 2, 0]))


class Tied(nn.Module):
    """Tied embedding and head, a frozen scale, an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.linspace(0.5, 2, 4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(tokens) * self.frozen))  # type: ignore[no-any-return]


def tied_frozen_and_unused() -> Task:
    tokens = torch.arange(5)
    return Tied(), lambda m: cross_entropy(m(tokens), tokens.flip(0))


def double_precision() -> Task:
    return regression(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double(), inputs(16, 3))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.cell = kind(3, 4, num_layers=2, batch_first=True)
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0])  # type: ignore[no-any-return]


def lstm() -> Task:
    return regression(Recurrent(nn.LSTM), inputs(4, 5, 3))


def gru() -> Task:
    return regression(Recurrent(nn.GRU), inputs(4, 5, 3))


def weight_norm() -> Task:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(3, 6))
    return regression(nn.Sequential(first, nn.Tanh(), nn.Linear(6, 1)), inputs(16, 3))


def spectral_norm() -> Task:
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 6))
    return regression(nn.Sequential(first, nn.Tanh(), nn.Linear(6, 1)).double(), inputs(16, 3))


def orthogonal() -> Task:
    first = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley")
    return regression(nn.Sequential(first, nn.Tanh(), nn.Linear(4, 1)), inputs(16, 4))


def lazy_layers() -> Task:
    model = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(1))
    model(inputs(16, 3).float())
    return regression(model, inputs(16, 3))


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh())
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(checkpoint(self.body, x.requires_grad_(), use_reentrant=self.use_reentrant))  # type: ignore


def checkpointed() -> Task:
    return regression(Checkpointed(use_reentrant=False), inputs(16, 3))


def channels_last_cnn() -> Task:
    body = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Tanh()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    x = inputs(6, 2, 5, 5).to(memory_format=torch.channels_last)
    return model.to(memory_format=torch.channels_last), lambda m: (m(like(m, x)) - 1).square().mean()


def physics_informed() -> Task:
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

    def loss(m: nn.Module) -> Tensor:
        x = like(m, torch.linspace(0, 1, 9)[:, None]).requires_grad_()
        (slope,) = torch.autograd.grad(m(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return (bend + m(x) + x.sin()).square().mean()

    return model, loss


def functional_call() -> Task:
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    x = inputs(16, 3)
    return (
        model,
        lambda m: (torch.func.functional_call(m, dict(m.named_parameters()), (like(m, x),)) - 1).square().mean(),
    )


def per_sample_gradients_of_torch_func() -> Task:
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))

    def loss(m: nn.Module) -> Tensor:
        named = dict(m.named_parameters())

        def value(point: Tensor) -> Tensor:
            return torch.func.functional_call(m, named, (point[None],)).sum()  # type: ignore[no-any-return]

        slopes = torch.func.vmap(torch.func.grad(value))(like(m, inputs(8, 2)))
        return (slopes - 1).square().mean()

    return model, loss


def in_place_operations() -> Task:
    model = nn.Sequential(nn.Linear(3, 6), nn.SiLU(inplace=True), nn.Linear(6, 1))

    def loss(m: nn.Module) -> Tensor:
        out = m(like(m, inputs(16, 3))) * 2
        out.add_(0.5).mul_(0.5)
        return out.square_().mean()

    return model, loss


def frozen_by_eval_and_no_grad_part() -> Task:
    model = nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 1)})

    def loss(m: nn.Module) -> Tensor:
        assert isinstance(m, nn.ModuleDict)
        with torch.no_grad():
            hidden = m["body"](like(m, inputs(16, 3)))
        return (m["head"](hidden) - 1).square().mean()

    return model, loss


EXACT: list[Callable[[], Task]] = [
    plain_attention,
    causal_attention,
    multihead_attention,
    multihead_attention_with_weights,
    multihead_attention_in_eval_mode,
    encoder_layer,
    encoder_layer_in_eval_mode,
    layer_norm,
    batch_norm,
    batch_norm_in_eval_mode,
    dropout,
    embedding_with_unseen_rows,
    tied_frozen_and_unused,
    double_precision,
    lstm,
    gru,
    weight_norm,
    spectral_norm,
    orthogonal,
    lazy_layers,
    checkpointed,
    channels_last_cnn,
    physics_informed,
    functional_call,
    per_sample_gradients_of_torch_func,
    in_place_operations,
    frozen_by_eval_and_no_grad_part,
]
