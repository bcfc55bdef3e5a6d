"""The callback in a real Trainer with a tiny random GPT-2."""

import copy
import logging

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

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


def train(folder, callbacks=(), model=None, kind=Trainer, arguments=TrainingArguments, resume=None, **options):
    model = model or tiny()
    given = {"max_steps": N_STEPS, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    fixed = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    args = arguments(output_dir=str(folder), seed=1, **given | fixed | options)
    kind(model=model, args=args, train_dataset=Tokens(), callbacks=list(callbacks)).train(resume_from_checkpoint=resume)
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
    first = callback.watch.readings
    train(tmp_path, [callback], model=model, learning_rate=1e-9)
    second = callback.watch.readings
    assert (len(first), len(second)) == (5, N_STEPS)
    assert [r.loss for r in second[:5]] == pytest.approx([r.loss for r in first], rel=1e-4)


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


class Peek(TrainerCallback):
    """Keeps the guard's state as training starts."""

    def __init__(self, watch):
        self.watch, self.state = watch, None

    def on_train_begin(self, args, state, control, **parts):
        self.state = self.watch.guard.state_dict()


@pytest.mark.parametrize("restores", [False, True])
def test_a_guard_goes_on_from_a_trainers_checkpoint_and_steps_are_counted_on(tmp_path, restores):
    first, again = StabilityCallback(guard="act"), StabilityCallback(guard="act", every=1)
    shared = {"learning_rate": 0.3, "restore_callback_states_from_checkpoint": restores}
    train(tmp_path, [first], max_steps=40, save_strategy="steps", save_steps=40, **shared)
    peek = Peek(again.watch)
    train(tmp_path, [again, peek], max_steps=42, resume=str(tmp_path / "checkpoint-40"), **shared)
    assert peek.state == first.watch.guard.state_dict()
    assert peek.state["n_steps"] == 40
    assert again.watch.guard.state_dict()["n_steps"] == 42
    assert [reading.step for reading in again.watch.readings] == [41, 42]


def test_a_training_from_the_start_begins_with_a_fresh_guard(tmp_path):
    callback = StabilityCallback(guard="act")
    train(tmp_path, [callback], learning_rate=0.3, max_steps=40)
    peek = Peek(callback.watch)
    train(tmp_path, [callback, peek], max_steps=1)
    assert peek.state["n_steps"] == 0


def test_a_guards_state_that_steps_without_a_guard_have_made_old_is_not_gone_on_from(tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.3}
    train(tmp_path, [StabilityCallback(guard="act")], max_steps=2, **saved)
    train(tmp_path, [StabilityCallback()], max_steps=4, resume=str(tmp_path / "checkpoint-2"), **saved)
    callback = StabilityCallback(guard="act")
    peek = Peek(callback.watch)
    train(tmp_path, [callback, peek], max_steps=6, resume=str(tmp_path / "checkpoint-4"), **saved)
    assert (peek.state["n_steps"], peek.state["recent_losses"]) == (4, [])


def test_a_guard_that_has_ended_leaves_no_state_in_later_checkpoints(tmp_path):
    ends = StabilityCallback(guard="act", loss_floor=100.0)  # above every loss: it ends at the first
    train(tmp_path, [ends], max_steps=4, save_strategy="steps", save_steps=2)
    assert ends.watch.guard_state() is None
    callback = StabilityCallback(guard="act")
    peek = Peek(callback.watch)
    train(tmp_path, [callback, peek], max_steps=5, resume=str(tmp_path / "checkpoint-4"))
    assert peek.state["recent_losses"] == []


class OfTwoGpus(TrainingArguments):
    """What the arguments are where one process sees two GPUs: the model is wrapped in a DataParallel."""

    n_gpu = 2


def test_a_trainer_that_splits_its_batches_over_gpus_trains_on_and_says_so_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    callback = StabilityCallback(every=1, sinks=[lambda alert: None], guard="suggest")
    watched = train(tmp_path, [callback], arguments=OfTwoGpus, per_device_train_batch_size=4)
    assert same(watched, train(tmp_path, arguments=OfTwoGpus, per_device_train_batch_size=4))
    assert callback.watch.readings == []
    assert caplog.text.count("this Trainer is not measured: its batches are split over 2 GPUs") == 1


class Awkward:
    """Outputs that a Trainer can use, and whose attributes raise."""

    def __init__(self, loss):
        self.first = loss

    def __getitem__(self, n):
        return self.first

    @property
    def loss(self):
        raise LookupError("no such thing here")


class AwkwardModel(Plain):
    def forward(self, input_ids, labels=None):
        return Awkward(super().forward(input_ids, labels)[0])


def test_what_fails_in_the_callback_ends_it_and_does_not_reach_the_training(tmp_path, caplog):
    callback = StabilityCallback(every=1, guard="act")
    torch.manual_seed(0)
    model = AwkwardModel(tuple)
    plain = train(tmp_path, model=copy.deepcopy(model))
    assert same(train(tmp_path, [callback], model=model), plain)
    assert callback.watch.readings == []
    assert caplog.text.count("this Trainer is no longer measured") == 1
    assert caplog.text.count("LookupError: no such thing here") == 1
