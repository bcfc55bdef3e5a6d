"""Looks closer where a loss stands out: the batch of that step beside others, in float64, and its logits.

In: every step's loss and closure. Out: an ``Inspection`` at the first step of a spike and another some steps later;
now and then the largest logits. Nothing of the training is changed.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stabletune.monitor.inspection.kept_batch import KeptBatch, keep
from stabletune.records import BatchLook, Inspection
from stabletune.signals.forward_pass import loss_in_float64, watch_forward
from stabletune.signals.gradient_norm import gradient_norm
from stabletune.signals.undisturbed import undisturbed

N_KEPT = 4
N_OTHERS = 3
REPEAT_AFTER = 10
STANDS_OUT = 3.0
REPEATED_FROM = 1.1
WINDOW = 50
FEWEST = 10
LOOK_COST = 1.0
FORWARD_COST = 0.4
SAME = 1e-3  # of the loss, between two passes: more, and it is random, as under dropout


class Inspector:
    """Keeps the last batches of a run, and compares the one that stood out with those around it.

    Args:
        model: whose buffers and modes are kept.
        optimizer: whose parameters the loss depends on.
        loss_floor: the loss's lower bound.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss_floor: float = 0.0) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss_floor = loss_floor
        self._kept: deque[KeptBatch] = deque(maxlen=N_KEPT)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._suspect: KeptBatch | None = None
        self._alarmed: KeptBatch | None = None
        self._repeat_at: int | None = None
        self.spent = 0.0

    def remember(self, step: int, loss: float, closure: Callable[[], Tensor], norm: float) -> bool:
        """Keep the step's batch; return whether its gradient stands out from the fifty before it."""
        batch = keep(step, loss, closure)
        self._kept.append(batch)
        usual = statistics.median(self._norms) if len(self._norms) >= FEWEST else math.inf
        is_alarm = not norm <= STANDS_OUT * usual and math.isfinite(usual)
        if is_alarm and (self._alarmed is None or step - self._alarmed.step > N_KEPT):
            self._alarmed = batch
        if math.isfinite(norm):
            self._norms.append(norm)
        return is_alarm

    def has_batch(self, step: int) -> bool:
        """Whether the batch of this step is kept."""
        return bool(self._kept) and self._kept[-1].step == step

    def inspect(self, step: int) -> Inspection:
        """Compare the batch that stood out at this step, or just before it, with those kept from before it."""
        newest = self._kept[-1]
        alarmed = self._alarmed
        self._suspect = alarmed if alarmed is not None and step - alarmed.step < N_OTHERS else newest
        others = [batch for batch in self._kept if batch.step < self._suspect.step]
        found = self._look(step, others[-N_OTHERS:], is_repeat=False)
        self._repeat_at = step + REPEAT_AFTER if self._stands_out(found) else None
        return found

    def is_repeat_due(self, step: int, *, is_over: bool) -> bool:
        """Whether the suspect is to be compared anew: ten steps later, or when the trial ends before that."""
        return self._repeat_at is not None and (step >= self._repeat_at or is_over)

    def repeat(self, step: int) -> Inspection | None:
        """Compare the suspect with the batches that came after it; None where none has."""
        self._repeat_at = None
        assert self._suspect is not None
        others = [batch for batch in self._kept if batch.step > self._suspect.step]
        return self._look(step, others[-N_OTHERS:], is_repeat=True) if others else None

    def logits(self, closure: Callable[[], Tensor]) -> tuple[float, ...]:
        """Return the largest input of each softmax in the forward pass of ``closure``."""
        with undisturbed(self._model, self._params):
            self.spent += FORWARD_COST
            return tuple(watch_forward(closure).largest_logits)

    @property
    def _params(self) -> list[torch.nn.Parameter]:
        """What the loss is differentiated by now: a run may freeze parameters on its way."""
        return [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]

    def _look(self, step: int, others: Sequence[KeptBatch], *, is_repeat: bool) -> Inspection:
        assert self._suspect is not None
        with undisturbed(self._model, self._params):
            suspect = self._evaluate(self._suspect)
            looks = tuple(self._evaluate(batch, with_gradient=batch is others[-1]) for batch in others)
            if is_repeat:
                return Inspection(step=step, suspect=suspect, others=looks, is_repeat=True)
            seen = watch_forward(self._suspect.loss_now)
            is_the_same = math.isclose(seen.loss, suspect.loss, rel_tol=SAME) or not math.isfinite(suspect.loss)
            precise = loss_in_float64(self._suspect.loss_now) if is_the_same else None
        self.spent += 3 * FORWARD_COST
        return Inspection(
            step=step,
            suspect=suspect,
            others=looks,
            precise_loss=precise,
            lowest_precision=None if seen.narrowest is None else str(seen.narrowest).removeprefix("torch."),
            largest_logits=tuple(seen.largest_logits),
            has_finite_inputs=self._suspect.has_finite_inputs(),
        )

    def _evaluate(self, batch: KeptBatch, *, with_gradient: bool = True) -> BatchLook:
        self.spent += LOOK_COST if with_gradient else FORWARD_COST
        norm = None
        with torch.inference_mode(False), torch.enable_grad():
            loss = batch.loss_now()
            if with_gradient:
                found = torch.autograd.grad(loss.sum(), self._params, allow_unused=True)
                norm = gradient_norm([g.to_dense() if g.is_sparse else g for g in found if g is not None])
        return BatchLook(step=batch.step, loss_then=batch.loss_then, loss=float(loss.detach()), gradient_norm=norm)

    def _stands_out(self, look: Inspection) -> bool:
        """Whether the suspect's loss or gradient is so far off the others' that a second look can confirm it."""
        losses = [other.loss - self._loss_floor for other in look.others]
        norms = [other.gradient_norm for other in look.others if other.gradient_norm is not None]
        level = look.suspect.loss - self._loss_floor
        is_loss_off = bool(losses) and not level <= REPEATED_FROM * statistics.median(losses)
        return is_loss_off or (bool(norms) and not (look.suspect.gradient_norm or 0.0) <= REPEATED_FROM * norms[-1])
