"""The callback in a real Lightning Trainer."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torchmetrics import CatMetric, MeanMetric, SumMetric

from stabletune import StabilityGuard
from stabletune.errors import MeasurementError
from stabletune.monitor.integrations.lightning import StabilityCallback
from stabletune.signals.gradient_norm import coming_gradient_norm

pytestmark = pytest.mark.filterwarnings("ignore")


class Regression(LightningModule):
    """A small net that logs its loss."""

    def __init__(self, n_optimizers=1, lr=1e-2):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        self.n_optimizers, self.lr, self.n_calls = n_optimizers, lr, 0
        self.automatic_optimization = n_optimizers == 1

    def training_step(self, batch, batch_idx):
        self.n_calls += 1
        loss = ((self.net(batch[0]) - batch[1]) ** 2).mean()
        self.log("loss", loss, on_step=True, prog_bar=True)
        return loss

    def configure_optimizers(self):
        made = [torch.optim.AdamW(self.parameters(), lr=self.lr) for _ in range(self.n_optimizers)]
        return made[0] if self.n_optimizers == 1 else made


def loader():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)


def trainer_of(folder, callbacks=(), **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"max_steps": 24, "accelerator": "cpu", "enable_model_summary": False}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **quiet | given | options)


def fit(folder, callbacks=(), module=None, **options):
    module = module or Regression()
    trainer_of(folder, callbacks, **options).fit(module, loader())
    return module


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_training_is_measured_and_is_bit_for_bit_what_it_is_without(tmp_path, options):
    callback = StabilityCallback(every=6)
    watched = fit(tmp_path / "a", [callback], **options)
    assert same(watched, fit(tmp_path / "b", **options))
    readings = callback.watch.readings
    assert [reading.step for reading in readings] == [6, 12, 18, 24]
    assert all(0.0 < reading.sharpness_ratio < 1e3 for reading in readings)


def test_the_loss_of_accumulated_batches_is_their_mean(tmp_path):
    callback = StabilityCallback(every=1)
    module = Regression(lr=1e-12)  # stays where it began
    fit(tmp_path, [callback], module, accumulate_grad_batches=4, max_steps=2)
    batches = [batch for batch in loader()]
    with torch.no_grad():
        losses = [float(((module.net(x) - y) ** 2).mean()) for x, y in batches]
    expected = [sum(losses[:4]) / 4, sum(losses[4:]) / 4]
    assert [reading.loss for reading in callback.watch.readings] == pytest.approx(expected, rel=1e-4)


def test_a_loss_of_ones_own_takes_the_place_of_training_step(tmp_path):
    def loss_fn(module, batch):
        return ((module.net(batch[0]) - batch[1]) ** 2).mean()

    callback, module = StabilityCallback(every=1, loss_fn=loss_fn), Regression()
    fit(tmp_path, [callback], module)
    assert module.n_calls == 24
    assert len(callback.watch.readings) == 24


class Peek(Callback):
    """Keeps the guard's state as training starts."""

    def __init__(self, watch):
        self.watch, self.state = watch, None

    def on_train_start(self, trainer, pl_module):
        self.state = self.watch.guard.state_dict()


def goes_on_from_a_checkpoint(folder, first, again, *, max_steps):
    """Forty steps under one callback, then on from their checkpoint under another, whose start is peeked at."""
    trainer = trainer_of(folder, [first], max_steps=40)
    trainer.fit(Regression(lr=2.0), loader())
    trainer.save_checkpoint(folder / "saved.ckpt")
    peek = Peek(again.watch)
    second = trainer_of(folder, [again, peek], max_steps=max_steps)
    second.fit(Regression(lr=2.0), loader(), ckpt_path=folder / "saved.ckpt", weights_only=False)
    return peek


def test_the_guards_state_is_saved_with_lightnings_checkpoints(tmp_path):
    first, again = StabilityCallback(guard="act"), StabilityCallback(guard="act")
    peek = goes_on_from_a_checkpoint(tmp_path, first, again, max_steps=41)
    assert peek.state == first.watch.guard.state_dict()
    assert peek.state["n_steps"] == 40


