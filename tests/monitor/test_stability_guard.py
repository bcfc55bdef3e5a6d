"""The guard in real loops: what it prevents, what it leaves untouched, and that it can be audited and resumed."""

import copy
import json
import logging
import shutil
import statistics

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


def brake(guard, lr_scale):
    guard.load_state_dict({**guard.state_dict(), "brake": lr_scale})


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
    loop = Loop("act", log=tmp_path / "made" / "guard.jsonl")
    shutil.rmtree(tmp_path / "made")
    loop.run(700)
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


@pytest.mark.parametrize(
    ("make", "options", "cap"),
    [(torch.optim.RMSprop, {}, 0.9), (torch.optim.AdamW, {"betas": (0.9, 0.9)}, 0.95)],
)
def test_a_cap_that_cannot_be_made_is_not_in_the_decisions(make, options, cap):
    training = build(0, torch.device("cpu"))
    (batch,) = training.batches
    optimizer = make(training.model.parameters(), lr=0.01, **options)
    guard = StabilityGuard(
        StabilityMonitor(training.model, optimizer), "act", bounds=GuardBounds(lr_scale=1.0, beta2=cap)
    )
    for step in range(60):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch)
        loss.backward()
        optimizer.step()
        guard.step(loss * (5.0 if step == 40 else 1.0))
    assert [decision for decision in guard.decisions if decision.gradient_scale == 1.0] == []


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
    brake(loop.guard, 0.5)

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


def test_a_log_in_a_place_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Loop("act", log=tmp_path / "file" / "guard.jsonl")


def small(make=torch.optim.AdamW, mode="act", **options):
    """A small optimizer with its guard, and the parameter it trains."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = make(model.parameters(), lr=1e-2)
    return model, optimizer, StabilityGuard(StabilityMonitor(model, optimizer), mode, **options)


@pytest.mark.parametrize("mode", ["observe", "suggest", "act"])
def test_a_gradient_after_many_that_were_zero_stops_no_training(mode):
    model, optimizer, guard = small(mode=mode)
    x = torch.randn(8, 4)
    for step in range(60):
        optimizer.zero_grad()
        value = model(x).square().mean() * (step >= 30)
        loss = 1.0 + value - value.detach()
        loss.backward()
        optimizer.step()
        guard.step(loss)
    assert guard.decisions == []


def test_a_failure_inside_the_guard_ends_it_and_not_the_training(caplog):
    loop = Loop("act").run(50)
    loop.guard._policy.before_step = None
    loop.run(50)
    assert len(loop.losses) == 100
    assert caplog.text.count("the guard failed and ends; the training goes on") == 1


def braking_with_a_closure(fails_at=None):
    """Steps with a closure, the newest braked; of the step that fails the exception is caught."""
    model, optimizer, guard = small()
    x = torch.randn(8, 4)
    for step in range(33):

        def closure(step=step):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            if step == fails_at:
                raise RuntimeError("out of memory")
            return loss

        try:
            optimizer.step(closure)
        except RuntimeError:
            break
        guard.step(9.0 if step in (30, 31) else 1.0 + 0.01 * (step % 3))
    return optimizer, guard


def test_a_checkpoint_after_a_step_that_raised_knows_nothing_of_the_brake():
    optimizer, guard = braking_with_a_closure(fails_at=32)
    assert guard.lr_scale < 1.0
    (group,) = optimizer.state_dict()["param_groups"]
    assert (group["lr"], group["betas"]) == (1e-2, (0.9, 0.999))


def test_a_guard_that_is_removed_while_it_brakes_gives_everything_back():
    optimizer, guard = braking_with_a_closure(fails_at=32)
    guard.remove()
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"]) == (1e-2, (0.9, 0.999))


def test_what_a_scheduler_sets_after_a_step_that_raised_stays():
    loop = Loop("act", lr=0.05).run(300)
    brake(loop.guard, 0.5)

    def fail(optimizer, args, kwargs):
        raise RuntimeError("out of memory")

    hook = loop.optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError):
        loop.optimizer.step()
    hook.remove()
    loop.optimizer.param_groups[0]["lr"] = 0.123
    loop.optimizer.step()
    assert loop.optimizer.param_groups[0]["lr"] == 0.123


@pytest.mark.parametrize("as_keyword", [False, True])
def test_with_a_closure_the_gradient_that_leaps_is_the_one_that_is_limited(as_keyword):
    model, optimizer, guard = small(bounds=GuardBounds(lr_scale=1.0, beta2=None))
    x = torch.randn(8, 4)
    norms = []
    for step in range(55):

        def closure(step=step):
            optimizer.zero_grad()
            loss = (100.0 if step == 50 else 1.0) * (model(x) - 1.0).square().mean()
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
        norms.append(coming_gradient_norm(optimizer))
        guard.step(1.0)
        assert loss is not None
    (decision,) = guard.decisions
    assert decision.step == 51
    assert norms[50] == pytest.approx(decision.gradient_norm * decision.gradient_scale, rel=1e-4)
    assert norms[50] == pytest.approx(3.0 * statistics.median(norms[:50]), rel=1e-4)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, InstrumentedAdamW])
@pytest.mark.parametrize("at", [20, 50, 300])
def test_a_brake_makes_the_step_as_much_shorter_as_it_says(make, at):
    updates = []
    for is_braked in (False, True):
        parameter = torch.nn.Parameter(torch.ones(5))
        holder = torch.nn.Module()
        holder.weight = parameter
        optimizer = make([parameter], lr=1e-3)
        guard = StabilityGuard(StabilityMonitor(holder, optimizer), "act")
        for step in range(at + 1):
            optimizer.zero_grad()
            (parameter * torch.arange(1.0, 6.0)).sum().backward()
            before = parameter.detach().clone()
            optimizer.step()
            guard.step(5.0 if is_braked and step == at - 1 else 1.0 + 0.01 * (step % 3))
        updates.append(float((parameter.detach() - before).norm()))
    assert updates[1] / updates[0] == pytest.approx(0.5, rel=0.1)


def test_a_norm_is_that_of_the_gradient_without_the_scale_of_a_grad_scaler():
    model, optimizer, _ = small(mode="observe")
    model(torch.randn(8, 4)).square().mean().backward()
    plain = coming_gradient_norm(optimizer)
    for parameter in model.parameters():
        parameter.grad.mul_(1024.0)
    optimizer.grad_scale = torch.tensor(1024.0)
    assert coming_gradient_norm(optimizer) == pytest.approx(plain)


def test_a_monitor_is_asked_for():
    with pytest.raises(ValueError, match="monitor: must be a StabilityMonitor, but got NoneType"):
        StabilityGuard(None)
