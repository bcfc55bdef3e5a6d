"""Whatever user code does in a worker becomes a record with a sentence, and trials after it run as if it had not."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from stabletune.config.sections import Resources
from stabletune.records import WorkloadReference
from stabletune.study.executors.ray_tune import build
from tests.trial.specs import quadratic_spec

FILE = Path(__file__).with_name("misbehaving.py")
OVER = r"not over within the 0\.1 minutes that budget\.trial_minutes gives it"
DIED = r"the worker process died three times; out of memory, hung, or ended by the workload"
EXPECTED = {
    "raises at build": ("failed", "building: the workload raised ValueError: no such data set"),
    "spins at build": ("failed", f"after step 0: {OVER}; the process was ended"),
    "gives back nothing": ("failed", r"must return a stabletune\.Training, but got NoneType"),
    "no batches": ("failed", "batches"),
    "nan": ("diverged", "the loss is nan"),
    "inf": ("diverged", "the loss is inf"),
    "a vector": ("failed", r"must return a scalar, but got a tensor of shape \(16, 1\)"),
    "a number": ("failed", "loss_fn"),
    "no gradient": ("failed", "loss_fn"),
    "another at each call": ("completed", ""),
    "raises at a step": ("failed", "step 21: the workload raised RuntimeError: the data are gone"),
    "leaves by sys.exit": ("failed", "step 21: the workload raised SystemExit"),
    "leaves by os._exit": ("failed", DIED),
    "stops itself": ("failed", r"no answer for \d\d s, as from a process that is stopped; it was killed"),
    "kills itself": ("failed", DIED),
    "dies of a segmentation fault": ("failed", DIED),
    "sleeps for ever": ("failed", f"{OVER}; the process was ended"),
    "hangs with the lock held": ("failed", DIED),
    "allocates without end": ("failed", r"GiB of memory are more than resources\.memory_gib_per_trial, 2"),
    "forks": ("completed", ""),
    "dies before its child": ("failed", DIED),
    "prints megabytes": ("completed", ""),
    "changes torch": ("failed", "step 21"),
    "changes Python": (None, ""),
    "closes its streams": (None, ""),
    "leaves a thread": ("completed", "1 thread of the workload left running"),
    "ignores signals": ("completed", ""),
    "raises KeyboardInterrupt": ("failed", "step 21: the workload raised KeyboardInterrupt"),
    "raises GeneratorExit": ("failed", "step 21: the workload raised GeneratorExit"),
    "raises what has no words": (
        "failed",
        r"step 21: .* Silent: its message cannot be had: SystemExit \(misbehaving\.py",
    ),
    "raises megabytes that are no text": ("failed", r"OSError: \\udcff\\x00.* letters left out"),
    "opens every file": (None, ""),  # fails where Ray wants a file after that
    "closes its descriptors": ("completed", ""),
    "replaces functions": ("completed", ""),
    "hooks every module": ("completed", ""),
    "lowers limits": ("completed", ""),
    "hangs with children": ("failed", f"{OVER}; the process was ended"),
    "connects to Ray": ("failed", "step 21: the workload raised RuntimeError: Maybe you called ray.init twice"),
    "registers a model": ("completed", ""),
    "registers a model again": ("completed", ""),
    "leaves a GiB": ("completed", ""),
    "leaves a GiB again": ("completed", ""),
    "leaves a GiB once more": ("completed", ""),
    "runs out of recursion": ("failed", "step 21: the workload raised RecursionError"),
}
# Short for what is to outlast it, long for what is not: a new process imports torch within it.
SECONDS = {
    "spins at build": 6.0,
    "stops itself": 6.0,
    "sleeps for ever": 6.0,
    "hangs with the lock held": 12.0,
    "hangs with children": 6.0,
    "dies before its child": 12.0,
}
SECONDS_OF_THE_OTHERS = 300.0


class Queue:
    """A ``TrialSource`` of given specs, which keeps every result."""

    def __init__(self, specs):
        self.waiting, self.results, self.n = list(specs), {}, len(specs)

    @property
    def is_over(self):
        return len(self.results) == self.n

    def next_spec(self):
        return self.waiting.pop(0) if self.waiting else None

    def on_progress(self, progress):
        return True

    def on_result(self, result):
        assert result.spec.number not in self.results
        self.results[result.spec.number] = result

    def on_abandoned(self, spec, steps):
        raise AssertionError("nothing was unwanted")


def spec(number, kind, **changes):
    given = {
        "workload": WorkloadReference("build", path=str(FILE)),
        "workload_args": {"kind": kind},
        "steps": 60,
        "full_steps": 60,
        "seconds": SECONDS.get(kind, SECONDS_OF_THE_OTHERS),
        "memory_gib": 2.0,
        "stops_on_spike": False,
        "predicts": False,
    }
    return dataclasses.replace(quadratic_spec(), number=number, seed=1, **{**given, **changes})


@pytest.fixture(scope="module")
def results():
    """Each kind once, a well-behaved trial after each, with a single worker that is used again."""
    kinds = [kind for misbehaving in EXPECTED for kind in (misbehaving, "none")]
    source = Queue([spec(number, kind) for number, kind in enumerate(kinds)])
    build(Resources(max_concurrent=1, cpus_per_trial=1)).run(source)
    return [source.results[number] for number in range(len(kinds))]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPECTED)
def test_it_becomes_a_record_with_a_sentence(results, kind):
    result = results[2 * list(EXPECTED).index(kind)]
    status, words = EXPECTED[kind]
    assert status in (None, result.status), result.reason
    assert re.search(words, result.reason), result.reason


@pytest.mark.ray
@pytest.mark.slow
def test_the_trials_after_it_run_as_if_it_had_not(results):
    after = results[1::2]
    assert [result.status for result in after] == ["completed"] * len(after)
    assert {result.reason for result in after} == {after[0].reason}
    for result in after[1:]:
        assert np.array_equal(result.losses, after[0].losses)


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_only_a_new_process_can_run_gets_one_though_other_workers_are_free():
    """A model that no process may register twice, in every fourth trial of two workers."""
    kinds = ["none" if number % 4 else "registers a model" for number in range(24)]
    source = Queue([spec(number, kind) for number, kind in enumerate(kinds)])
    build(Resources(max_concurrent=2, cpus_per_trial=1)).run(source)
    reasons = [result.reason for result in source.results.values() if result.status != "completed"]
    assert reasons == []
