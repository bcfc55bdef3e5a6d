"""Runs one trial in this process: a ``TrialSpec`` flows in, a ``TrialResult`` out, whatever the user's code does."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stabletune.errors import LossFloorError, StabletuneError, WorkloadError
from stabletune.judgement.diagnosis import diagnose
from stabletune.judgement.forecast import expected_onset, spike_risk
from stabletune.judgement.objective import objective_of
from stabletune.records import Progress, TrialResult, TrialSpec
from stabletune.trial.checkpoint import UnusableCheckpoint
from stabletune.trial.process_state import kept_process, reset_process, seed_everything
from stabletune.trial.standard_loop import run_standard_loop
from stabletune.trial.training import Training
from stabletune.trial.trial import Trial
from stabletune.trial.user_errors import MOST_OF_A_REASON, readable, told_by, traceback_of
from stabletune.trial.verdict import Verdict
from stabletune.trial.workload import keeps_own_loop, load_function


def run_trial(spec: TrialSpec, report: Callable[[Progress], bool] = lambda _: True) -> TrialResult:
    """Run one trial to its end.

    Args:
        spec: what to run.
        report: called about twice a second; returning False ends the trial as no longer wanted.

    Returns:
        The result; an exception in the user's code becomes status ``failed`` with its traceback.
    """
    started = time.monotonic()
    with kept_process():
        try:
            return _attempt(spec, report, started)
        except UnusableCheckpoint as error:
            Path(str(spec.checkpoint)).unlink(missing_ok=True)
            return _attempt(spec, report, started, note=f"started anew, because the checkpoint {error}")


def _attempt(
    spec: TrialSpec, report: Callable[[Progress], bool], started: float, *, note: str | None = None
) -> TrialResult:
    """Build and train once; ``note`` is a remark on it."""
    reset_process(spec)
    process, threads = os.getpid(), threading.enumerate()
    trial: Trial | None = None
    trace: str | None = None
    try:
        if spec.device == "cuda" and not torch.cuda.is_available():
            raise WorkloadError(
                "resources.gpus_per_trial: must be 0 where torch finds no GPU, but a trial asks for one. "
                "Set it to 0, or install a build of torch for this GPU."
            )
        function = load_function(spec.workload)
        seed_everything(spec.seed)
        if keeps_own_loop(function):
            trial = Trial(spec, report)
            function(trial, **spec.workload_args)
        else:
            training = function(spec.seed, torch.device(spec.device), **spec.workload_args)
            if not isinstance(training, Training):
                raise WorkloadError(
                    f"{spec.workload.function}: must return a stabletune.Training, "
                    f"but got {type(training).__name__}. Return Training(model=..., loss_fn=..., batches=...)."
                )
            trial = Trial(spec, report, loss_floor=training.loss_floor)
            if note is not None:
                trial.remark(note)
            run_standard_loop(trial, training)
        verdict = trial.verdict or _verdict_at_the_end(trial)
    except UnusableCheckpoint:
        raise
    except LossFloorError as error:
        verdict = Verdict("failed", str(error))  # it names its step itself
    except StabletuneError as error:
        verdict = Verdict("failed", f"{_where(trial)}: {error}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C, not the user's code
        folder = Path(spec.workload.path).parent if spec.workload.path is not None else None
        verdict = Verdict("failed", f"{_where(trial)}: the workload raised {told_by(error, folder)}")
        trace = traceback_of(error)
    finally:
        if os.getpid() != process:
            os._exit(1)  # user code forked, and its child came back here: the trial is the parent's
    n_left = sum(thread not in threads for thread in threading.enumerate())
    if trial is not None and n_left:
        trial.remark(f"{n_left} thread{'s' * (n_left != 1)} of the workload left running")
    return _result(spec, trial, verdict, trace=trace, seconds=time.monotonic() - started)


def _verdict_at_the_end(trial: Trial) -> Verdict:
    done, wanted = trial.history.step, trial.steps
    if done < wanted:
        raise WorkloadError(
            f"{trial.spec.workload.function}: must call trial.step {wanted} times or until it returns True, "
            f"but returned after {done}. Loop over range(trial.steps)."
        )
    if trial.spec.source == "eval" and trial.eval_value is None:
        raise WorkloadError(
            f"{trial.spec.workload.function}: must call trial.report_eval(value) for objective.source: eval, "
            "but did not. Call it after the loop."
        )
    return Verdict("completed", f"completed all {wanted} steps, {_spikes_sentence(trial)}.")


def _spikes_sentence(trial: Trial) -> str:
    n = len(trial.history.spikes.episodes)
    score = f"worst spike score {trial.history.spikes.worst_score:.2f} against the limit 1"
    return f"{n} spike{'s' * (n != 1)}, {score}"


def _where(trial: Trial | None) -> str:
    if trial is None:
        return "building"
    n_done = trial.n_whole_steps
    return f"after step {n_done}" if trial.is_over and n_done == trial.history.step else f"step {n_done + 1}"


def _result(
    spec: TrialSpec, trial: Trial | None, verdict: Verdict, *, trace: str | None, seconds: float
) -> TrialResult:
    if trial is None:
        return TrialResult(
            spec=spec,
            status=verdict.status,
            reason=readable(verdict.reason, MOST_OF_A_REASON),
            losses=np.zeros(0),
            traceback=trace,
            seconds=seconds,
        )
    history = trial.history
    reason = "; ".join([verdict.reason.rstrip("."), *trial.notes]) if trial.notes else verdict.reason
    return TrialResult(
        spec=spec,
        status=verdict.status,
        reason=readable(reason, MOST_OF_A_REASON),
        losses=np.array(history.losses, dtype=np.float64),
        measurements=tuple(history.measurements),
        episodes=tuple(history.spikes.episodes),
        spike_score=history.spikes.worst_score,
        objective=_objective(trial) if verdict.status == "completed" else None,
        overhead=trial.monitor.overhead if trial.monitor is not None else 0.0,
        seconds=seconds,
        risk=spike_risk(history) if verdict.status == "completed" else None,
        expected_onset=expected_onset(history) if verdict.status == "completed" else None,
        traceback=trace,
        device=_device_name(trial.device),
        gradient_norms=np.array(history.gradient_norms, dtype=np.float64),
        learning_rates=np.array(history.learning_rates, dtype=np.float64),
        inspections=tuple(history.inspections),
        diagnoses=diagnose(history),
        loss_floor=history.spikes.loss_floor,
    )


def _objective(trial: Trial) -> float | None:
    if trial.spec.source == "eval":
        value = trial.eval_value
        return value if value is not None and math.isfinite(value) else None
    floor = trial.history.spikes.loss_floor
    return objective_of(trial.spec.metric, trial.history.losses, loss_floor=floor, target=trial.spec.target)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
