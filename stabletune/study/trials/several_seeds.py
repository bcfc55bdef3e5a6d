"""One trial made of runs with several seeds: they count as one, and the worst of them decides whether it is stable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from stabletune.judgement.objective import over_seeds
from stabletune.records import TrialResult, finite_or_none
from stabletune.results.rows import trial_row
from stabletune.space import SearchSpace
from stabletune.study.feasibility import is_unstable
from stabletune.study.prediction.observation import observe
from stabletune.study.prediction.place import place_of
from stabletune.study.specs import all_settings


@dataclasses.dataclass
class OpenTrial:
    """A trial whose runs are not all done: ``seeds_left`` are still to be handed out."""

    number: int
    values: Mapping[str, Any]
    n_seeds: int
    seeds_left: list[int]
    results: list[TrialResult] = dataclasses.field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether every seed has run, or one of them has settled that the trial is no candidate."""
        return len(self.results) == self.n_seeds or any(_settles(result) for result in self.results)

    def whole(self) -> TrialResult:
        """The trial as one result: the run that settled it, else its first, with objective and risk of all.

        The objective is the median over seeds, the risk their mean; each is the shown run's own where a run has none.
        """
        shown = next((result for result in self.results if _settles(result)), self.results[0])
        objectives = [r.objective for r in self.results if r.objective is not None]
        risks = [r.risk for r in self.results if r.risk is not None]
        is_complete = len(objectives) == len(self.results)
        return dataclasses.replace(
            shown,
            objective=over_seeds(objectives) if is_complete else shown.objective,
            risk=float(np.mean(risks)) if len(risks) == len(self.results) else shown.risk,
        )

    def row(self) -> dict[str, Any]:
        """The row of ``trials.csv``: steps and seconds of all runs; ``objective_noise`` is between their seeds."""
        objectives = [r.objective for r in self.results if r.objective is not None]
        return trial_row(self.whole()) | {
            "steps": sum(result.steps for result in self.results),
            "seconds": sum(result.seconds for result in self.results),
            "n_seeds": len(self.results),
            "objective_noise": float(np.std(objectives, ddof=1)) if len(objectives) > 1 else None,
        }

    def record(self, space: SearchSpace) -> dict[str, Any]:
        """What is stored with the study once it is over."""
        whole = self.whole()
        settings = all_settings(whole.spec)
        place = place_of(settings, space)
        seen = observe(whole, place)
        more = [observe(result, place) for result in self.results if result.spec.seed != whole.spec.seed]
        return {
            "row": finite_or_none(self.row()),
            "values": {name: settings[name] for name in space.ranges if self.number},
            "settings": settings,
            "observation": seen.as_data() if seen is not None else None,
            "of_more_seeds": [observation.as_data() for observation in more if observation is not None],
            "is_candidate": not whole.is_spiky and (whole.status == "pruned" or whole.objective is not None),
        }


def _settles(result: TrialResult) -> bool:
    return is_unstable(result) or result.status in ("failed", "pruned")
