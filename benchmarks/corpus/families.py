"""The workload families of the corpus, and the settings that are drawn for each: seeds in, trial specs out.

``is_for_tuning`` splits them: what is tuned on some is to be judged on the others, which share no workload with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.workloads import CROSS_ENTROPY_FLOOR
from stabletune.hyperparameters import default_settings
from stabletune.records import TrialSpec, WorkloadReference
from stabletune.trial.workloads.quadratic import LOSS_FLOOR as QUADRATIC_FLOOR

OVERHEAD = 0.15
_HERE = Path(__file__).with_name("workloads.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of workload: what is drawn uniformly from ``choices``, lr log-uniformly from ``lr``."""

    name: str
    function: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    lr: tuple[float, float]
    steps: int
    n_runs: int
    is_for_tuning: bool
    loss_floor: float = 0.0


PRECISIONS = ("float32", "float32", "float32", "bfloat16")


def _built_in(name: str, **given: Any) -> dict[str, Any]:
    return {"function": "build_built_in", "arguments": {"name": name, **given}}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="quadratic",
        **_built_in("quadratic", jitter=0.3),
        choices={"curvatures": ((1.0,), (1.0, 0.1, 0.01), (10.0, 1.0, 0.3, 0.1))},
        lr=(1e-3, 3e-1),
        steps=2000,
        n_runs=40,
        is_for_tuning=True,
        loss_floor=QUADRATIC_FLOOR,
    ),
    Family(
        name="tanh_regression",
        **_built_in("tanh_regression"),
        choices={"width": (20, 50, 100)},
        lr=(1e-3, 6e-2),
        steps=2500,
        n_runs=70,
        is_for_tuning=True,
    ),
    Family(
        name="autoencoder",
        **_built_in("digits_autoencoder"),
        lr=(1e-3, 6e-2),
        steps=2000,
        n_runs=50,
        is_for_tuning=True,
    ),
    Family(
        name="cnn_cross_entropy",
        **_built_in("digits_cnn", channels=8, loss_floor=CROSS_ENTROPY_FLOOR),
        choices={"batch_size": (32, 128, 512), "precision": PRECISIONS},
        lr=(1e-3, 6e-2),
        steps=1500,
        n_runs=40,
        is_for_tuning=True,
        loss_floor=CROSS_ENTROPY_FLOOR,
    ),
    Family(
        name="table_classification",
        function="build_table",
        choices={
            "table": ("breast_cancer", "wine"),
            "width": (16, 48),
            "batch_size": (None, None, 32),
            "precision": PRECISIONS,
        },
        lr=(1e-3, 6e-2),
        steps=2000,
        n_runs=60,
        is_for_tuning=True,
        loss_floor=CROSS_ENTROPY_FLOOR,
    ),
    Family(
        name="table_regression",
        **_built_in("diabetes_mlp"),
        choices={"width": (32, 64), "depth": (1, 2, 3)},
        lr=(5e-4, 4e-2),
        steps=2000,
        n_runs=80,
        is_for_tuning=False,
    ),
    Family(
        name="physics_informed",
        **_built_in("pinn"),
        choices={"width": (16, 32), "frequency": (1, 2)},
        lr=(5e-4, 4e-2),
        steps=2000,
        n_runs=50,
        is_for_tuning=False,
    ),
    Family(
        name="cnn_squared_error",
        function="build_cnn_mse",
        choices={"channels": (8, 16), "batch_size": (None, None, 50), "precision": PRECISIONS},
        lr=(1e-3, 6e-2),
        steps=2000,
        n_runs=70,
        is_for_tuning=False,
    ),
    Family(
        name="recurrent",
        function="build_recurrent",
        choices={"kind": ("gru", "tanh"), "width": (16, 32), "batch_size": (None, None, 12)},
        lr=(1e-3, 6e-2),
        steps=1500,
        n_runs=70,
        is_for_tuning=False,
    ),
    Family(
        name="modular_arithmetic",
        **_built_in("modular_division", modulus=23, width=32, loss_floor=CROSS_ENTROPY_FLOOR),
        choices={"batch_size": (64, 253)},
        lr=(5e-4, 3e-2),
        steps=1500,
        n_runs=40,
        is_for_tuning=False,
        loss_floor=CROSS_ENTROPY_FLOOR,
    ),
    Family(
        name="character_model",
        **_built_in("char_lm", width=32, depth=1, loss_floor=CROSS_ENTROPY_FLOOR),
        choices={"batch_size": (8, 16), "precision": PRECISIONS},
        lr=(1e-3, 6e-2),
        steps=1200,
        n_runs=40,
        is_for_tuning=False,
        loss_floor=CROSS_ENTROPY_FLOOR,
    ),
)


def draw_specs(family: Family, seed: int) -> list[TrialSpec]:
    """Draw the runs of one family; the same seed gives the same runs, whatever else is drawn.

    1 - beta2 is log-uniform in 5e-4 to 0.1; beta1, eps, schedule and warm-up mostly have their usual values, so that
    what is unusual occurs without ruling the corpus.
    """
    generator = np.random.default_rng([seed, *family.name.encode()])
    return [_draw(family, number, generator) for number in range(family.n_runs)]


def _draw(family: Family, number: int, generator: np.random.Generator) -> TrialSpec:
    def pick(values: Sequence[Any]) -> Any:
        return values[int(generator.integers(len(values)))]

    low, high = np.log(family.lr)
    params = default_settings() | {
        "lr": float(np.exp(generator.uniform(low, high))),
        "beta1": pick((0.9, 0.9, 0.9, 0.9, 0.8, 0.95)),
        "beta2": 1.0 - float(np.exp(generator.uniform(np.log(5e-4), np.log(0.1)))),
        "eps": pick((1e-8, 1e-8, 1e-8, 1e-6, 1e-4)),
        "weight_decay": pick((0.0, 0.01)),
        "warmup_ratio": pick((0.0, 0.0, 0.05)),
    }
    drawn = {name: pick(values) for name, values in family.choices.items()}
    return TrialSpec(
        number=number,
        purpose="search",
        seed=int(generator.integers(2**31)),
        steps=family.steps,
        full_steps=family.steps,
        params=params,
        workload=WorkloadReference(family.function, path=str(_HERE)),
        workload_args=dict(family.arguments) | drawn,
        schedule=pick(("constant", "constant", "constant", "cosine", "wsd")),
        metric="final_loss",
        source="train",
        target=None,
        overhead=OVERHEAD,
        every=None,
        stops_on_spike=False,
        predicts=False,
    )
