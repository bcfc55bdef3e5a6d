import json

from stabletune.config import load_config
from stabletune.results.curves import read_curves, write_curves
from stabletune.study.specs import trial_spec
from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec


def test_what_the_config_asks_for_reaches_the_trial(write_config):
    path = write_config()
    assert not trial_spec(load_config(path), 0, {}).sharpness
    config = load_config(path, overrides=["signals.sharpness=true"])
    for purpose in ("search", "confirmation", "baseline", "recommended"):
        assert trial_spec(config, 0, {}, purpose=purpose).sharpness
    result = run_trial(trial_spec(config, 0, {}))
    assert any(measurement.sharpness is not None for measurement in result.measurements)


def test_readings_are_written_and_read_back_and_change_neither_losses_nor_other_readings(tmp_path):
    plain = run_trial(quadratic_spec(overhead=None, every=20))
    result = run_trial(quadratic_spec(overhead=None, every=20, sharpness=True))
    assert plain.losses.tolist() == result.losses.tolist()
    assert [m.sharpness_ratio for m in plain.measurements] == [m.sharpness_ratio for m in result.measurements]
    write_curves(tmp_path / "plain", plain)
    write_curves(tmp_path / "asked", result)
    lines = (tmp_path / "asked" / "measurements.jsonl").read_text().splitlines()
    values = [measurement.sharpness for measurement in result.measurements]
    assert None not in values
    assert [json.loads(line)["sharpness"] for line in lines] == values
    steps, series = read_curves(tmp_path / "asked").series("sharpness")
    assert (steps.tolist(), series.tolist()) == ([20.0, 40.0, 60.0], values)
    assert read_curves(tmp_path / "plain").series("sharpness")[0].size == 0
