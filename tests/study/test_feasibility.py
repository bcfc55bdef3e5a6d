import math

import numpy as np
import pytest

from stabletune.records import Episode, TrialResult
from stabletune.study.feasibility import instability, told_objective
from tests.trial.specs import quadratic_spec


def result(status="completed", steps=60, worst=None, **changes):
    episodes = () if worst is None else (Episode(start=1, end=2, worst_ratio=worst, severity=1.0, steps_lost=1),)
    losses = np.linspace(2.0, 1.0, steps)
    return TrialResult(spec=quadratic_spec(), status=status, reason="", losses=losses, episodes=episodes, **changes)


def test_a_clean_trial_is_feasible_by_its_risk():
    assert instability(result(objective=1.0, risk=0.1)) == pytest.approx(-0.4)
    assert instability(result(objective=1.0, risk=0.8)) == pytest.approx(0.3)


def test_instability_is_graded_earlier_higher_and_diverged_being_worse():
    late, early = result("stopped", 50, 2.0), result("stopped", 20, 2.0)
    higher, diverged = result("stopped", 20, 50.0), result("diverged", 20)
    grades = [instability(r) for r in (late, early, higher, diverged)]
    assert grades == sorted(grades)
    assert grades[0] > 1.0


def test_a_trial_that_completed_with_a_spike_is_infeasible():
    assert instability(result(worst=2.0, objective=1.0)) > 1.0


def test_what_is_told_is_always_finite_and_never_attractive():
    assert told_objective(result(objective=0.3)) == 0.3
    assert told_objective(result("stopped", 50, 2.0)) == pytest.approx(
        np.median(np.linspace(2.0, 1.0, 50)[:10]), rel=0.1
    )
    nothing = TrialResult(spec=quadratic_spec(), status="diverged", reason="", losses=np.array([math.nan]))
    assert math.isfinite(told_objective(nothing))
