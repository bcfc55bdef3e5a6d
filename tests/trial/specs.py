"""Specs for tests: the built-in quadratic, or a file of the test's own."""

import textwrap

from stabletune.hyperparameters import default_settings
from stabletune.records import TrialSpec, WorkloadReference


def quadratic_spec(**changes):
    given = {
        "number": 0,
        "purpose": "search",
        "seed": 0,
        "steps": 60,
        "full_steps": 200,
        "params": default_settings(),
        "workload": WorkloadReference("quadratic"),
        "workload_args": {},
        "schedule": "constant",
        "metric": "final_loss",
        "source": "train",
        "target": None,
        "overhead": 0.15,
        "every": None,
        "stops_on_spike": True,
        "predicts": True,
    }
    given["params"] = {**given["params"], **changes.pop("params", {})}
    return TrialSpec(**{**given, **changes})


def spec_of_file(folder, code, function="build", **changes):
    path = folder / "workload.py"
    path.write_text(textwrap.dedent(code))
    return quadratic_spec(workload=WorkloadReference(function, path=str(path)), **changes)
