"""What Ray Tune is told between the source's answers."""

import math

import pytest

from stabletune.errors import ResourceError
from stabletune.study.executors.ray_bridge import SourceSearcher, SourceStopper


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
    with pytest.raises(ResourceError, match=r"none does any more\. Start it again, and go on with --resume"):
        found.stop_all()


def test_the_cluster_is_not_asked_at_every_turn():
    found, asked = stopper([])
    assert not any(found.stop_all() for _ in range(100))
    assert asked == []
