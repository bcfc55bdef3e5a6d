import pytest
import torch

from stabletune.hyperparameters import MITIGATIONS
from stabletune.judgement.rules import is_growing
from stabletune.records import WorkloadReference
from stabletune.trial.trial import Trial
from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec

SETTINGS = {
    "max_grad_norm": 2.0,
    "update_clip": 1.0,
    "second_moment_clip": 5000.0,
    "second_moment_reset": 5.0,
    "beta2_exponent": 0.8,
}


def test_the_optimizer_of_a_trial_has_every_mitigation_of_its_params():
    trial = Trial(quadratic_spec(params=SETTINGS | {"amsgrad": True}), lambda progress: True)
    (group,) = trial.build_optimizer([torch.nn.Parameter(torch.ones(2))]).param_groups
    assert {name: group[name] for name in MITIGATIONS} == SETTINGS and group["amsgrad"] is True


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_trial_with_a_mitigation_runs_and_is_measured(name):
    result = run_trial(quadratic_spec(params={name: SETTINGS[name]}, every=5, overhead=None))
    assert result.status == "completed"
    assert all(m.sharpness_ratio is not None for m in result.measurements)


@pytest.mark.parametrize(("workload", "lr", "beta2"), [("pinn", 5e-3, 0.999), ("diabetes_mlp", 5e-3, 0.999)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_trial_that_would_spike_is_stopped_while_its_oscillation_still_grows(workload, lr, beta2, seed):
    given = {"workload": WorkloadReference(workload), "steps": 500, "full_steps": 500, "seed": seed}
    stopped, watched = (
        run_trial(quadratic_spec(**given, params={"lr": lr, "beta2": beta2}, predicts=predicts))
        for predicts in (True, False)
    )
    assert stopped.status == "stopped" and "an oscillation grows" in stopped.reason
    assert not stopped.is_spiky
    assert watched.episodes and watched.episodes[0].start > stopped.steps


def test_where_the_gradient_grows_the_oscillation_is_measured_at_once():
    result = run_trial(
        quadratic_spec(
            workload=WorkloadReference("pinn"), steps=440, full_steps=440, params={"lr": 5e-3}, predicts=False
        )
    )
    measured = {m.step for m in result.measurements if m.oscillation_energy is not None}
    norms = result.gradient_norms.tolist()
    grown = [step for step in range(60, 441) if is_growing(norms[:step])]
    assert len(grown) >= 20
    assert [step for step in grown if not measured & {step - 1, step}] == []
    assert result.overhead <= 0.2


def test_a_reading_while_the_gradient_grows_has_the_oscillation_in_it():
    result = run_trial(
        quadratic_spec(
            workload=WorkloadReference("diabetes_mlp"), steps=440, full_steps=440, params={"lr": 1e-2}, predicts=False
        )
    )
    norms = result.gradient_norms.tolist()
    measured = {m.step for m in result.measurements if m.oscillation_energy is not None}
    read = [m.step for m in result.measurements if m.sharpness_ratio is not None and is_growing(norms[: m.step])]
    assert len(read) >= 3
    assert [step for step in read if not measured & {step - 1, step}] == []
