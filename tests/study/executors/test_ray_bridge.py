"""What Ray Tune is told between the source's answers."""

import math

import pytest

from stabletune.errors import ClusterError
from stabletune.study.executors.ray_bridge import SourceSearcher, SourceStopper
from stabletune.study.failures import worker_died
from tests.trial.specs import quadratic_spec


class Source:
    """A source that is never over."""

    is_over = False


def stopper(answers):
    asked = []

    def is_alive():
        asked.append(True)
        return answers.pop(0)

    found = SourceStopper(SourceSearcher(Source(), lambda spec, steps: None), is_alive)
    return found, asked


def test_where_no_node_lives_any_more_the_search_ends_with_what_to_do():
    found, _ = stopper([True, False])
    found._asked_at = -math.inf
    assert not found.stop_all()
    found._asked_at = -math.inf
    with pytest.raises(ClusterError, match=r"none does any more\. Start it again, and go on with --resume"):
        found.stop_all()


def test_the_cluster_is_not_asked_at_every_turn():
    found, asked = stopper([])
    assert not any(found.stop_all() for _ in range(100))
    assert asked == []


class Keeps(Source):
    """A source of one trial, which keeps what it is told."""

    def __init__(self):
        self.specs, self.results, self.abandoned = [quadratic_spec()], [], []

    def next_spec(self):
        return self.specs.pop()

    def on_result(self, result):
        self.results.append(result)

    def on_abandoned(self, spec, steps):
        self.abandoned.append((spec, steps))


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_trial_whose_cluster_died_with_its_worker_is_no_failure_of_its_own(is_alive):
    source = Keeps()
    searcher = SourceSearcher(source, worker_died, is_cluster_alive=lambda: is_alive)
    searcher.suggest("one")
    searcher.on_trial_complete("one", error=True)
    assert [result.status for result in source.results] == (["failed"] if is_alive else [])
    assert [steps for _, steps in source.abandoned] == ([] if is_alive else [0])
