"""What measuring costs on the clock, against the budget that was asked for: runs of the worker with and without."""

import dataclasses
import statistics

from timing import figure

from stabletune.hyperparameters import default_settings
from stabletune.records import TrialSpec, WorkloadReference
from stabletune.trial.worker import run_trial

STEPS = {"diabetes_mlp": 600, "digits_cnn": 200, "char_lm": 100}


def spec(workload, overhead):
    return TrialSpec(
        number=0,
        purpose="search",
        seed=0,
        steps=STEPS[workload],
        full_steps=STEPS[workload],
        params=default_settings(),
        workload=WorkloadReference(workload),
        workload_args={},
        schedule="constant",
        metric="final_loss",
        source="train",
        target=None,
        overhead=overhead,
        every=None if overhead else 10**9,
        stops_on_spike=False,
        predicts=False,
    )


for workload in STEPS:
    run_trial(dataclasses.replace(spec(workload, None), steps=5))
    for overhead in (0.05, 0.15):
        pairs = [(run_trial(spec(workload, overhead)), run_trial(spec(workload, None))) for _ in range(3)]
        value = statistics.median(measured.seconds / bare.seconds - 1.0 for measured, bare in pairs)
        booked = pairs[0][0].overhead
        figure(f"{workload}: overhead {overhead}, {booked:.3f} booked", value, "of time", f"about {overhead}")
