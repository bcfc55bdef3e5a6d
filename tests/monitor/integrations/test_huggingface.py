"""The callback in a real Trainer with a tiny random GPT-2."""

import copy
import logging

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from stabletune import StabilityMonitor
from stabletune.monitor.alerts.webhook_sink import WebhookSink
from stabletune.monitor.integrations.huggingface import StabilityCallback

N_STEPS = 24


class Tokens(torch.utils.data.Dataset):
    """Random tokens, the same each time."""

    def __init__(self):
        self.ids = torch.randint(0, 40, (64, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, n):
        return {"input_ids": self.ids[n], "labels": self.ids[n]}


def tiny():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def train(folder, callbacks=(), model=None, kind=Trainer, **options):
    model = model or tiny()
    given = {"max_steps": N_STEPS, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    fixed = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(output_dir=str(folder), seed=1, **given | fixed | options)
    trainer = kind(model=model, args=arguments, train_dataset=Tokens(), callbacks=list(callbacks))
    trainer.train()
    return model


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_training_is_measured_and_is_bit_for_bit_what_it_is_without(tmp_path, options):
    callback = StabilityCallback(every=6)
    watched = train(tmp_path / "a", [callback], **options)
    assert same(watched, train(tmp_path / "b", **options))
    readings = callback.watch.readings
    assert [reading.step for reading in readings] == [6, 12, 18, 24]
    assert all(0.0 < reading.sharpness_ratio < 1e3 for reading in readings)
    assert all(3.0 < reading.loss < 3.7 for reading in readings)  # log 40 at first, whatever the micro-batches


def test_what_is_read_is_what_the_monitor_reads_in_a_loop_of_ones_own(tmp_path):
    callback = StabilityCallback(every=1)
    train(tmp_path, [callback], max_steps=3, weight_decay=0.01, lr_scheduler_type="constant", max_grad_norm=0.0)
    model, tokens = tiny().train(), Tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    assert [reading.step for reading in callback.watch.readings] == [1, 2, 3]
    monitor = StabilityMonitor(model, optimizer, every=1)
    # before the first step all batches of random tokens are alike: S agrees roughly, the closure being another batch
    batch = {"input_ids": tokens.ids[:8], "labels": tokens.ids[:8]}
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    own = monitor.step(loss, lambda: model(**batch).loss)
    assert callback.watch.readings[0].sharpness_ratio == pytest.approx(own.sharpness_ratio, rel=0.5)


def test_alerts_and_a_guard_come_with_it(tmp_path):
    found = []
    callback = StabilityCallback(sinks=[found.append], guard="act")
    train(tmp_path, [callback], learning_rate=0.3, max_steps=60)
    assert found
    assert callback.watch.guard.state_dict()["n_steps"] == 60


def test_a_trainer_whose_loss_is_not_the_models_trains_on_and_says_so_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    callback = StabilityCallback(every=1)
    train(tmp_path, [callback], label_smoothing_factor=0.1)
    assert callback.watch.readings == []
    assert caplog.text.count("this Trainer is not measured") == 1


class TrainsAnother(Trainer):
    """Its labels stay in the inputs, so that the model has a loss too, which is not the one trained."""

    def compute_loss(self, model, inputs, return_outputs=False, **options):
        outputs = model(**inputs)
        loss = outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


def test_a_trainer_that_computes_a_loss_of_its_own_is_not_measured_by_the_models(tmp_path, caplog):
    callback = StabilityCallback(every=1)
    train(tmp_path, [callback], kind=TrainsAnother)
    assert callback.watch.readings == []
    assert caplog.text.count("this Trainer is not measured") == 1


class Plain(torch.nn.Module):
    """A model that gives a dict or a tuple, as a Trainer allows."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.table = torch.nn.Embedding(40, 40)

    def forward(self, input_ids, labels=None):
        logits = self.table(input_ids)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits} if self.kind is dict else (loss, logits)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_a_model_that_gives_its_loss_in_a_dict_or_a_tuple_is_measured(tmp_path, kind):
    callback = StabilityCallback(every=5)
    train(tmp_path, [callback], model=Plain(kind))
    assert [reading.sharpness_ratio is not None for reading in callback.watch.readings] == [True] * 4


class Stops(TrainerCallback):
    """Cuts the first training off, as Ctrl-C does."""

    has_stopped = False

    def on_step_end(self, args, state, control, **parts):
        if not self.has_stopped and state.global_step == 5:
            self.has_stopped = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("guard", [None, "act"])
def test_after_a_training_that_was_cut_off_the_next_is_watched_like_the_first(tmp_path, guard):
    callback = StabilityCallback(every=1, guard=guard)
    model = tiny()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [callback, Stops()], model=model, learning_rate=1e-9)
    n_before = len(callback.watch.readings)
    train(tmp_path, [callback], model=model, learning_rate=1e-9)
    first, second = callback.watch.readings[:4], callback.watch.readings[n_before : n_before + 4]
    assert [r.loss for r in second] == pytest.approx([r.loss for r in first], rel=1e-4)


class Copies(TrainerCallback):
    """Copies and saves the whole model while it is trained, as an average of weights does."""

    def __init__(self, path):
        self.path = path

    def on_step_end(self, args, state, control, model=None, **parts):
        if state.global_step == 5:
            self.model = copy.deepcopy(model)
            torch.save(model, self.path)


def test_the_model_can_be_copied_and_saved_while_it_is_watched(tmp_path):
    copies = Copies(tmp_path / "model.pt")
    callback = StabilityCallback(every=2, sinks=[WebhookSink("http://127.0.0.1:9/")])
    train(tmp_path / "out", [callback, copies])
    n_before = len(callback.watch.readings)
    for model in (copies.model, torch.load(copies.path, weights_only=False)):
        ids = Tokens().ids[:2]
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
    assert len(callback.watch.readings) == n_before == 12
