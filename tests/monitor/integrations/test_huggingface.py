"""The callback in a real Trainer with a tiny random GPT-2."""

import logging

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from stabletune import StabilityMonitor
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


def train(folder, callbacks=(), model=None, **options):
    model = model or tiny()
    given = {"max_steps": N_STEPS, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    fixed = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(output_dir=str(folder), seed=1, **given | fixed | options)
    trainer = Trainer(model=model, args=arguments, train_dataset=Tokens(), callbacks=list(callbacks))
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
