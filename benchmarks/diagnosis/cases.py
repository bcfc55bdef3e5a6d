"""Which fault goes into which network: every case is one run with one injected cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks.diagnosis.later_tasks import LAST, UNSEEN
from benchmarks.diagnosis.tasks import HELD_OUT, TUNING
from stabletune.hyperparameters import default_settings
from stabletune.records import UNEXPLAINED, TrialSpec, WorkloadReference

AT = 200
NEVER = 10**9
STALE = "stale preconditioner"
FOLLOWING_BETA2 = 0.9
RATES = {"modular_division": 2e-3, "breast_cancer": 2e-3}
OF_TOKENS = ("char_lm", "modular_division")
OF_LOGITS = (
    "digits_cnn",
    "char_lm",
    "modular_division",
    "gru",
    "breast_cancer",
    "wine",
    "patch_transformer",
    "conv_waves",
)
NATURAL = {  # settings at which the network spikes by itself, at a beta2 that forgets slowly
    "tanh_regression": ((0.02, 0.999, 900), (0.03, 0.999, 500), (0.03, 0.99, 500)),
    "full:teacher_mlp": ((0.01, 0.999, 450), (0.03, 0.999, 400)),
    "diabetes": ((0.01, 0.999, 600), (0.02, 0.999, 600), (0.01, 0.99, 600)),
    "autoencoder": ((0.03, 0.99, 300), (0.05, 0.995, 400)),
    "full:lstm_sine": ((0.02, 0.999, 500), (0.03, 0.99, 500)),
    "wine": ((0.03, 0.999, 500),),
    "sine_network": ((0.01, 0.999, 600), (0.02, 0.99, 500)),
    "full:attention_sum": ((0.01, 0.999, 500), (0.02, 0.99, 500)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: the network, the fault with its variant, where it begins and how strong it is."""

    task: str
    cause: str
    strength: float = 1.0
    at: int = AT
    steps: int = AT + 100
    lr: float = 3e-3
    beta2: float = 0.999
    seed: int = 0
    function: str = "train"

    @property
    def expected(self) -> str:
        """The name of the cause."""
        return self.cause.partition(":")[0]

    @property
    def twin(self) -> Case | None:
        """The same run with a v-hat that follows its gradients, where the cause is to be that it does not."""
        return dataclasses.replace(self, beta2=FOLLOWING_BETA2) if self.cause == STALE else None

    @property
    def group(self) -> str:
        """Whether thresholds were chosen on this network, rules changed after it, or neither."""
        name = self.task.removeprefix("full:")
        groups = {"last": LAST, "unseen": UNSEEN, "held out": HELD_OUT}
        return next((group for group, tasks in groups.items() if name in tasks), "tuning")

    def spec(self, **signals: Any) -> TrialSpec:
        """The trial."""
        arguments = {"task": self.task, "cause": self.cause, "strength": self.strength}
        return TrialSpec(
            number=0,
            purpose="search",
            seed=self.seed,
            steps=self.steps,
            full_steps=self.steps,
            params={**default_settings(), "lr": self.lr, "beta2": self.beta2},
            workload=WorkloadReference(self.function, module="benchmarks.diagnosis.workload"),
            workload_args=arguments if self.function == "build" else {**arguments, "at": self.at},
            schedule="constant",
            metric="final_loss",
            source="train",
            target=None,
            overhead=signals.get("overhead"),
            every=signals.get("every"),
            stops_on_spike=False,
            predicts=False,
        )


def all_cases(seeds: int = 1) -> Iterator[Case]:
    """Every case, with seeds that draw start and data order."""
    for seed in range(seeds):
        for task in (*TUNING, *HELD_OUT, *UNSEEN, *LAST):
            for case in _faults(task):
                yield dataclasses.replace(
                    case, task=task, lr=RATES.get(task, case.lr), seed=seed, beta2=(0.999, 0.99)[seed % 2]
                )
        for task, settings in NATURAL.items():
            for lr, beta2, steps in settings:
                for start in (2 * seed, 2 * seed + 1):
                    yield Case(task, STALE, at=NEVER, steps=steps, lr=lr, beta2=beta2, seed=start)


def _faults(task: str) -> Iterator[Case]:
    for variant, strength in (("", 10.0), ("", 40.0), (":ramp", 20.0)):
        yield Case(task, "schedule jump" + variant, strength)
    yield Case(task, "bad batch:targets", 10.0)
    if task not in OF_TOKENS:
        yield Case(task, "bad batch:inputs", 10.0)
    for variant in ("float16", "exp", "gradient"):
        yield Case(task, f"precision or overflow:{variant}", 1.2)
    if task in ("teacher_mlp", "diabetes", "autoencoder", "lstm_sine", "attention_sum"):
        yield Case(task, "precision or overflow", 3e4, at=0, function="build")
    if task in ("digits_cnn", "char_lm", "gru", "modular_division", "teacher_mlp", "patch_transformer", "conv_waves"):
        yield Case(task, "bad batch", at=0, function="build")
    if task in OF_LOGITS:
        yield Case(task, "logit growth", 1.04, at=120, steps=270)
        yield Case(task, "logit growth", 1.08, at=120, steps=220)
    yield Case(task, "sharpening landscape:direction", 1.1, steps=AT + 200)
    yield Case(task, "sharpening landscape:all", 1.06, steps=AT + 300)
    for variant, strength in (("", 1.0), (":layer", 2.0), (":glitch", 5.0)):
        yield Case(task, UNEXPLAINED + variant, strength)
