"""Histories that a trial or a loop of one's own may come to, with numbers that are none in them."""

import dataclasses
import math

from hypothesis import strategies as st

from stabletune.judgement.history import History
from stabletune.judgement.spikes import SpikeDetector
from stabletune.records import BatchLook, Inspection, Measurement
from tests.properties.drawn_runs import EXTREME, NOT_FINITE, generators, runs
from tests.trial.specs import quadratic_spec

SIGNALS = [
    field.name
    for field in dataclasses.fields(Measurement)
    if "float" in str(field.type) and "tuple" not in str(field.type) and field.name not in ("loss", "lr")
]
ENERGIES = {"oscillation_energy", "oscillation_refill"}
USUAL = (0.0, 1e-6, 0.02, 0.5, 0.8, 0.96, 1.0, 1.3, 5.0, 60.0)
ODD_NORMS = (0.0, 0.0, *NOT_FINITE, *EXTREME)
ODD = (*NOT_FINITE, *EXTREME, -1.0)
lengths = st.integers(1, 160)
GROWS_FOR = 12
params = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.0, 1e-3, 10.0]),
        "beta1": st.sampled_from([0.0, 0.9, 0.9999]),
        "beta2": st.sampled_from([0.0, 0.5, 0.99, 0.9999, 1.0 - 2.0**-53]),
        "beta2_exponent": st.sampled_from([None, None, 0.8]),
        "max_grad_norm": st.sampled_from([None, None, 1.0]),
        "amsgrad": st.sampled_from([False, False, True]),
        "warmup_ratio": st.floats(0.0, 0.9),
    }
)


class Readings:
    """Random readings and looks; ``oddity`` is the share of numbers that are none."""

    def __init__(self, generator, oddity, share_read):
        self._generator = generator
        self._oddity = oddity
        self._share_read = share_read

    def chance(self, share):
        return self._generator.random() < share

    def number(self):
        palette = ODD if self.chance(self._oddity) else USUAL
        return palette[self._generator.integers(len(palette))]

    def numbers(self, most):
        return tuple(self.number() for _ in range(self._generator.integers(0, most + 1)))

    def measurement(self, step, loss, lr):
        fields = {name: self.number() for name in SIGNALS if self.chance(self._share_read)}
        for name in ENERGIES & fields.keys():  # sums of squares, the energy in units of the loss
            fields[name] = abs(fields[name] * (loss if name == "oscillation_energy" and math.isfinite(loss) else 1.0))
        return Measurement(step=step, loss=loss, lr=lr, largest_logits=self.numbers(2) or None, **fields)

    def of_growth(self, steps_left, step, loss, lr):
        """A reading at the edge of an oscillation that grows until the end."""
        energy = abs(self.number()) * 1.3**-steps_left
        fields = {"oscillation_energy": energy, "oscillation_refill": 0.3 * 1.3**-steps_left, "sharpness_ratio": 1.0}
        return Measurement(step=step, loss=loss, lr=lr, **fields)

    def look(self, step):
        suspect = self.batch(max(1, step - int(self._generator.integers(0, 2))))
        return Inspection(
            step=step,
            suspect=suspect,
            others=tuple(self.batch(max(1, step - k)) for k in range(int(self._generator.integers(0, 4)))),
            precise_loss=self.number() if self.chance(0.3) else None,
            lowest_precision=(None, "float16", "float32")[self._generator.integers(3)],
            largest_logits=self.numbers(2),
            has_finite_inputs=(None, True, False)[self._generator.integers(3)],
            is_repeat=self.chance(0.3),
        )

    def batch(self, step):
        norm = self.number() if self.chance(0.7) else None
        return BatchLook(step=step, loss_then=self.number(), loss=self.number(), gradient_norm=norm)


@dataclasses.dataclass
class Recorded:
    """Arrays of a run, and readings and looks of some steps; ``after`` feeds them to a history step by step."""

    spec: object
    losses: list
    norms: list
    rates: list
    loss_floor: float
    n_before: int
    readings: Readings
    every: int
    grows: bool

    def histories(self):
        """The one history after each step."""
        history = History(self.spec, SpikeDetector(self.loss_floor))
        history.begin_after(self.n_before)
        n_found = 0
        for loss, norm, lr in zip(self.losses, self.norms, self.rates, strict=True):
            history.add(loss, gradient_norm=norm, lr=lr)
            step, steps_left = history.step, len(self.losses) - len(history.losses)
            if self.grows and steps_left <= GROWS_FOR and steps_left % 4 == 0:
                history.measurements.append(self.readings.of_growth(steps_left, step, loss, lr))
            elif steps_left == 0 or step % self.every == 0:
                history.measurements.append(self.readings.measurement(step, loss, lr))
            is_new = len(history.spikes.episodes) > n_found or not math.isfinite(loss)
            n_found = len(history.spikes.episodes)
            if (is_new and self.readings.chance(0.8)) or self.readings.chance(0.01):
                history.inspections.append(self.readings.look(step))
            yield history


@st.composite
def recorded(draw):
    n_steps = draw(lengths)
    loss_floor, n_before = draw(st.sampled_from([0.0, 0.0, -1.0, 0.5])), draw(st.sampled_from([0, 0, 7]))
    losses, norms, rates = draw(runs(st.just(n_steps))), *(draw(runs(st.just(n_steps), ODD_NORMS)) for _ in range(2))
    if draw(st.booleans()):
        rates = [1e-3] * n_steps
    grows = draw(st.booleans())
    if grows:
        norms = [norm * 1.5 ** max(0, step - n_steps + GROWS_FOR) for step, norm in enumerate(norms)]
        losses = draw(st.just(losses) | st.just([1.0 + 0.01 * (step % 2) for step in range(n_steps)]))
    limits = st.tuples(st.sampled_from([1, n_before + n_steps]), st.sampled_from([math.nan, 0.02, 1.0, math.inf]))
    spec = quadratic_spec(
        steps=n_before + n_steps,
        full_steps=n_before + n_steps + draw(st.sampled_from([0, 1, 500])),
        params=draw(params),
        schedule=draw(st.sampled_from(["constant", "cosine"])),
        stops_on_spike=draw(st.booleans()),
        pace_limits=tuple(draw(st.lists(limits, min_size=1, max_size=2))),
    )
    losses = [max(loss, 1e-6) + loss_floor if math.isfinite(loss) and loss_floor else loss for loss in losses]
    readings = Readings(draw(generators), draw(st.sampled_from([0.0, 0.05, 0.5])), draw(st.sampled_from([0.1, 0.8])))
    return Recorded(
        spec, losses, norms, rates, loss_floor, n_before, readings, draw(st.sampled_from([1, 4, 50])), grows
    )
