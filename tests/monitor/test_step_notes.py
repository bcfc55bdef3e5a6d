"""Loops that clip or brake in place: monitor, alerts and guard go by the raw gradient where it is told."""

import math

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from stabletune import GuardBounds, InstrumentedAdamW, StabilityAlerts, StabilityGuard, StabilityMonitor
from stabletune.monitor.live_history import LiveHistory
from stabletune.signals.gradient_norm import coming_gradient_norm

LIMIT = 1e-4


class Loop:
    """A small regression whose loop clips every gradient to ``LIMIT``, and tells so or does not."""

    def __init__(self, *, tells=True, start_step=0, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.x = torch.randn(20, 3)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, betas=(0.9, 0.99))
        self.monitor = StabilityMonitor(self.model, self.optimizer, start_step=start_step, **options)
        self.tells, self.raw, self.readings, self.scale = tells, [], [], 1.0

    def closure(self):
        return self.scale * (self.model(self.x)[:, 0] - self.x[:, 0].sin()).square().mean()

    def step(self, limit=LIMIT):
        self.optimizer.zero_grad()
        loss = self.closure()
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), limit)
        self.raw.append(float(norm))
        if self.tells:
            self.monitor.note_gradient_norm(norm)
        self.optimizer.step()
        self.readings.append(self.monitor.step(loss, self.closure))
        return loss.detach()


def glances(loop):
    return [r for r in loop.readings if r is not None and r.sharpness_ratio is None and r.gradient_norm is not None]


def test_a_glance_at_clipped_gradients_has_the_raw_norm_and_no_staleness():
    loop = Loop(overhead=0.5)
    for _ in range(100):
        loop.step()
    assert min(loop.raw) > 2 * LIMIT
    seen = glances(loop)
    assert seen
    for reading in seen:
        assert reading.gradient_norm == pytest.approx(loop.raw[reading.step - 1])
        assert reading.v_hat_staleness is None and reading.update_rms is None and reading.v_hat_decay is None


def test_a_limit_that_is_not_reached_leaves_a_glance_whole():
    loop = Loop(overhead=0.5)
    for _ in range(100):
        loop.step(limit=1e6)
    assert glances(loop)
    assert all(reading.v_hat_staleness is not None for reading in glances(loop))


def test_a_note_is_of_one_step_alone():
    loop = Loop()
    loop.monitor.note_gradient_norm(123.0)
    loop.tells = False
    loop.step(limit=1e6)
    assert loop.monitor.notes.gradient_norm() == 123.0
    loop.step(limit=1e6)
    assert loop.monitor.notes.gradient_norm() == pytest.approx(loop.raw[-1])


@pytest.mark.parametrize("tells", [True, False])
def test_alerts_judge_by_the_raw_gradient(tells):
    loop = Loop(tells=tells)
    live = LiveHistory(loop.monitor)
    for _ in range(10):
        live.add(float(loop.step()), None)
    norms = loop.raw if tells else [LIMIT] * 10
    assert list(live.history.gradient_norms) == pytest.approx(norms, rel=1e-4)


def test_a_guard_tells_a_leap_by_the_raw_gradient_and_leaves_alone_what_was_clipped_enough():
    loop = Loop()
    guard = StabilityGuard(loop.monitor, "act")
    for step in range(60):
        loop.scale = 400.0 if step == 50 else 1.0
        guard.step(loop.step())
    assert loop.raw[50] > 100 * loop.raw[49]
    assert [decision.gradient_scale for decision in guard.decisions if decision.gradient_scale != 1.0] == []
    loose = Loop()
    guard = StabilityGuard(loose.monitor, "act")
    usual = None
    for step in range(51):
        usual = usual if step < 50 else sorted(loose.raw)[24:26]
        loose.scale = 400.0 if step == 50 else 1.0
        guard.step(loose.step(limit=LIMIT if step < 50 else 5.0))
    (decision,) = guard.decisions
    assert decision.gradient_norm == pytest.approx(loose.raw[-1]) and loose.raw[-1] > 5.0
    assert decision.gradient_scale * 5.0 == pytest.approx(3.0 * sum(usual) / 2, rel=1e-4)
    assert coming_gradient_norm(loose.optimizer) == pytest.approx(3.0 * sum(usual) / 2, rel=1e-4)


