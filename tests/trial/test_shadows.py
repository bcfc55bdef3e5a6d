import json

import pytest

from stabletune.config import load_config
from stabletune.results.curves import read_curves, write_curves
from stabletune.study.specs import trial_spec
from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec, spec_of_file
from tests.trial.test_worker import LINEAR

OWN_LOOP = """
    import torch

    def train(trial):
        model = torch.nn.Linear(3, 1)
        x = torch.ones(8, 3)
        optimizer = trial.build_optimizer(model.parameters())
        trial.watch(model)
        loss_of = lambda: (model(x) - 1).square().mean() + 1
        for _ in range(trial.steps):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
            if trial.step(loss, loss_of):
                break
"""


@pytest.mark.parametrize(("code", "function"), [(LINEAR, "build"), (OWN_LOOP, "train")])
def test_a_trial_follows_other_values_from_its_very_first_step(tmp_path, code, function):
    settings = {"overhead": None, "every": 1, "steps": 3}
    result = run_trial(spec_of_file(tmp_path, code, function, shadow_beta2=(0.5, 0.999), **settings))
    first, *_, last = result.measurements
    # bias-corrected, v̂ of a first step is g² whatever beta2 is
    assert [found.lower_bound for found in first.shadow_sharpness_ratios] == [pytest.approx(first.sharpness_ratio)] * 2
    half, own = last.shadow_sharpness_ratios
    assert own.lower_bound == pytest.approx(last.sharpness_ratio)
    assert half.lower_bound != pytest.approx(last.sharpness_ratio)


def test_shadows_change_neither_losses_nor_other_readings():
    plain = run_trial(quadratic_spec())
    shadowed = run_trial(quadratic_spec(shadow_beta2=(0.9, 0.95)))
    assert plain.losses.tolist() == shadowed.losses.tolist()
    assert all(measurement.shadow_sharpness_ratios is None for measurement in plain.measurements)
    assert [m.sharpness_ratio for m in plain.measurements] == [m.sharpness_ratio for m in shadowed.measurements]


def test_readings_are_written_as_plain_rows(tmp_path):
    result = run_trial(quadratic_spec(overhead=None, every=20, shadow_beta2=(0.9,), shadow_exact=True))
    write_curves(tmp_path, result)
    line = json.loads((tmp_path / "measurements.jsonl").read_text().splitlines()[0])
    (found,) = result.measurements[0].shadow_sharpness_ratios
    assert line["shadow_sharpness_ratios"] == [
        {"beta2": 0.9, "lower_bound": found.lower_bound, "estimate": found.estimate, "exact": found.exact}
    ]
    assert read_curves(tmp_path).measurements[0] == line


def test_a_trial_that_clips_by_v_says_that_both_do_not_go_together():
    result = run_trial(quadratic_spec(params={"second_moment_clip": 5000.0}, shadow_beta2=(0.9,)))
    assert result.status == "failed"
    assert "with shadow_beta2 second_moment_clip must be None" in result.reason


def test_what_the_config_names_reaches_the_trial(write_config):
    path = write_config()
    assert trial_spec(load_config(path), 0, {}).shadow_beta2 == ()
    config = load_config(path, overrides=["signals.shadow_beta2=[0.9, 0.99]", "signals.shadow_exact=true"])
    spec = trial_spec(config, 0, {})
    assert (spec.shadow_beta2, spec.shadow_exact) == ((0.9, 0.99), True)
    found = [m.shadow_sharpness_ratios for m in run_trial(spec).measurements if m.sharpness_ratio is not None]
    assert found and all([shadow.beta2 for shadow in shadows] == [0.9, 0.99] for shadows in found)
