"""One trial from the inside: what a training loop calls, be it stabletune's own or the user's.

A spec flows in; every loss and measurement passes through ``step``; what came of it flows out of ``history`` and
``verdict``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from stabletune.errors import MeasurementError, WorkloadError
from stabletune.hyperparameters import MITIGATIONS, scaled_groups
from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.monitor.inspection.spike_watch import SpikeWatch
from stabletune.monitor.stability_monitor import StabilityMonitor
from stabletune.optim.instrumented_adamw import InstrumentedAdamW
from stabletune.records import Inspection, Measurement, Progress, TrialSpec
from stabletune.schedules import lr_factor
from stabletune.trial.stoppers import load_stoppers
from stabletune.trial.verdict import Verdict

SECONDS_BETWEEN_REPORTS = 0.5
MOST_NEEDLESS_STEPS = 1000  # beyond as many as a loop over all steps may still make
_OPTIMIZER_KEYWORDS = (
    "lr",
    "eps",
    "weight_decay",
    "amsgrad",
    *MITIGATIONS,
)


class Trial:
    """What a workload with its own loop is given.

    Args:
        spec: what to run.
        report: called now and then with the progress; False means that the trial is no longer wanted.
        loss_floor: the loss's lower bound.
    """

    def __init__(self, spec: TrialSpec, report: Callable[[Progress], bool], *, loss_floor: float = 0.0) -> None:
        self.spec = spec
        self.seed = spec.seed
        self.steps = spec.steps
        self.device = torch.device(spec.device)
        self.params: Mapping[str, Any] = dict(spec.params)
        self.history = History(spec, SpikeDetector(loss_floor))
        self.verdict: Verdict | None = None
        self.eval_value: float | None = None
        self.monitor: StabilityMonitor | None = None
        self._remarks: list[str] = []
        self._report = report
        self._stoppers = load_stoppers()
        self._model: torch.nn.Module | None = None
        self._optimizer: InstrumentedAdamW | None = None
        self._watch: SpikeWatch | None = None
        self._process = os.getpid()
        self._began = self._reported_at = time.monotonic()
        self._n_needless_steps = 0
        self.n_whole_steps = 0
        self.saved_step = 0

    def watch(self, model: torch.nn.Module) -> None:
        """Name the model, so that measuring can restore its buffers and modes."""
        self._model = model
        self._attach_monitor()

    def build_optimizer(self, params: Iterable[torch.nn.Parameter] | Iterable[Mapping[str, Any]]) -> InstrumentedAdamW:
        """This trial's optimizer for parameters, or for groups with ``params``, ``weight_decay`` and ``lr_scale``."""
        entries = scaled_groups(params, float(self.params["lr"]))
        keywords = {name: self.params[name] for name in _OPTIMIZER_KEYWORDS}
        betas = (self.params["beta1"], self.params["beta2"])
        self._optimizer = InstrumentedAdamW(entries, betas=betas, **keywords)
        self._attach_monitor()
        return self._optimizer

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """This trial's schedule over the full horizon; the caller steps it after each optimizer step."""
        warmup_steps, full_steps, name = self.spec.warmup_steps, self.spec.full_steps, self.spec.schedule
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(name, step, warmup_steps=warmup_steps, full_steps=full_steps)
        )

    def step(
        self,
        loss: torch.Tensor | float,
        closure: Callable[[], torch.Tensor],
        *,
        own: Callable[[], torch.Tensor] | None = None,
    ) -> bool:
        """Record one optimizer step, measure if due, judge; True means: stop now.

        Args:
            loss: the step's loss, a scalar.
            closure: computes the loss anew on the step's batch (or a fixed one), for measuring.
            own: computes it on the step's batch where ``closure`` is on a fixed one, to tell a bad batch.

        Raises:
            WorkloadError: ``watch`` or ``build_optimizer`` was not called, the loss is no scalar, or the loop does not
                stop.
            LossFloorError: the loss is at or below ``loss_floor``.
        """
        if os.getpid() != self._process:
            os._exit(1)  # user code forked, and its child came back here: the trial is the parent's
        if self.is_over:
            self._count_needless_step()
            return True
        value = _as_float(loss)
        monitor, watch = self._attached()
        watch.record(value, own or closure)
        if not self.history.spikes.diverged:
            self._measure(value, closure, monitor, watch)
        watch.inspect()
        self.verdict = next((v for stopper in self._stoppers if (v := stopper(self.history)) is not None), None)
        watch.conclude(is_over=self.is_over)
        self._report_progress(value)
        self.n_whole_steps += 1
        return self.is_over

    def report_eval(self, value: float) -> None:
        """Give the final eval value, smaller is better; needed for ``objective.source: eval``."""
        self.eval_value = float(value)

    @property
    def is_over(self) -> bool:
        """Whether the trial was stopped or has done all its steps."""
        return self.verdict is not None or self.history.step >= self.steps

    @property
    def notes(self) -> list[str]:
        """What could not be measured, looked at or saved, since when and why; where the run was interrupted."""
        found = [*self._remarks, self._watch.note if self._watch is not None else None]
        return [note for note in found if note is not None]

    def remark(self, note: str) -> None:
        """Add a note to the sentence that says how the run ended."""
        self._remarks.append(note)

    def go_on(
        self,
        *,
        losses: Sequence[float],
        gradient_norms: Sequence[float],
        learning_rates: Sequence[float],
        measurements: Sequence[Measurement],
        inspections: Sequence[Inspection],
        spent: float,
        remarks: Sequence[str],
    ) -> None:
        """Take over the past of the run, which was interrupted, before the first step.

        ``spent``: what measuring has cost, in gradients.
        """
        monitor, watch = self._attached()
        for loss, norm, lr in zip(losses, gradient_norms, learning_rates, strict=True):
            self.history.add(loss, gradient_norm=norm, lr=lr)
        self.history.measurements += measurements
        self.history.inspections += inspections
        self.n_whole_steps = self.saved_step = self.history.step
        self._remarks += remarks
        monitor.go_on(self.history.step, spent=spent)
        watch.go_on()

    def _attach_monitor(self) -> None:
        """Build the monitor before the first step, which second moments of other beta2 must not miss."""
        if self._model is None or self._optimizer is None or self.history.step > 0:
            return
        schedule = {"every": self.spec.every} if self.spec.every else {"overhead": self.spec.overhead}
        self.monitor = StabilityMonitor(
            self._model,
            self._optimizer,
            steps=self.steps,
            shadow_beta2=self.spec.shadow_beta2,
            shadow_exact=self.spec.shadow_exact,
            sharpness=self.spec.sharpness,
            **schedule,
        )
        self._watch = SpikeWatch(self.history, self.monitor)

    def _measure(
        self, loss: float, closure: Callable[[], torch.Tensor], monitor: StabilityMonitor, watch: SpikeWatch
    ) -> None:
        try:
            measurement = watch.complete(loss, closure, monitor.step(loss, closure))
            if monitor.note is not None:
                raise MeasurementError(monitor.note)
        except MeasurementError as error:
            # the losses alone can judge this run: it goes on with the signals that need no second derivative
            monitor.forgo_curvature()
            self.remark(f"without curvature since {error}")
            return
        if measurement is not None:
            self.history.measurements.append(measurement)

    def _count_needless_step(self) -> None:
        self._n_needless_steps += 1
        if self._n_needless_steps > self.steps + MOST_NEEDLESS_STEPS:
            raise WorkloadError(
                f"{self.spec.workload.function}: must stop when trial.step returns True, but called it "
                f"{self._n_needless_steps} times after that. Break out of the loop there."
            )

    def _attached(self) -> tuple[StabilityMonitor, SpikeWatch]:
        if self.monitor is None or self._watch is None:
            missing = "trial.watch(model)" if self._model is None else "trial.build_optimizer(model.parameters())"
            raise WorkloadError(
                f"{self.spec.workload.function}: {missing} must be called before trial.step, but it was not. "
                "Call it before the loop."
            )
        return self.monitor, self._watch

    def _report_progress(self, loss: float) -> None:
        now = time.monotonic()
        if now - self._reported_at < SECONDS_BETWEEN_REPORTS:
            return
        self._reported_at = now
        progress = Progress(
            number=self.spec.number,
            purpose=self.spec.purpose,
            seed=self.seed,
            step=self.history.step,
            steps=self.steps,
            loss=loss,
            sharpness_ratio=self.history.last("sharpness_ratio"),
            v_hat_staleness=self.history.last("v_hat_staleness"),
            sharpness=self.history.last("sharpness"),
            saved_step=self.saved_step,
        )
        if not self._report(progress) and self.verdict is None:
            self.verdict = Verdict("stopped", f"step {self.history.step}: the search no longer needed this run.")
        limit = self.spec.seconds
        if limit is not None and now - self._began > limit and not self.is_over:
            reason = f"not over within the {limit / 60.0:.3g} minutes that budget.trial_minutes gives it."
            self.verdict = Verdict("failed", f"step {self.history.step}: {reason}")


def _as_float(loss: torch.Tensor | float) -> float:
    if isinstance(loss, torch.Tensor):
        if loss.numel() != 1:
            raise WorkloadError(
                f"loss_fn: must return a scalar, but got a tensor of shape {tuple(loss.shape)}. "
                "Return the mean, for example loss.mean()."
            )
        return float(loss.detach())
    return float(loss)