def test_what_a_guard_scales_is_read_as_it_was_before():
    loop = Loop(tells=False, overhead=0.5)
    guard, live = StabilityGuard(loop.monitor, "act"), LiveHistory(loop.monitor)
    for step in range(51):
        loop.scale = 400.0 if step == 50 else 1.0
        loss = loop.step(limit=1e9)
        live.add(float(loss), loop.readings[-1])
        guard.step(loss)
    assert guard.decisions[0].gradient_scale < 0.1
    assert list(live.history.gradient_norms) == pytest.approx(loop.raw, rel=1e-4)


def test_a_leap_that_a_guard_has_scaled_is_no_leap_any_more_where_only_the_guard_is_told_of_steps():
    loop = Loop(tells=False)
    guard = StabilityGuard(loop.monitor, "act")
    for step in range(80):
        loop.scale = 400.0 if step == 50 else 1.0
        loop.optimizer.zero_grad()
        loss = loop.closure()
        loss.backward()
        loop.optimizer.step()
        guard.step(loss)
    assert [d.step for d in guard.decisions if d.gradient_scale != 1.0] == [51]


def test_the_decay_of_v_hat_is_not_read_where_a_guard_lends_another_beta2():
    loop = Loop(tells=False, every=1)
    guard = StabilityGuard(loop.monitor, "act", bounds=GuardBounds(beta2=0.5))
    for step in range(40):
        if step == 20:
            guard.load_state_dict({**guard.state_dict(), "brake": 0.9})
        guard.step(loop.step(limit=1e9))
    n_braked = math.ceil(math.log(1.0 / 0.9) / math.log(1.01)) - 1
    assert [r.step for r in loop.readings if r.v_hat_decay is None] == list(range(21, 21 + n_braked))
    assert all(r.sharpness_ratio is not None for r in loop.readings)


def test_a_monitor_that_starts_late_reads_as_one_from_the_first_step_on_and_counts_on():
    early, late = Loop(overhead=0.5), Loop(overhead=0.5, start_step=10_000)
    for _ in range(100):
        early.step()
        late.step()
    counted = [(r.step + 10_000, r.sharpness_ratio) for r in early.readings if r is not None]
    assert len(counted) > 5
    assert [(r.step, r.sharpness_ratio) for r in late.readings if r is not None] == counted
    assert late.monitor.n_steps == 10_100


@pytest.mark.parametrize("start_step", [-1, 1.5, True, "7"])
def test_a_start_that_is_no_number_of_steps_is_refused(start_step):
    with pytest.raises(ValueError, match="start_step must be a whole number of at least 0"):
        Loop(start_step=start_step)


def test_alerts_that_are_attached_late_match_their_readings_and_say_the_trainings_steps():
    loop, found = Loop(tells=False, every=5), []
    for _ in range(200):
        loop.step(limit=1e9)
    alerts = StabilityAlerts(loop.monitor, [found.append])
    for step in range(201, 321):
        loop.scale = 400.0 if step == 310 else 1.0
        loss = loop.step(limit=1e9)
        alerts.step(loss, loop.readings[-1])
    spiked = found[-1]
    assert (spiked.step, spiked.level, spiked.sharpness_ratio_step) == (310, "spiked", 310)
    assert spiked.message.startswith("step 310: the loss spiked")
    assert spiked.sharpness_ratio == loop.readings[309].sharpness_ratio
    assert math.isfinite(spiked.v_hat_staleness)


