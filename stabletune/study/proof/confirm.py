"""The proof: candidates run over the full horizon on fresh seeds, then the baseline on the winner's seeds."""

from __future__ import annotations

import dataclasses

import numpy as np

from stabletune.config import Config
from stabletune.records import Progress, Purpose, TrialResult, TrialSpec
from stabletune.results.curves import finite_or_none
from stabletune.results.rows import confirmation_row, largest
from stabletune.results.store import RunFolder
from stabletune.study.listener import Listener
from stabletune.study.optuna_study import SearchStudy
from stabletune.study.proof.candidates import Candidate
from stabletune.study.proof.plan import BASELINE, QUALIFIERS, Plan, ProofRun, Standing, plan_proof
from stabletune.study.specs import trial_spec

PROOF_RUN = "proof_run:"


class ConfirmationPhase:
    """A ``TrialSource`` of proof runs.

    Finished runs and the count of seeds used are attributes of the study: a run that a crash cut off is made again
    with a fresh seed, and no seed serves two proofs.
    """

    def __init__(
        self,
        config: Config,
        study: SearchStudy,
        folder: RunFolder,
        candidates: list[Candidate],
        *,
        n_trials: int,
        listener: Listener,
    ) -> None:
        self._config, self._study, self._folder, self._listener = config, study, folder, listener
        self._candidates = candidates
        kept = study.attributes(PROOF_RUN)
        everything = [ProofRun(**entry["run"]) for entry in kept if entry["run"]]
        self._n_kept = len(kept)
        self._steps_of_other_horizons = sum(r.steps for r in everything if r.horizon != config.budget.full_steps)
        self.runs = [run for run in everything if run.horizon == config.budget.full_steps]
        known = {c.number for c in candidates}
        proven = dict.fromkeys(r.candidate for r in self.runs if r.purpose == "confirmation")
        self.sent = [number for number in proven if number in known]
        self._fewest_sent = self._sent_before_an_end(n_trials)
        folder.confirmations.rewrite([entry["row"] for entry in kept])
        self._running: list[TrialSpec] = []
        self._planned: tuple[tuple[int, int], Plan] | None = None
        listener.on_proof(len(candidates), QUALIFIERS + 2 * config.budget.confirm_seeds)

    @property
    def is_over(self) -> bool:
        """Whether there is a winner with its baseline runs, or nothing survived."""
        plan = self._plan()
        if plan.winner is None:
            return plan.is_exhausted and not self._running
        return not self._baseline_seeds_missing(plan.winner) and not self._running

    @property
    def winner(self) -> Standing | None:
        """The proven candidate, if any."""
        return self._plan().winner

    @property
    def baseline_runs(self) -> list[ProofRun]:
        """The baseline's runs on the winner's seeds; the winner's own if it is the baseline."""
        if self.winner is None or self.winner.candidate.number == BASELINE:
            return list(self.winner.runs) if self.winner else []
        seeds = {run.seed for run in self.winner.runs}
        return [run for run in self.runs if run.purpose == "baseline" and run.seed in seeds]

    def next_spec(self) -> TrialSpec | None:
        """The next run that the plan wants and that is not under way."""
        plan = self._plan()
        if plan.winner is not None:
            under_way = {spec.seed for spec in self._running}
            seeds = [seed for seed in self._baseline_seeds_missing(plan.winner) if seed not in under_way]
            return self._start(BASELINE, "baseline", seeds[0]) if seeds else None
        if plan.wants_baseline and not any(spec.purpose == "baseline" for spec in self._running):
            return self._start(BASELINE, "baseline", self._study.fresh_seed())
        for candidate, n_wanted in plan.wanted:
            n_running = sum(
                spec.number == candidate.number and spec.purpose == "confirmation" for spec in self._running
            )
            if self._count_done(candidate.number) + n_running < n_wanted:
                if candidate.number not in self.sent:
                    self.sent.append(candidate.number)
                return self._start(candidate.number, "confirmation", self._study.fresh_seed())
        return None

    def on_progress(self, progress: Progress) -> bool:
        """A run goes on unless another seed of its candidate has already failed."""
        self._listener.on_progress(progress)
        return progress.purpose == "baseline" or not self._is_lost(progress.number)

    def on_result(self, result: TrialResult) -> None:
        """Write the run's files, then store it with the study."""
        self._running.remove(result.spec)
        self._folder.record(result)
        self.runs.append(_proof_run(result))
        self._keep(result, self.runs[-1])
        self._listener.on_result(result)

    def on_abandoned(self, spec: TrialSpec, steps: int) -> None:
        """Record a run that was ended because its candidate was dropped, or because the study was stopped."""
        self._running.remove(spec)
        if spec.purpose == "confirmation" and self._is_lost(spec.number):
            reason = f"step {steps}: no longer needed, because another seed of candidate {spec.number} was not clean."
            result = TrialResult(spec=spec, status="stopped", reason=reason, losses=np.full(steps, np.nan))
            self._folder.confirmations.write(confirmation_row(result))
            self._keep(result, None)
        self._study.add_abandoned_steps(steps)
        self._listener.on_abandoned(spec, steps)

    def conclude(self, n_trials: int) -> None:
        """Note what this proof has seen, so that trials of a later, larger budget get their chance."""
        self._study.set_attribute("proof_ended", {"n_trials": n_trials, "n_sent": len(self.sent)})

    @property
    def steps_spent(self) -> int:
        """Optimizer steps of every finished proof run of this study."""
        return self._steps_of_other_horizons + sum(run.steps for run in self.runs)

    @property
    def n_sent(self) -> int:
        """Candidates sent to this proof, the baseline among them if its short trial was clean."""
        is_baseline_candidate = any(c.number == BASELINE for c in self._candidates)
        return len({*self.sent, BASELINE} if is_baseline_candidate else self.sent)

    def _plan(self) -> Plan:
        """The plan, made anew only after a run has ended or a candidate was sent: executors ask many times between."""
        state = (len(self.runs), len(self.sent))
        if self._planned is None or self._planned[0] != state:
            plan = plan_proof(
                self._candidates,
                self.sent,
                self.runs,
                n_seeds=self._config.budget.confirm_seeds,
                fewest_sent=self._fewest_sent,
            )
            self._planned = (state, plan)
        return self._planned[1]

    def _sent_before_an_end(self, n_trials: int) -> int:
        """With trials that the last proof had not seen, one more handful is sent."""
        ended = self._study.attribute("proof_ended", None)
        return ended["n_sent"] + QUALIFIERS if ended and n_trials > ended["n_trials"] and self.sent else 0

    def _keep(self, result: TrialResult, run: ProofRun | None) -> None:
        """Store a run and its row with the study, each under a name of its own."""
        entry = {"run": run and dataclasses.asdict(run), "row": finite_or_none(confirmation_row(result))}
        self._study.set_attribute(f"{PROOF_RUN}{self._n_kept:06d}", entry)
        self._n_kept += 1

    def _count_done(self, number: int) -> int:
        """Finished runs that prove a candidate; the baseline's mark run proves the baseline."""
        mark = number == BASELINE and any(r.purpose == "baseline" for r in self.runs)
        return mark + sum(r.candidate == number and r.purpose == "confirmation" for r in self.runs)

    def _is_lost(self, number: int) -> bool:
        return any(r.candidate == number and r.purpose == "confirmation" and not r.is_clean for r in self.runs)

    def _baseline_seeds_missing(self, winner: Standing) -> list[int]:
        if winner.candidate.number == BASELINE:
            return []
        done = {run.seed for run in self.runs if run.purpose == "baseline"}
        return [run.seed for run in winner.runs if run.seed not in done]

    def _start(self, number: int, purpose: Purpose, seed: int) -> TrialSpec:
        values = next((c.values for c in self._candidates if c.number == number and purpose == "confirmation"), {})
        spec = trial_spec(self._config, number, values, purpose=purpose, seed=seed)
        self._running.append(spec)
        self._listener.on_start(spec)
        return spec


def _proof_run(result: TrialResult) -> ProofRun:
    return ProofRun(
        candidate=result.spec.number,
        purpose="baseline" if result.spec.purpose == "baseline" else "confirmation",
        seed=result.spec.seed,
        is_clean=result.status == "completed" and not result.is_spiky and result.objective is not None,
        is_spiky=result.is_spiky,
        spike_score=min(result.spike_score, 1e6),
        objective=result.objective,
        steps=result.steps,
        reason=result.reason,
        horizon=result.spec.full_steps,
        max_sharpness_ratio=largest(result.measurements, "sharpness_ratio"),
    )
