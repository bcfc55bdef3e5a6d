"""The guard in real loops: what it prevents, what it leaves untouched, and that it can be audited and resumed."""

import copy
import json
import logging

import pytest
import torch

from stabletune import GuardBounds, InstrumentedAdamW, StabilityGuard, StabilityMonitor
from stabletune.judgement.guard_policy import GuardPolicy
from stabletune.judgement.spikes import SpikeDetector
from stabletune.signals.gradient_norm import coming_gradient_norm
from stabletune.trial.workloads.tanh_regression import build


class Loop:
    """Full-batch tanh regression, which spikes at these settings, with a guard or without."""

    def __init__(self, mode=None, *, make=torch.optim.AdamW, lr=0.02, betas=(0.9, 0.999), **options):
        torch.manual_seed(0)
        self.training = build(0, torch.device("cpu"))
        (self.batch,) = self.training.batches
        self.optimizer = make(self.training.model.parameters(), lr=lr, betas=betas)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0 - step / 3000)
        self.losses, self.norms, self.lrs, self.betas = [], [], [], []
        self.guard = None
        if mode is not None:
            monitor = StabilityMonitor(self.training.model, self.optimizer)
            self.guard = StabilityGuard(monitor, mode, **options)
        # registered after the guard's: they see what it set for the step
        self.optimizer.register_step_pre_hook(self._note)

    def _note(self, optimizer, args, kwargs):
        self.lrs.append(optimizer.param_groups[0]["lr"])
        self.betas.append(optimizer.param_groups[0]["betas"])

    def run(self, n_steps):
        for _ in range(n_steps):
            self.optimizer.zero_grad()
            loss = self.training.loss_fn(self.training.model, self.batch)
            loss.backward()
            self.norms.append(coming_gradient_norm(self.optimizer))
            self.optimizer.step()
            self.schedule.step()
            if self.guard is not None:
                self.guard.step(loss)
            self.losses.append(float(loss.detach()))
        return self


def steps_in_spikes(losses):
    judge = SpikeDetector()
    return sum(judge.update(loss) > 1.0 for loss in losses)


@pytest.fixture(scope="module")
def untouched():
    return Loop().run(1500)


@pytest.fixture(scope="module")
def guarded():
    return Loop("act").run(1500)


def test_a_guard_that_acts_prevents_four_of_five_steps_in_spikes(untouched, guarded):
    before = steps_in_spikes(untouched.losses)
    assert before >= 10
    assert steps_in_spikes(guarded.losses) <= 0.2 * before
    assert guarded.losses[-1] <= 1.5 * untouched.losses[-1]


@pytest.mark.parametrize("mode", ["observe", "suggest"])
def test_a_guard_that_does_not_act_changes_nothing_bit_for_bit(untouched, mode):
    loop = Loop(mode).run(1500)
    assert loop.losses == untouched.losses
    assert bool(loop.guard.decisions) == (mode == "suggest")


def test_every_change_is_within_bounds_and_given_back_after_the_step(guarded):
    scheduled = [0.02 * (1.0 - step / 3000) for step in range(1500)]
    scales = [lr / own for lr, own in zip(guarded.lrs, scheduled, strict=True)]
    assert 0.1 - 1e-9 <= min(scales) <= 0.5
    assert max(scales) == pytest.approx(1.0)
    assert {betas[1] for betas in guarded.betas} == {0.9, 0.999}
    group = guarded.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.02 * 0.5)
    assert group["betas"] == (0.9, 0.999)


def test_its_decisions_can_be_replayed_from_losses_and_gradient_norms(guarded):
    policy, replayed = GuardPolicy(), []
    for loss, norm in zip(guarded.losses, guarded.norms, strict=True):
        replayed.append(policy.before_step(norm))
        policy.after_step(loss)
    assert [decision for decision in replayed if decision is not None] == guarded.guard.decisions


def test_each_decision_is_a_line_of_its_log(tmp_path):
    loop = Loop("act", log=tmp_path / "guard.jsonl").run(700)
    lines = [json.loads(line) for line in (tmp_path / "guard.jsonl").read_text().splitlines()]
    assert len(lines) == len(loop.guard.decisions) > 1
    assert lines[0]["reason"] == loop.guard.decisions[0].reason
    assert (lines[0]["version"], lines[0]["mode"]) == (1, "act")