class Scaled(Loop):
    """A loop with a GradScaler, whose step overflows where it is told to; it clips, and tells so or does not."""

    def __init__(self, overflows_at=(), **options):
        super().__init__(**options)
        self.scaler, self.overflows_at, self.norms = torch.amp.GradScaler("cpu", init_scale=4.0), overflows_at, []
        self.live = LiveHistory(self.monitor)

    def run(self, n_steps):
        for step in range(1, n_steps + 1):
            self.optimizer.zero_grad()
            loss = self.closure()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            if step in self.overflows_at:
                self.model[0].weight.grad[0, 0] = math.inf
                self.scaler._found_inf_per_device(self.optimizer)[torch.device("cpu")].fill_(1.0)
            norm = clip_grad_norm_(self.model.parameters(), LIMIT)
            if self.tells:
                self.monitor.note_gradient_norm(norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.live.add(float(loss.detach()), self.monitor.step(loss, self.closure))
        return list(self.live.history.gradient_norms)


def test_a_step_that_the_scaler_skips_has_the_norm_that_was_noted_for_it():
    norms = Scaled(overflows_at=(4, 7)).run(10)
    assert [step for step, norm in enumerate(norms, 1) if math.isinf(norm)] == [4, 7]
    assert norms[:3] == pytest.approx(Scaled().run(10)[:3])


def test_the_note_of_a_step_that_was_skipped_is_not_taken_for_the_next():
    loop = Loop(tells=False)
    loop.monitor.note_gradient_norm(1e9)
    loop.monitor.step(loop.closure(), loop.closure)  # without a step of the optimizer
    loop.step(limit=1e9)
    assert loop.monitor.notes.gradient_norm() == pytest.approx(loop.raw[-1])


@pytest.mark.parametrize("norm", [torch.ones(3), "1.0", None, [1.0]])
def test_what_is_no_norm_is_refused_where_it_is_told(norm):
    with pytest.raises(ValueError, match="norm: must be a number or a scalar tensor"):
        Loop().monitor.note_gradient_norm(norm)


def test_a_loop_that_scales_up_is_read_by_the_raw_gradient_too_and_a_norm_that_is_not_finite_is_not_read():
    for factor, noted in ((8.0, None), (8.0, math.nan)):
        loop = Loop(overhead=0.5, tells=False)
        for _ in range(100):
            loop.optimizer.zero_grad()
            loss = loop.closure()
            loss.backward()
            loop.raw.append(coming_gradient_norm(loop.optimizer))
            loop.monitor.note_gradient_norm(loop.raw[-1] if noted is None else noted)
            for p in loop.model.parameters():
                p.grad.mul_(factor)
            loop.optimizer.step()
            loop.readings.append(loop.monitor.step(loss, loop.closure))
        free = [r for r in loop.readings if r is not None and r.sharpness_ratio is None]
        assert free
        raw = [None if noted is not None else pytest.approx(loop.raw[r.step - 1]) for r in free]
        assert [r.gradient_norm for r in free] == raw


def test_every_nth_step_is_one_of_the_training():
    loop = Loop(every=10, start_step=105)
    for _ in range(30):
        loop.step()
    assert [r.step for r in loop.readings if r is not None] == [110, 120, 130]


def test_decisions_name_the_steps_of_the_training_though_its_first_was_skipped():
    loop = Loop(tells=False, start_step=1000)
    guard = StabilityGuard(loop.monitor, "act")
    loss = loop.closure()
    loop.monitor.step(loss, loop.closure)  # skipped
    guard.step(loss)
    for step in range(60):
        loop.scale = 400.0 if step == 50 else 1.0
        guard.step(loop.step(limit=1e9))
    assert next(d.step for d in guard.decisions if d.gradient_scale != 1.0) == 1052


def test_s_of_a_loop_that_clips_is_that_of_an_optimizer_that_clips_by_the_same_limit():
    limit, ours, theirs = 0.05, Loop(every=1), Loop(every=1, tells=False)
    theirs.optimizer = InstrumentedAdamW(
        theirs.model.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.01, max_grad_norm=limit
    )
    theirs.monitor = StabilityMonitor(theirs.model, theirs.optimizer, every=1)
    for _ in range(30):
        ours.step(limit)
        theirs.step(limit=1e9)
    assert min(ours.raw[:20]) > 1.5 * limit
    one, other = ([r.sharpness_ratio for r in loop.readings] for loop in (ours, theirs))
    assert one == pytest.approx(other, rel=1e-3)


def test_without_a_word_of_the_clipping_s_is_too_large_by_its_factor():
    limit, told, untold = 0.05, Loop(every=1), Loop(every=1, tells=False)
    told.step(limit)
    untold.step(limit)
    factor = limit / told.raw[0]
    assert factor < 0.5
    assert told.readings[0].sharpness_ratio == pytest.approx(factor * untold.readings[0].sharpness_ratio, rel=1e-3)


def test_what_is_no_closure_is_refused_where_it_is_given():
    loop = Loop()
    loss = loop.closure()
    for take in (loop.monitor.step, lambda *given: StabilityAlerts(loop.monitor).step(loss, None, *given[1:])):
        with pytest.raises(TypeError, match="closure: must be a function that computes the loss again, but got Tensor"):
            take(loss, loss)


def test_a_loss_of_many_numbers_is_refused_with_its_shape():
    loop = Loop(every=1)
    with pytest.raises(
        ValueError, match=r"loss: must be a number or a scalar tensor, but got a tensor of shape \(4, 1\)"
    ):
        loop.monitor.step(torch.ones(4, 1), loop.closure)


def test_that_no_closure_is_given_is_said_once(caplog):
    loop = Loop(every=1)
    for _ in range(3):
        loop.optimizer.zero_grad()
        loss = loop.closure()
        loss.backward()
        loop.optimizer.step()
        assert loop.monitor.step(loss).sharpness_ratio is None
    assert caplog.text.count("S is not read: neither a closure nor a probe is given") == 1
