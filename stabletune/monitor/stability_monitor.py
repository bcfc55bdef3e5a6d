"""The one object a training loop talks to: counts steps, measures when due, returns what it read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stabletune.errors import MeasurementError
from stabletune.monitor.glance import glance
from stabletune.monitor.reading import GRAPH_COST, Probe, Reading
from stabletune.monitor.schedule import GLANCE_COST, LOOK_COST, make_schedule
from stabletune.monitor.shadow_reading import ShadowReader
from stabletune.monitor.step_notes import StepNotes, as_number, check_closure
from stabletune.monitor.work import CountedOnce, python_work
from stabletune.records import Measurement
from stabletune.signals.frozen_curvature import Foresight, fastest_growth
from stabletune.signals.optimizer_state.reading import check_optimizer, check_parameters, read_tensors
from stabletune.signals.v_hat_staleness import SecondMomentSums, sum_second_moments, v_hat_decay

MOST_SKIPPED = 24  # in a row at the start: a GradScaler would then have come down from 65536 to below 0.01
_log = logging.getLogger("stabletune")


class StabilityMonitor:
    """Watches how close training is to the edge where the loss of an adaptive optimizer spikes.

    Args:
        model: the module being trained, whose buffers, modes and gradients are left as they are.
        optimizer: torch's Adam, AdamW, NAdam, RAdam, RMSprop or Adagrad, or InstrumentedAdamW.
        probe: returns the loss on a fixed batch; takes the place of the closure given to ``step``.
        every: measure every field at each N-th step, with more products at ``every=1``; ``overhead`` is then ignored.
        overhead: share of the training cost that measuring may take, 0 < overhead <= 1; up to 100 steps' worth of it
            comes in advance, and two readings are promised to runs of 50 steps or more.
        steps: how many steps the run will have, if known: the budget is then planned over them.
        shadow_beta2: other values of beta2 whose sharpness ratio is bounded along the same trajectory, followed from
            here on; each holds one float per parameter, and its updates come on top of ``overhead``.
        shadow_exact: measure it for each of them too, at the cost of their own Hessian products.
        sharpness: measure the raw sharpness too, likewise; with an overhead at every fifth reading or so.
        start_step: how many steps the training has behind it, as after a checkpoint; readings are counted on from it.

    Raises:
        MeasurementError: the optimizer is none of these, or not one that ``shadow_beta2`` can follow, or holds no
            parameter of the model.
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        probe: Callable[[], Tensor] | None = None,
        every: int | None = None,
        overhead: float = 0.05,
        *,
        steps: int | None = None,
        shadow_beta2: Sequence[float] = (),
        shadow_exact: bool = False,
        sharpness: bool = False,
        start_step: int = 0,
    ) -> None:
        check_optimizer(optimizer)
        check_parameters(model, optimizer)
        if probe is not None and not callable(probe):
            raise ValueError(f"StabilityMonitor: probe must be None or a function, but got {probe!r}. Give a closure.")
        self.every, self.limit = every, overhead
        self.note: str | None = None
        self.notes = StepNotes(optimizer)
        self._model = model
        self._optimizer = optimizer
        self._probe = probe
        self._start_step = _checked_start(start_step)
        self._schedule = make_schedule(every, overhead, steps, start_step=start_step)
        shadows = _shadows(optimizer, shadow_beta2, is_exact=shadow_exact)
        self._reader = Probe(model, optimizer, is_thorough=every == 1, shadows=shadows, reads_sharpness=sharpness)
        self._foresight: Foresight | None = None
        self._n_steps = 0  # since the start step
        self._spent = 0.0
        self._before: SecondMomentSums | None = None
        self._measures_curvature = True
        self._has_read = False
        uncounted = python_work([p for group in optimizer.param_groups for p in group["params"]])
        self._glance_at_state = CountedOnce(self._glance, GLANCE_COST, uncounted)
        self._look_ahead = CountedOnce(self._frozen_ratio_and_growth, LOOK_COST, uncounted)

    @property
    def model(self) -> torch.nn.Module:
        """The model that is trained."""
        return self._model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that is watched."""
        return self._optimizer

    @property
    def n_steps(self) -> int:
        """Steps of the training so far."""
        return self._start_step + self._n_steps

    @property
    def spent(self) -> float:
        """What measuring has cost so far, in gradients (one forward and backward pass)."""
        shadows, gradient_work = self._reader.shadows, self._reader.gradient_work
        return self._spent + (shadows.nanoseconds / gradient_work if shadows is not None and gradient_work else 0.0)

    @property
    def overhead(self) -> float:
        """``spent`` as a share of the steps so far."""
        return self.spent / max(1, self._n_steps)

    def step(self, loss: Tensor | float, closure: Callable[[], Tensor] | None = None) -> Measurement | None:
        """Count a step and measure if it is due; call it after ``optimizer.step()``.

        With an overhead, some steps between measurements yield one of the fields without curvature alone, read from the
        gradients that the step left in ``p.grad``; not with a ``probe``, nor where these are gone, and of gradients
        that were clipped in place, as far as is known, only the oscillation (``note_gradient_norm``).

        Args:
            loss: the step's loss, a number or a scalar tensor (read only when a measurement is due).
            closure: recomputes the loss, without ``backward``; not needed with a ``probe``. Without either no
                curvature is read, which is logged once.

        Returns:
            The measurement, or None when none was due.

        Raises:
            TypeError: ``closure`` is no function.
            ValueError: ``loss`` is neither a number nor a scalar tensor.
            MeasurementError: the first reading fails, as where the loss cannot be differentiated twice. Everything is
                as it was before, the attempt is charged to the budget, and the next call may follow;
                ``forgo_curvature`` ends the attempts. Once a reading has succeeded none stops the training: what
                fails then, whatever the closure raises, is kept in ``note``, logged the first time, and tried again
                when the next reading is due.
        """
        check_closure(closure)
        self._n_steps += 1
        self.notes.settle()
        try:
            return self._step(loss, closure)
        except Exception as error:
            if not self._has_read:
                raise
            self._before = None
            where = "" if isinstance(error, MeasurementError) else f"step {self.n_steps}: {type(error).__name__}: "
            self._say(f"a reading failed and the training goes on: {where}{error}", note=f"{where}{error}")
            return None

    def measure(self, loss: Tensor | float, closure: Callable[[], Tensor] | None = None) -> Measurement:
        """Measure now, due or not, and charge the budget."""
        closure = self._probe or closure
        self._foresight = None
        try:
            reading = self._read(closure)
        except Exception as error:
            self._charge(self._measurement(loss, {}), GRAPH_COST)
            if isinstance(error, MeasurementError):
                raise MeasurementError(f"step {self.n_steps}: {error}") from error
            raise
        fields = {"v_hat_decay": self._decay(), "foreseen_sharpness_ratio": reading.foreseen} | reading.fields
        if self._schedule.extras(self._n_steps).oscillation:
            seen = self._glance_at_state(self._reader.gradient_work)
            self._spent += self._glance_at_state.cost
            fields |= {name: value for name, value in seen.items() if name.startswith("oscillation")}
        measurement = self._measurement(loss, fields)
        self._foresight = reading.foresight
        self._has_read |= measurement.sharpness_ratio is not None
        self._charge(measurement, reading.cost, foreseen=reading.foreseen)
        return measurement

    def glance(self, loss: Tensor | float, *, is_asked_for: bool = True) -> Measurement | None:
        """Read what needs neither a closure nor a product, if the share of the budget that is for this pays for it.

        Of what is left of it, more is for a glance that is asked for, as when a gradient begins to grow. None also
        where ``step`` would not read it: with ``every`` or a ``probe``, or without the step's gradients in ``p.grad``.
        """
        if self._probe is not None or not self._schedule.is_glance_due(self._n_steps, is_asked_for=is_asked_for):
            return None
        fields = self._glance_at_state(self._reader.gradient_work)
        self._spent += self._glance_at_state.cost
        self._schedule.record_glance(self._n_steps, self._glance_at_state.cost)
        return self._measurement(loss, fields) if fields else None

    def note_gradient_norm(self, norm: Tensor | float) -> None:
        """Take √Σ g² of the coming step's gradients from before the loop clipped or scaled them in ``p.grad``.

        To be called before ``optimizer.step()``, with what ``clip_grad_norm_`` returned, say. Alerts, a guard and the
        readings between two measurements then go by the raw gradient, else by the one that is left in ``p.grad``; and
        S counts that the step is smaller by as much, else it is too large by that factor.
        """
        self.notes.note_gradient_norm(norm)

    def charge(self, cost: float) -> None:
        """Book what is read beside the monitor for the same run, in gradients: fewer measurements will follow."""
        self._spent += cost
        self._schedule.charge(self._n_steps, cost)

    def go_on(self, step: int, *, spent: float) -> None:
        """Count on from ``step`` of a run that was interrupted, with what measuring had cost by then on the books."""
        self._n_steps = step
        self.charge(spent)

    def forgo_curvature(self) -> None:
        """From now on read only what needs no closure: v̂'s staleness and decay, update size, gradient, oscillation."""
        self._measures_curvature = False
        self.note = None
        self._spent = self.spent
        self._reader.shadows = None

    def _step(self, loss: Tensor | float, closure: Callable[[], Tensor] | None) -> Measurement | None:
        try:
            if self._schedule.is_look_due(self._n_steps) and not self._schedule.is_due(self._n_steps):
                self._look()
            if self._schedule.is_due(self._n_steps):
                return self.measure(loss, closure)
            return self.glance(loss, is_asked_for=False)
        finally:
            following = self._n_steps + 1
            is_next_due = self._schedule.is_due(following) or self._schedule.is_look_due(following)
            self._before = sum_second_moments(self._optimizer) if is_next_due else None

    def _read(self, closure: Callable[[], Tensor] | None) -> Reading:
        if closure is None and self._measures_curvature:
            self._say("S is not read: neither a closure nor a probe is given")
        if closure is None or not self._measures_curvature:
            return Reading(dict(self._glance()), self._glance_at_state.cost)
        extras, clip_factor = self._schedule.extras(self._n_steps), self.notes.clip_factor()
        reading = self._reader.read(closure, extras, clip_factor=clip_factor)
        if reading.is_before_first_step and self._n_steps > MOST_SKIPPED:
            why = f"the optimizer has taken no step in {self._n_steps} calls. Give the one that trains the model."
            self._say(f"S is not read: {why}", note=f"step {self.n_steps}: {why}")
        return reading

    def _say(self, what: str, *, note: str | None = None) -> None:
        """Keep it as the note, and log it if there was none."""
        if self.note is None:
            _log.warning("stabletune: %s", what)
        self.note = note or what

    def _charge(self, measurement: Measurement, cost: float, *, foreseen: float | None = None) -> None:
        self._spent += cost
        self._schedule.record(self._n_steps, measurement.sharpness_ratio, cost, foreseen=foreseen)

    def _decay(self) -> float | None:
        if self._before is None:
            return self._glance().get("v_hat_decay")
        return None if self.notes.had_other_beta2 else v_hat_decay(self._before, sum_second_moments(self._optimizer))

    def _glance(self) -> dict[str, float]:
        fields = glance(self._optimizer, self.notes.noted_norm)
        if self.notes.had_other_beta2:
            fields.pop("v_hat_decay", None)
        return fields

    def _look(self) -> None:
        ratio, growth = self._look_ahead(self._reader.gradient_work)
        self._spent += self._look_ahead.cost
        self._schedule.record_look(self._n_steps, ratio, growth=growth, cost=self._look_ahead.cost)

    def _frozen_ratio_and_growth(self) -> tuple[float | None, float]:
        tensors = read_tensors(self._optimizer, self.notes.clip_factor())
        with torch.no_grad():
            ratio = None if self._foresight is None else self._foresight.ratio_now(tensors)
        return ratio, fastest_growth(tensors)

    def _measurement(self, loss: Tensor | float, fields: dict[str, Any]) -> Measurement:
        return Measurement(
            step=self.n_steps,
            loss=as_number(loss),
            lr=float(self._optimizer.param_groups[0]["lr"]),
            **fields,
        )


def _checked_start(step: int) -> int:
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        rule = "StabilityMonitor: start_step must be a whole number of at least 0"
        raise ValueError(f"{rule}, but got {step!r}. Give the steps taken so far.")
    return step


def _shadows(optimizer: torch.optim.Optimizer, beta2: Sequence[float], *, is_exact: bool) -> ShadowReader | None:
    if beta2:
        return ShadowReader(optimizer, beta2, is_exact=is_exact)
    if is_exact:
        raise ValueError(
            "StabilityMonitor: shadow_exact needs shadow_beta2, but got none. Name the values of beta2 to be measured."
        )
    return None
