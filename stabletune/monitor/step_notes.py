"""What a loop tells of a step: its loss, and what the optimizer does not show: clipping in place, another beta2.

In: notes on the step to come, from the loop or a guard. Out: the raw gradient norm of a step, what its gradients were
scaled by, and whether its v̂ can be compared with the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer

from stabletune.signals.gradient_norm import coming_gradient_norm, held_gradient_norm

SAME = 0.01


class StepNotes:
    """Notes on the step to come and on the one just taken, of one optimizer; the first note hooks into its ``step``.

    Args:
        optimizer: whose gradients are asked for where nothing was noted.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._coming_norm: Tensor | float | None = None
        self._norm: Tensor | float | None = None
        self._has_other_beta2 = False
        self.had_other_beta2 = False
        self._is_hooked = self._has_turned = False

    def note_gradient_norm(self, norm: Tensor | float) -> None:
        """Of the step to come: √Σ g² of its gradients before they were clipped or scaled in ``p.grad``.

        Raises:
            ValueError: it is neither a number nor a tensor of one.
        """
        if norm.numel() != 1 if isinstance(norm, Tensor) else not isinstance(norm, (int, float)):
            got = f"a tensor of shape {tuple(norm.shape)}" if isinstance(norm, Tensor) else repr(norm)
            raise ValueError(
                f"norm: must be a number or a scalar tensor, but got {got}. Give what clip_grad_norm_ returns."
            )
        self._hook()
        self._coming_norm = norm

    def note_other_beta2(self) -> None:
        """Of the step to come: it is taken with another beta2 than its group has afterwards."""
        self._hook()
        self._has_other_beta2 = True

    @property
    def coming_norm(self) -> float | None:
        """√Σ g² of the step to come, if it was noted."""
        return None if self._coming_norm is None else float(self._coming_norm)

    @property
    def noted_norm(self) -> float | None:
        """√Σ g² of the step just taken, if it was noted."""
        return None if self._norm is None else float(self._norm)

    def gradient_norm(self) -> float:
        """√Σ g² of the step just taken: as noted, else of the gradients that are held; nan where none is."""
        noted = self.noted_norm
        return held_gradient_norm(self._optimizer) if noted is None else noted

    def clip_factor(self) -> float:
        """What the gradients of the step just taken were scaled by in place; 1 where that is not known.

        ‖p.grad‖ over the norm noted, once they differ by more than rounding: 1 % is less than S is known to.
        """
        noted = self.noted_norm
        if noted is None or not 0.0 < noted < math.inf:
            return 1.0
        factor = coming_gradient_norm(self._optimizer) / noted
        return factor if math.isfinite(factor) and factor > 0.0 and abs(factor - 1.0) > SAME else 1.0

    def _hook(self) -> None:
        if not self._is_hooked:
            self._is_hooked = True
            self._optimizer.register_step_post_hook(lambda optimizer, args, kwargs: self._turn_over())

    def settle(self) -> None:
        """The step to come is over, also where the optimizer took none, as a ``GradScaler`` that skips it."""
        if self._is_hooked and not self._has_turned:
            self._turn_over()
        self._has_turned = False

    def _turn_over(self) -> None:
        self._has_turned = True
        self._norm, self._coming_norm = self._coming_norm, None
        self.had_other_beta2, self._has_other_beta2 = self._has_other_beta2, False


def as_number(loss: Tensor | float) -> float:
    """A loss as a number; of a tensor this waits for its device.

    Raises:
        ValueError: it is neither a number nor a tensor of one.
    """
    try:
        return float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ValueError(f"loss: must be a number or a scalar tensor, but got {got}. Give loss.mean(), say.") from error


def check_closure(closure: Callable[[], Tensor] | None) -> None:
    """Raise TypeError unless it can be called, or is none."""
    if closure is not None and not callable(closure):
        raise TypeError(
            f"closure: must be a function that computes the loss again, but got {type(closure).__name__}. "
            "Give lambda: loss_fn(model, batch)."
        )
