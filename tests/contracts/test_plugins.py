"""The contract of each extension point, for every file found there: a new file is tested without a new test."""

import importlib
import inspect

import optuna
import pytest
import torch

from stabletune import Training
from stabletune.config import Resources, load_config
from stabletune.config.plugins import plugin_files, plugin_summaries
from stabletune.errors import ConfigError
from stabletune.hyperparameters import HYPERPARAMETERS
from stabletune.judgement.history import History
from stabletune.judgement.onset import Onset
from stabletune.judgement.spikes import SpikeDetector
from stabletune.results.exporters import export
from stabletune.results.recommendation import Recommendation
from stabletune.space import list_search_spaces, load_search_space
from stabletune.study.executors import load_executor
from stabletune.study.samplers import load_sampler
from stabletune.trial.verdict import Verdict
from tests.trial.specs import quadratic_spec

POINTS = {
    "workload": ("trial", "workloads"),
    "sampler": ("study", "samplers"),
    "exporter": ("results", "exporters"),
    "stopper": ("trial", "stoppers"),
    "cause": ("judgement", "causes"),
}
SETTINGS = {
    "optimizer": "AdamW",
    "lr": 3e-3,
    "beta1": 0.9,
    "beta2": 0.96,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "update_clip": None,
    "second_moment_clip": None,
    "second_moment_reset": None,
    "beta2_exponent": None,
    "amsgrad": False,
    "schedule": {"name": "cosine", "warmup_ratio": 0.1},
}


def names(point):
    return sorted(plugin_files(*POINTS[point]))


def module_of(point, name):
    return importlib.import_module(".".join(("stabletune", *POINTS[point], name)))


@pytest.mark.parametrize(("point", "name"), [(point, name) for point in POINTS for name in names(point)])
def test_every_file_says_in_its_first_line_what_it_is(point, name):
    line = plugin_summaries(*POINTS[point])[name]
    assert line.endswith((".", ";", ",")) or len(line) > 20, line


@pytest.mark.parametrize("name", names("workload"))
def test_a_workload_builds_a_training_whose_loss_has_a_gradient(name):
    build = module_of("workload", name).build
    assert list(inspect.signature(build).parameters)[:2] == ["seed", "device"]
    torch.manual_seed(0)
    training = build(0, torch.device("cpu"))
    assert isinstance(training, Training)
    loss = training.loss_fn(training.model, next(iter(training.batches)))
    assert loss.numel() == 1 and float(loss.detach()) > training.loss_floor
    loss.backward()
    assert any(parameter.grad is not None for parameter in training.model.parameters())


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", names("sampler"))
def test_a_sampler_proposes_the_same_for_the_same_seed(name):
    def values(seed):
        study = optuna.create_study(sampler=load_sampler(name, seed))
        for _ in range(3):
            trial = study.ask()
            study.tell(trial, (trial.suggest_float("lr", 1e-4, 1e-1, log=True) - 1e-2) ** 2)
        return [trial.params["lr"] for trial in study.trials]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = values(5)
    assert found == values(5)
    assert all(1e-4 <= value <= 1e-1 for value in found)


@pytest.mark.parametrize("name", names("exporter"))
def test_an_exporter_says_the_settings_in_text_that_ends_in_a_line(name):
    text = export(Recommendation(SETTINGS, {"confirmed_steps": 100, "confirm_seeds": 2, "spiky_runs": 0}), name)
    assert text.endswith("\n") and text.strip()
    assert "0.003" in text


def history_of(losses):
    history = History(quadratic_spec(steps=len(losses)), SpikeDetector(0.0))
    for loss in losses:
        history.add(loss)
    return history


@pytest.mark.parametrize("name", names("stopper"))
def test_a_stopper_keeps_no_state_and_lets_a_calm_trial_go_on(name):
    stopper = module_of("stopper", name)
    assert isinstance(stopper.RANK, int)
    calm = [1.0 + 0.01 * (step % 2) for step in range(60)]
    for losses in (calm, [*calm, 50.0, *calm], [*calm, float("nan")]):
        first, again = (stopper.verdict(history_of(losses)) for _ in range(2))
        assert first == again
        assert first is None or (isinstance(first, Verdict) and first.reason.endswith("."))
    assert stopper.verdict(history_of(calm)) is None
    assert stopper.verdict(history_of([])) is None


def test_stoppers_are_asked_in_an_order_without_ties():
    ranks = [module_of("stopper", name).RANK for name in names("stopper")]
    assert len(set(ranks)) == len(ranks)


EXECUTORS = [
    pytest.param(name, marks=[pytest.mark.ray, pytest.mark.slow] if name.startswith("ray") else [])
    for name, path in plugin_files("study", "executors").items()
    if "\ndef build(" in path.read_text()
]


class Runs:
    """A source of two short runs."""

    def __init__(self):
        self.waiting = [quadratic_spec(number=number, steps=30) for number in range(2)]
        self.events = []

    @property
    def is_over(self):
        return len(self.events) == 2

    def next_spec(self):
        return self.waiting.pop(0) if self.waiting else None

    def on_progress(self, progress):
        return True

    def on_result(self, result):
        self.events.append((result.spec.number, result.status, result.steps))

    def on_abandoned(self, spec, steps):
        self.events.append((spec.number, "abandoned", steps))


@pytest.mark.parametrize("name", EXECUTORS)
def test_an_executor_runs_all_that_the_source_hands_out(name):
    source = Runs()
    load_executor(name, Resources()).run(source)
    assert sorted(source.events) == [(0, "completed", 30), (1, "completed", 30)]


def test_an_executor_that_is_not_there_is_a_mistake():
    with pytest.raises(ConfigError, match="executor: must be"):
        load_executor("nowhere", Resources())


@pytest.mark.parametrize("name", sorted(list_search_spaces()))
def test_a_search_space_can_be_named_in_a_config_and_holds_ranges(name, tmp_path):
    (tmp_path / "config.yaml").write_text(f"name: contract\nworkload: quadratic\nsearch_space: {name}\n")
    ranges = load_config(tmp_path / "config.yaml").search_space.ranges
    assert "lr" in ranges and set(ranges) <= set(HYPERPARAMETERS)


def test_the_full_search_space_leaves_out_nothing_but_the_schedule():
    assert load_search_space("adam_full").ranges.keys() == HYPERPARAMETERS.keys() - {"warmup_ratio"}


@pytest.mark.parametrize("name", names("cause"))
def test_a_cause_keeps_no_state_and_finds_nothing_in_a_spike_without_any_sign(name):
    cause = module_of("cause", name)
    assert isinstance(cause.RANK, int) and cause.NAME.replace(" ", "_") == name
    calm = [1.0 + 0.01 * (step % 2) for step in range(150)]
    onset = Onset(history_of([*calm, 50.0, *calm]), 151)
    assert cause.find(onset) is None and cause.find(onset) is None


def test_causes_are_asked_in_an_order_without_ties():
    ranks = [module_of("cause", name).RANK for name in names("cause")]
    assert len(set(ranks)) == len(ranks)
