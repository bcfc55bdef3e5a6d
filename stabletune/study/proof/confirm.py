"""The proof: candidates run over the full horizon on fresh seeds, then the baseline on the winner's seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from stabletune.config import Config
from stabletune.judgement.objective import over_seeds
from stabletune.records import Progress, Purpose, TrialResult, TrialSpec, finite_or_none
from stabletune.results.rows import confirmation_row
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.observation import Observation, observe
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.place import place_of
from stabletune.study.proof.plan import BASELINE, Plan, plan_proof
from stabletune.study.proof.proof_runs import ProofRun, Run, is_kept, proof_observations, proof_run, stored_runs
from stabletune.study.proof.prospects import Candidate, Prospect, prospects
from stabletune.study.specs import all_settings, trial_spec

PROOF_RUN = "proof_run:"
MARK_IS_USED = "baseline_seed_serves_a_proof"
LIKELY_TO_HOLD = 2


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a proof stands after ``n_runs`` runs: the models of all runs, the candidates not lost, what to run next."""

    n_runs: int
    outlook: Outlook
    prospects: list[Prospect]
    plan: Plan


class ConfirmationPhase:
    """A ``TrialSource`` of proof runs.

    Finished runs and the count of seeds used are attributes of the study: a run that a crash cut off goes on from its
    checkpoint, or is made again with a fresh seed if it has none, and no seed serves two proofs.
    """

    def __init__(
        self,
        config: Config,
        study: SearchStudy,
        folder: RunFolder,
        candidates: list[Candidate],
        *,
        trials: list[Observation],
        others: list[Observation],
        listener: Listener,
    ) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._candidates, self._trials, self._lessons = candidates, trials, others
        self.sent: list[int] = []
        self._kept: list[dict[str, Any]] = []
        self._running: list[TrialSpec] = []
        self._elsewhere: list[Run] = []
        self._saved_steps: dict[int, int] = {}
        self._standing: Standing | None = None
        study.exclusively(self.refresh)
        self.write_table()
        listener.on_proof(len(candidates), 2 * config.budget.confirm_seeds)

    def refresh(self) -> None:
        """Take in the runs that other drivers have made, and those that they are at."""
        self._read(self._study.attributes(PROOF_RUN))
        elsewhere = self._study.drivers.runs_elsewhere() if self._study.drivers else []
        horizon = self._config.budget.full_steps
        self._elsewhere = [Run(**run) for run in elsewhere if run["horizon"] == horizon]

    def _read(self, kept: list[dict[str, Any]]) -> None:
        self._kept, horizon = kept, self._config.budget.full_steps
        everything = stored_runs(kept)
        self.runs = [run for run in everything if run.horizon == horizon]
        self._earlier = [run for run in everything if run.horizon != horizon]
        known = {c.number for c in self._candidates}
        proven = dict.fromkeys(r.candidate for r in self.runs if r.purpose == "confirmation")
        self.sent = list(dict.fromkeys([*(number for number in proven if number in known), *self.sent]))

    def write_table(self) -> None:
        """Write ``confirmations.csv`` anew from the study."""
        self._folder.confirmations.rewrite([entry["row"] for entry in self._kept])

    @property
    def is_over(self) -> bool:
        """Whether there is a winner with its baseline runs, or nothing survived."""
        plan = self.standing.plan
        if plan.winner is None:
            return plan.is_exhausted and not self._under_way
        return not self._baseline_seeds_missing(plan.winner) and not self._under_way

    @property
    def winner(self) -> Prospect | None:
        """The proven candidate, if any: the baseline itself where it held on the same seeds and ends lower."""
        chosen = self.standing.plan.winner
        return None if chosen is None else self._baseline_if_better(chosen) or chosen

    @property
    def baseline_runs(self) -> list[ProofRun]:
        """The baseline's runs on the winner's seeds; the winner's own if it is the baseline."""
        if self.winner is None or self.winner.candidate.number == BASELINE:
            return list(self.winner.runs) if self.winner else []
        seeds = {run.seed for run in self.winner.runs}
        return [run for run in self.runs if run.purpose == "baseline" and run.seed in seeds]

    def next_spec(self) -> TrialSpec | None:
        """The baseline's first run, else what the plan wants, else the baseline on the likely winner's seeds."""
        spec = self._study.exclusively(self._choose)
        if spec is None:
            return None
        self._running.append(spec)
        if spec.purpose == "confirmation" and spec.number not in self.sent:
            self.sent.append(spec.number)
        self._listener.on_start(spec)
        return spec

    def _choose(self) -> TrialSpec | None:
        if self._study.drivers is not None:
            self.refresh()
        is_mark_under_way = any(run.purpose == "baseline" for run in self._under_way)
        if self._candidates and self._mark is None and not is_mark_under_way:
            seed = self._interrupted(BASELINE, "baseline")
            return self._start(BASELINE, "baseline", self._study.fresh_seed() if seed is None else seed)
        plan = self.standing.plan
        if plan.wanted is not None:
            number = plan.wanted.candidate.number
            under_way = [r for r in self._under_way if r.number == number and r.purpose == "confirmation"]
            if len(plan.wanted.runs) + len(under_way) < plan.n_runs:
                is_last = len(plan.wanted.runs) + len(under_way) == self._config.budget.confirm_seeds - 1
                return self._start(number, "confirmation", self._seed_for(number, is_last=is_last))
        leader = plan.winner or plan.wanted
        if leader is None or len(leader.runs) < min(LIKELY_TO_HOLD, leader.n_seeds):
            return None
        under_way_too = {run.seed for run in self._under_way if run.purpose == "baseline"}
        seeds = [seed for seed in self._baseline_seeds_missing(leader) if seed not in under_way_too]
        return self._start(BASELINE, "baseline", seeds[0]) if seeds else None

    def on_progress(self, progress: Progress) -> bool:
        """A run goes on unless another seed of its candidate has already failed."""
        self._listener.on_progress(progress)
        self._saved_steps[progress.seed] = progress.saved_step
        return progress.purpose == "baseline" or not self._is_lost(progress.number)

    def on_result(self, result: TrialResult) -> None:
        """Write the run's files, then store it with the study."""
        self._folder.record(result)
        place = place_of(all_settings(result.spec), self._config.search_space)
        self._study.exclusively(lambda: self._keep(result, proof_run(result, observe(result, place))))
        self._forget_checkpoint(result.spec)
        self._listener.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Record a run that was ended because its candidate was dropped, or because the study was stopped."""
        is_lost = spec.purpose == "confirmation" and self._is_lost(spec.number)
        if is_lost:
            reason = f"step {steps}: no longer needed, because another seed of candidate {spec.number} was not clean."
            result = TrialResult(spec=spec, status="stopped", reason=reason, losses=np.full(steps, np.nan))
            self._folder.confirmations.write(confirmation_row(result))
            self._study.exclusively(lambda: self._keep(result, None))
            self._forget_checkpoint(spec)
        else:
            self._study.exclusively(lambda: self._end(spec))
        is_saved = spec.checkpoint is not None and Path(spec.checkpoint).exists()
        saved_steps = self._saved_steps.get(spec.seed, 0) if is_saved else 0  # counted with the run that goes on
        self._study.add_abandoned_steps(max(0, steps - saved_steps))
        self._listener.on_abandoned(spec, steps)

    @property
    def steps_spent(self) -> int:
        """Optimizer steps of every finished proof run of this study."""
        return sum(run.steps for run in [*self._earlier, *self.runs])

    @property
    def n_sent(self) -> int:
        """Candidates sent to this proof, the baseline among them if its short trial was clean."""
        is_baseline_candidate = any(c.number == BASELINE for c in self._candidates)
        return len({*self.sent, BASELINE} if is_baseline_candidate else self.sent)

    @property
    def standing(self) -> Standing:
        """What all runs say so far; judged anew only after one has ended, for executors ask many times between."""
        if self._standing is None or self._standing.n_runs != len(self.runs):
            seen = [*self._lessons, *proof_observations(self._earlier), *proof_observations(self.evidence)]
            outlook = Outlook(self._config, self._trials, seen)
            n_seeds = self._config.budget.confirm_seeds
            found = prospects(self._candidates, self.evidence, outlook, n_seeds=n_seeds)
            self._standing = Standing(len(self.runs), outlook, found, plan_proof(found))
        return self._standing

    @property
    def _mark(self) -> ProofRun | None:
        """The baseline's first run at the full horizon."""
        return next((run for run in self.runs if run.purpose == "baseline"), None)

    @property
    def evidence(self) -> list[ProofRun]:
        """What decides: all runs of candidates, and the baseline's first, so that its later ones upset nothing."""
        mark = self._mark
        return [run for run in self.runs if run.purpose == "confirmation" or run is mark]

    def _baseline_if_better(self, chosen: Prospect) -> Prospect | None:
        """The baseline as it stands with all its runs on the seeds of ``chosen``."""
        own = next((p for p in self.standing.prospects if p.candidate.number == BASELINE), None)
        seeds = {run.seed for run in chosen.runs}
        runs = tuple(run for run in self.runs if run.purpose == "baseline" and run.seed in seeds)
        if own is None or len(runs) < len(seeds) or not all(run.is_clean for run in runs):
            return None
        objective = over_seeds([run.objective for run in runs if run.objective is not None])
        if not objective < over_seeds([run.objective for run in chosen.runs if run.objective is not None]):
            return None
        n_more = len(runs) - len(own.runs)
        return dataclasses.replace(
            own, runs=runs, objective=objective, n_clean=own.n_clean + n_more, n_seen=own.n_seen + n_more
        )

    def _seed_for(self, number: int, *, is_last: bool) -> int:
        """A fresh seed, or that of an interrupted run.

        For the last run of a proof it is that of the baseline's first run, once, so that one more is spared.
        """
        seed = self._interrupted(number, "confirmation")
        if seed is not None:
            return seed
        mark = self._mark
        is_used = f"{MARK_IS_USED}:{self._config.budget.full_steps}"
        if is_last and mark is not None and number != BASELINE and not self._study.attribute(is_used, False):
            self._study.set_attribute(is_used, True)
            return mark.seed
        return self._study.fresh_seed()

    def _interrupted(self, number: int, purpose: Purpose) -> int | None:
        """The seed of a run that a crash cut off and that can go on from its checkpoint."""
        if self._config.budget.checkpoint_minutes is None:
            return None
        done = {run.seed for run in self.runs if run.purpose == purpose}
        under_way = {run.seed for run in self._under_way if run.purpose == purpose}
        seeds = self._folder.interrupted_seeds(number, purpose, self._config.budget.full_steps)
        return next((seed for seed in seeds if seed not in done | under_way), None)

    def _forget_checkpoint(self, spec: TrialSpec) -> None:
        """Delete it, and what a save that was killed left beside it."""
        if spec.checkpoint is not None:
            path = Path(spec.checkpoint)
            for file in path.parent.glob(f"{path.stem}.*"):
                file.unlink(missing_ok=True)

    @property
    def _under_way(self) -> list[Run]:
        """The runs that this driver or another one is at."""
        return [*(Run(s.number, s.purpose, s.seed, s.full_steps) for s in self._running), *self._elsewhere]

    def _end(self, spec: TrialSpec) -> None:
        """Take a run off the list; specs that crossed a process border are told by what names them."""
        key = (spec.number, spec.purpose, spec.seed)
        self._running = [other for other in self._running if (other.number, other.purpose, other.seed) != key]
        self._tell_others(self._running)

    def _tell_others(self, specs: list[TrialSpec]) -> None:
        if self._study.drivers is not None:
            self._study.drivers.note_runs([Run(s.number, s.purpose, s.seed, s.full_steps)._asdict() for s in specs])

    def _keep(self, result: TrialResult, run: ProofRun | None) -> None:
        """Store a run and its row with the study, each under a name of its own, and take the run off the list."""
        kept = self._study.attributes(PROOF_RUN)
        entry = {"run": run and dataclasses.asdict(run), "row": finite_or_none(confirmation_row(result))}
        if not is_kept(entry, kept):
            self._study.set_attribute(f"{PROOF_RUN}{len(kept):06d}", entry)
        self._read(self._study.attributes(PROOF_RUN))
        self._end(result.spec)

    def _is_lost(self, number: int) -> bool:
        return any(run.candidate == number and not run.is_clean for run in self.evidence)

    def _baseline_seeds_missing(self, winner: Prospect) -> list[int]:
        if winner.candidate.number == BASELINE:
            return []
        done = {run.seed for run in self.runs if run.purpose == "baseline"}
        return [run.seed for run in winner.runs if run.seed not in done]

    def _start(self, number: int, purpose: Purpose, seed: int) -> TrialSpec:
        values = next((c.values for c in self._candidates if c.number == number and purpose == "confirmation"), {})
        budget, path = self._config.budget, None
        if budget.checkpoint_minutes is not None:
            path = str(self._folder.checkpoint_path(number, purpose, seed, budget.full_steps))
        spec = trial_spec(self._config, number, values, purpose=purpose, seed=seed, checkpoint=path)
        self._tell_others([*self._running, spec])
        return spec
