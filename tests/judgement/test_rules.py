import dataclasses

import pytest

from stabletune.judgement.rules import sustained_instability
from stabletune.records import Measurement


def reading(step, sharpness=1.05, staleness=100.0):
    return Measurement(step=step, loss=1.0, lr=1e-3, sharpness_ratio=sharpness, v_hat_staleness=staleness)


UNSTABLE = [reading(600), reading(604), reading(609)]


def test_sustained_instability_is_found_with_its_steps_and_lowest_values():
    finding = sustained_instability([reading(500, 0.9), *UNSTABLE[:2], reading(609, 1.02, 50.0)], beta2=0.99)
    assert (finding.first_step, finding.last_step, finding.n_readings) == (600, 609, 3)
    assert (finding.lowest_sharpness_ratio, finding.lowest_staleness) == (1.02, 50.0)


@pytest.mark.parametrize(
    "readings",
    [
        [reading(609)],
        [reading(600), reading(609)],
        [reading(600), reading(602), reading(604)],
        [dataclasses.replace(m, v_hat_staleness=2.0) for m in UNSTABLE],
        [dataclasses.replace(m, sharpness_ratio=0.99) for m in UNSTABLE],
        [*UNSTABLE, reading(612, 0.97)],
        [dataclasses.replace(m, sharpness_ratio=None) for m in UNSTABLE],
        [],
    ],
    ids=["one", "two", "too short", "fresh v_hat", "below the edge", "ended", "not measured", "nothing"],
)
def test_less_than_sustained_instability_with_a_stale_v_hat_is_no_finding(readings):
    assert sustained_instability(readings, beta2=0.99) is None


def test_no_verdict_before_v_hat_has_aged():
    early = [dataclasses.replace(m, step=m.step - 200) for m in UNSTABLE]
    assert sustained_instability(early, beta2=0.99) is None
    assert sustained_instability(UNSTABLE, beta2=0.999) is None  # needs 1,000 steps
    late = [dataclasses.replace(m, step=m.step + 500) for m in UNSTABLE]
    assert sustained_instability(late, beta2=0.999) is not None


def test_a_run_of_unstable_readings_that_began_before_v_hat_had_aged_counts_from_then_on():
    unbroken = [reading(step) for step in range(450, 2000, 3)]
    finding = sustained_instability(unbroken, beta2=0.99)
    assert finding.first_step == 501
    assert sustained_instability([m for m in unbroken if m.step <= 507], beta2=0.99) is None
    assert sustained_instability([m for m in unbroken if m.step <= 510], beta2=0.99) is not None


@pytest.mark.parametrize("staleness", [None, 2.0, 100.0])
def test_readings_without_curvature_neither_count_nor_end_the_run(staleness):
    glance = reading(606, None, staleness)
    finding = sustained_instability([UNSTABLE[0], glance, *UNSTABLE[1:], reading(611, None, staleness)], beta2=0.99)
    assert (finding.first_step, finding.last_step, finding.n_readings) == (600, 609, 3)
    assert sustained_instability([UNSTABLE[0], glance, UNSTABLE[2]], beta2=0.99) is None
