"""The proof: candidates run over the full horizon on fresh seeds, then the baseline on the winner's seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from stabletune.config import Config
from stabletune.judgement.objective import over_seeds
from stabletune.records import Progress, Purpose, TrialResult, TrialSpec, finite_or_none
from stabletune.results.rows import confirmation_row, largest
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.prediction.observation import Observation, observe
from stabletune.study.prediction.outlook import Outlook
from stabletune.study.prediction.place import place_of
from stabletune.study.proof.plan import BASELINE, Plan, plan_proof
from stabletune.study.proof.prospects import Candidate, ProofRun, Prospect, proof_observations, prospects, stored_runs
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
        self._candidates, self._trials = candidates, trials
        kept = study.attributes(PROOF_RUN)
        everything = stored_runs(kept)
        self._n_kept = len(kept)
        self.runs = [run for run in everything if run.horizon == config.budget.full_steps]
        earlier = [run for run in everything if run.horizon != config.budget.full_steps]
        self._steps_of_other_horizons = sum(run.steps for run in earlier)
        self._others = [*others, *proof_observations(earlier)]
        known = {c.number for c in candidates}
        proven = dict.fromkeys(r.candidate for r in self.runs if r.purpose == "confirmation")
        self.sent = [number for number in proven if number in known]
        folder.confirmations.rewrite([entry["row"] for entry in kept])
        self._running: list[TrialSpec] = []
        self._saved_steps: dict[int, int] = {}
        self._standing: Standing | None = None
        listener.on_proof(len(candidates), 2 * config.budget.confirm_seeds)

    @property
    def is_over(self) -> bool:
        """Whether there is a winner with its baseline runs, or nothing survived."""
        plan = self.standing.plan
        if plan.winner is None:
            return plan.is_exhausted and not self._running
        return not self._baseline_seeds_missing(plan.winner) and not self._running

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
        is_mark_under_way = any(spec.purpose == "baseline" for spec in self._running)
        if self._candidates and self._mark is None and not is_mark_under_way:
            seed = self._interrupted(BASELINE, "baseline")
            return self._start(BASELINE, "baseline", self._study.fresh_seed() if seed is None else seed)
        plan = self.standing.plan
        if plan.wanted is not None:
            number = plan.wanted.candidate.number
            under_way = [s for s in self._running if s.number == number and s.purpose == "confirmation"]
            if len(plan.wanted.runs) + len(under_way) < plan.n_runs:
                is_last = len(plan.wanted.runs) + len(under_way) == self._config.budget.confirm_seeds - 1
                if number not in self.sent:
                    self.sent.append(number)
                return self._start(number, "confirmation", self._seed_for(number, is_last=is_last))
        leader = plan.winner or plan.wanted
        if leader is None or len(leader.runs) < min(LIKELY_TO_HOLD, leader.n_seeds):
            return None
        under_way_too = {spec.seed for spec in self._running if spec.purpose == "baseline"}
        seeds = [seed for seed in self._baseline_seeds_missing(leader) if seed not in under_way_too]
        return self._start(BASELINE, "baseline", seeds[0]) if seeds else None

    def on_progress(self, progress: Progress) -> bool:
        """A run goes on unless another seed of its candidate has already failed."""
        self._listener.on_progress(progress)
        self._saved_steps[progress.seed] = progress.saved_step
        return progress.purpose == "baseline" or not self._is_lost(progress.number)

    def on_result(self, result: TrialResult) -> None:
        """Write the run's files, then store it with the study."""
        self._end(result.spec)
        self._folder.record(result)
        place = place_of(all_settings(result.spec), self._config.search_space)
        self.runs.append(_proof_run(result, observe(result, place)))
        self._keep(result, self.runs[-1])
        self._forget_checkpoint(result.spec)
        self._listener.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Record a run that was ended because its candidate was dropped, or because the study was stopped."""
        self._end(spec)
        if spec.purpose == "confirmation" and self._is_lost(spec.number):
            reason = f"step {steps}: no longer needed, because another seed of candidate {spec.number} was not clean."
            result = TrialResult(spec=spec, status="stopped", reason=reason, losses=np.full(steps, np.nan))
            self._folder.confirmations.write(confirmation_row(result))
            self._keep(result, None)
            self._forget_checkpoint(spec)
        is_saved = spec.checkpoint is not None and Path(spec.checkpoint).exists()
        saved_steps = self._saved_steps.get(spec.seed, 0) if is_saved else 0  # counted with the run that goes on
        self._study.add_abandoned_steps(max(0, steps - saved_steps))
        self._listener.on_abandoned(spec, steps)

    @property
    def steps_spent(self) -> int:
        """Optimizer steps of every finished proof run of this study."""
        return self._steps_of_other_horizons + sum(run.steps for run in self.runs)

    @property
    def n_sent(self) -> int:
        """Candidates sent to this proof, the baseline among them if its short trial was clean."""
        is_baseline_candidate = any(c.number == BASELINE for c in self._candidates)
        return len({*self.sent, BASELINE} if is_baseline_candidate else self.sent)

    @property
    def standing(self) -> Standing:
        """What all runs say so far; judged anew only after one has ended, for executors ask many times between."""
        if self._standing is None or self._standing.n_runs != len(self.runs):
            outlook = Outlook(self._config, self._trials, [*self._others, *proof_observations(self.evidence)])
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
        under_way = {spec.seed for spec in self._running if spec.purpose == purpose}
        seeds = self._folder.interrupted_seeds(number, purpose, self._config.budget.full_steps)
        return next((seed for seed in seeds if seed not in done | under_way), None)

    def _forget_checkpoint(self, spec: TrialSpec) -> None:
        """Delete it, and what a save that was killed left beside it."""
        if spec.checkpoint is not None:
            path = Path(spec.checkpoint)
            for file in path.parent.glob(f"{path.stem}.*"):
                file.unlink(missing_ok=True)

    def _end(self, spec: TrialSpec) -> None:
        """Take a run off the list; specs that crossed a process border are told by what names them."""
        key = (spec.number, spec.purpose, spec.seed)
        self._running = [other for other in self._running if (other.number, other.purpose, other.seed) != key]

    def _keep(self, result: TrialResult, run: ProofRun | None) -> None:
        """Store a run and its row with the study, each under a name of its own."""
        entry = {"run": run and dataclasses.asdict(run), "row": finite_or_none(confirmation_row(result))}
        self._study.set_attribute(f"{PROOF_RUN}{self._n_kept:06d}", entry)
        self._n_kept += 1

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
        self._running.append(spec)
        self._listener.on_start(spec)
        return spec


def _proof_run(result: TrialResult, observation: Observation | None) -> ProofRun:
    return ProofRun(
        candidate=result.spec.number,
        purpose="baseline" if result.spec.purpose == "baseline" else "confirmation",
        seed=result.spec.seed,
        is_clean=result.status == "completed" and not result.is_spiky and result.objective is not None,
        is_spiky=result.is_spiky,
        objective=result.objective,
        steps=result.steps,
        reason=result.reason,
        horizon=result.spec.full_steps,
        observation=observation.as_data() if observation else None,
        max_sharpness_ratio=largest(result.measurements, "sharpness_ratio"),
    )
