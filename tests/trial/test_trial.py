import pytest
import torch

from stabletune.hyperparameters import MITIGATIONS
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