def test_a_log_that_cannot_be_written_stops_no_training(tmp_path, caplog):
    loop = Loop("act", log=tmp_path / "missing" / "guard.jsonl").run(700)
    assert len(loop.losses) == 700
    assert caplog.text.count("no longer written") == 1


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, InstrumentedAdamW])
@pytest.mark.parametrize("to", [0.9, 0.0, 0.9999])
def test_v_hat_does_not_leap_where_beta2_changes(make, to):
    loop = Loop("act", make=make).run(30)
    (group,) = loop.optimizer.param_groups
    parameter = group["params"][0]

    def v_hat():
        state, beta2 = loop.optimizer.state[parameter], group["betas"][1]
        return state["exp_avg_sq"] / (1.0 - beta2 ** float(state["step"]))

    before = v_hat().clone()
    loop.guard._set_beta2(group, to)
    torch.testing.assert_close(v_hat(), before, rtol=1e-5, atol=0.0)
    loop.guard._set_beta2(group, 0.999)
    torch.testing.assert_close(v_hat(), before, rtol=1e-5, atol=0.0)


def test_a_run_that_goes_on_from_a_checkpoint_is_the_run_that_was_not_interrupted(guarded):
    first = Loop("act").run(650)
    saved = copy.deepcopy(
        [first.training.model.state_dict(), first.optimizer.state_dict(), first.schedule.state_dict()]
    )
    state = json.loads(json.dumps(first.guard.state_dict()))  # as plain as JSON
    second = Loop("act")
    second.training.model.load_state_dict(saved[0])
    second.optimizer.load_state_dict(saved[1])
    second.schedule.load_state_dict(saved[2])
    second.guard.load_state_dict(state)
    assert first.losses + second.run(850).losses == guarded.losses


def test_bounds_that_forbid_everything_change_nothing(untouched):
    bounds = GuardBounds(lr_scale=1.0, beta2=None, limits_gradients=False)
    assert Loop("act", bounds=bounds).run(600).losses == untouched.losses[:600]


def test_a_guard_that_is_removed_leaves_the_optimizer_alone(untouched):
    loop = Loop("act")
    loop.guard.remove()
    assert loop.run(600).losses == untouched.losses[:600]


def test_a_loss_at_its_floor_ends_the_guarding_and_not_the_training(caplog):
    caplog.set_level(logging.WARNING)
    loop = Loop("act", loss_floor=100.0).run(50)
    assert len(loop.losses) == 50
    assert "the guard ends" in caplog.text


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: must be one of observe, suggest, act, but got 'brake'"):
        Loop("brake")


def test_an_optimizer_without_betas_has_its_rate_scaled():
    torch.manual_seed(0)
    training = build(0, torch.device("cpu"))
    (batch,) = training.batches
    optimizer = torch.optim.RMSprop(training.model.parameters(), lr=0.1, alpha=0.999)
    guard = StabilityGuard(StabilityMonitor(training.model, optimizer), "act")
    for _ in range(400):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch)
        loss.backward()
        optimizer.step()
        guard.step(loss)
    assert guard.decisions
    assert {decision.beta2_cap for decision in guard.decisions} <= {0.9, None}
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_step_that_raises_leaves_no_change_behind():
    loop = Loop("act", lr=0.05).run(300)
    loop.guard._policy.lr_scale = 0.5  # braking

    def fail(optimizer, args, kwargs):
        raise RuntimeError("out of memory")

    hook = loop.optimizer.register_step_pre_hook(fail)
    before = loop.optimizer.param_groups[0]["lr"]
    with pytest.raises(RuntimeError):
        loop.optimizer.step()
    hook.remove()
    loop.optimizer.step()
    group = loop.optimizer.param_groups[0]
    assert (group["lr"], group["betas"]) == (before, (0.9, 0.999))


def test_a_second_guard_is_refused_until_the_first_is_removed():
    loop = Loop("suggest")
    monitor = StabilityMonitor(loop.training.model, loop.optimizer)
    with pytest.raises(ValueError, match="its optimizer must have no guard yet"):
        StabilityGuard(monitor, "act")
    loop.guard.remove()
    StabilityGuard(monitor, "act")
