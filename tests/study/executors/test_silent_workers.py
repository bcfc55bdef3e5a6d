"""When a worker that says nothing is ended from outside: after its own watchdog should have done so."""

import dataclasses
import re
import time
import types

import pytest

from stabletune.study.executors.silent_workers import SilentWorkers
from tests.trial.specs import quadratic_spec

LOOK = 5.0


class Watched:
    """One trial with a worker, and the workers that were ended."""

    def __init__(self, seconds):
        spec = dataclasses.replace(quadratic_spec(), seconds=seconds)
        self.state = types.SimpleNamespace(ray_actor="first")
        self.trial = types.SimpleNamespace(trial_id="one", config={"spec": spec}, temporary_state=self.state)
        self.ended = []
        self.watch = SilentWorkers(lambda *ended: self.ended.append(ended))

    def pass_time(self, seconds, at_once=False):
        for _ in range(1 if at_once else int(seconds / LOOK)):
            self.watch._looked_at = time.monotonic() - (seconds if at_once else LOOK)
            self.watch.on_step_begin(0, [self.trial])

    def report(self):
        self.watch.on_trial_result(0, [self.trial], self.trial, {})


@pytest.mark.parametrize(("limit", "most"), [(100.0, 160.0), (None, 1860.0)], ids=["trial_minutes", "half an hour"])
def test_it_is_ended_a_minute_after_its_limit_and_not_before(limit, most):
    watched = Watched(limit)
    watched.pass_time(most)
    assert watched.ended == []
    watched.pass_time(4.0 * LOOK)
    (trial_id, worker, words), *_ = watched.ended
    assert (trial_id, worker) == ("one", "first")
    seconds = int(re.fullmatch(r"no answer for (\d+) s, as from a process that is stopped; it was killed\.", words)[1])
    assert most <= seconds <= most + 2.0 * LOOK


def test_a_sign_of_life_counts_where_the_run_as_a_whole_has_no_limit():
    without, limited = Watched(None), Watched(100.0)
    for watched in (without, limited):
        for _ in range(5):
            watched.pass_time(1000.0)
            watched.report()
    assert without.ended == [] and limited.ended


def test_the_worker_of_the_next_attempt_has_all_its_time():
    watched = Watched(100.0)
    watched.pass_time(150.0)
    watched.state.ray_actor = "second"
    watched.pass_time(150.0)
    assert watched.ended == []


def test_a_trial_that_waits_for_a_worker_is_left_alone():
    watched = Watched(100.0)
    watched.state.ray_actor = None
    watched.pass_time(1000.0)
    assert watched.ended == []


def test_time_in_which_the_driver_itself_was_stopped_is_no_silence():
    watched = Watched(100.0)
    watched.pass_time(100.0)
    watched.pass_time(3600.0, at_once=True)
    assert watched.ended == []