def test_steps_are_counted_on_after_a_checkpoint_and_its_guard_serves_one_training_only(tmp_path):
    first, again = StabilityCallback(guard="act"), StabilityCallback(guard="act", every=1)
    peek = goes_on_from_a_checkpoint(tmp_path, first, again, max_steps=42)
    assert [reading.step for reading in again.watch.readings] == [41, 42]
    third = trainer_of(tmp_path, [again, peek], max_steps=1)
    third.fit(Regression(lr=2.0), loader())
    assert peek.state["n_steps"] == 0


def test_a_state_of_a_guard_that_is_none_is_logged_and_the_training_goes_on(tmp_path, caplog):
    callback = StabilityCallback(guard="act")
    callback.load_state_dict({"guard": {"lr_scale": 0.5}})
    fit(tmp_path, [callback])
    assert "the guard begins anew: state: must be what state_dict() gave" in caplog.text
    assert callback.state_dict()["guard"]["n_steps"] == 24


class TakesNorms(Callback):
    """The gradient's norm before Lightning clips it, and the one that the watch goes by after the step."""

    def __init__(self, watch):
        self.watch, self.raw, self.noted = watch, [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.raw.append(coming_gradient_norm(optimizer))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(self.noted) < trainer.global_step:
            self.noted.append(self.watch.monitor.notes.gradient_norm())


def test_where_lightning_clips_the_gradient_is_taken_as_it_was_before(tmp_path):
    callback = StabilityCallback(every=6)
    norms = TakesNorms(callback.watch)
    fit(tmp_path, [callback, norms], gradient_clip_val=1e-3, accumulate_grad_batches=2)
    assert min(norms.raw) > 0.01
    assert norms.noted == pytest.approx(norms.raw, rel=1e-5)


class Breaks(Regression):
    def training_step(self, batch, batch_idx):
        if batch_idx == 5:
            raise RuntimeError("out of memory")
        return super().training_step(batch, batch_idx)


class Closed:
    def __init__(self):
        self.n_closed = 0

    def __call__(self, alert):
        pass

    def close(self):
        self.n_closed += 1


def test_a_training_that_raises_closes_the_sinks_and_gives_back_what_the_guard_holds(tmp_path):
    sink = Closed()
    callback = StabilityCallback(sinks=[sink], guard="act")
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, [callback], module=Breaks())
    assert sink.n_closed == 1
    StabilityGuard(callback.watch.monitor)  # which an optimizer that has one still would refuse


def test_two_optimizers_are_refused(tmp_path):
    with pytest.raises(MeasurementError, match="must return one optimizer, but got 2"):
        fit(tmp_path, [StabilityCallback()], Regression(n_optimizers=2))


class PassesOver(Regression):
    """Passes one batch over, as Lightning allows."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx == 3 else loss


def test_a_batch_that_is_passed_over_is_no_step(tmp_path):
    callback = StabilityCallback(every=1)
    watched = fit(tmp_path, [callback], module=PassesOver())
    assert same(watched, fit(tmp_path, module=PassesOver()))
    assert len(callback.watch.readings) > 15


class Manual(Regression):
    """Steps its optimizer by itself."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_manual_optimization_trains_on_and_it_is_said_that_it_is_not_measured(tmp_path, caplog):
    callback = StabilityCallback(every=1)
    assert same(fit(tmp_path, [callback], module=Manual()), fit(tmp_path, module=Manual()))
    assert callback.watch.readings == []
    assert caplog.text.count("is not measured by the callback") == 1


class Counts(Regression):
    """Has metrics that training_step updates."""

    def __init__(self):
        super().__init__()
        self.seen, self.mean, self.all = SumMetric(), MeanMetric(), CatMetric()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen.update(float(len(batch[0])))
        self.mean.update(loss.detach())
        self.all.update(loss.detach())
        return loss


def test_metrics_see_no_batch_that_is_only_computed_again(tmp_path):
    callback = StabilityCallback(every=2, sinks=[lambda alert: None])
    watched, plain = fit(tmp_path, [callback], module=Counts()), fit(tmp_path, module=Counts())
    assert callback.watch.readings
    assert float(watched.seen.compute()) == 24 * 8
    assert float(watched.mean.compute()) == float(plain.mean.compute())
    assert torch.equal(watched.all.compute(), plain.all.compute())
