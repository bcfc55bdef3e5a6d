"""What is exported, handed to the real tools: their own optimizers and schedules must do what was proven."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI
from transformers import Trainer, TrainingArguments

from stabletune import InstrumentedAdamW
from stabletune.results.exporters import export
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.schedules import SCHEDULES, lr_factor
from tests.monitor.integrations.test_huggingface import Tokens, tiny
from tests.results.runs import PARAMS

N_STEPS = 50
LR = 0.003


def recommendation(schedule="constant", **changes):
    params = {**PARAMS, "lr": LR, "beta1": 0.8, "beta2": 0.96, "eps": 1e-7, "weight_decay": 0.02, **changes}
    return Recommendation(settings_from(params, schedule), {"confirmed_steps": N_STEPS})


def proven(schedule, warmup_ratio):
    warmup_steps = round(N_STEPS * warmup_ratio)
    return [LR * lr_factor(schedule, k, warmup_steps=warmup_steps, full_steps=N_STEPS) for k in range(N_STEPS)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1])
def test_hugging_faces_trainer_builds_the_optimizer_and_the_schedule(tmp_path, schedule, warmup_ratio):
    keys = yaml.safe_load(export(recommendation(schedule, warmup_ratio=warmup_ratio, max_grad_norm=2.0), "huggingface"))
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **keys)
    trainer = Trainer(model=tiny(), args=arguments, train_dataset=Tokens())
    trainer.create_optimizer_and_scheduler(arguments.max_steps)
    optimizer, rates = trainer.optimizer, []
    for _ in range(N_STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        trainer.lr_scheduler.step()
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.96), 1e-7, 0.02)
    assert arguments.max_grad_norm == 2.0
    assert rates == pytest.approx(proven(schedule, warmup_ratio), rel=1e-6, abs=1e-12)


class Plain(LightningModule):
    """A module that leaves its optimizer to the command line."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()


@pytest.mark.parametrize("changes", [{}, {"max_grad_norm": 2.0}, {"update_clip": 1.0}], ids=str)
def test_lightnings_command_line_builds_the_optimizer_and_the_clipping(tmp_path, changes):
    (tmp_path / "config.yaml").write_text(export(recommendation(**changes), "lightning"))
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    arguments = ["--config", str(tmp_path / "config.yaml")]
    cli = LightningCLI(Plain, run=False, args=arguments, save_config_callback=None, trainer_defaults=quiet)
    optimizer = cli.model.configure_optimizers()
    group = optimizer.param_groups[0]
    assert type(optimizer) is (InstrumentedAdamW if "update_clip" in changes else torch.optim.AdamW)
    assert (group["lr"], tuple(group["betas"]), group["eps"], group["weight_decay"]) == (LR, (0.8, 0.96), 1e-7, 0.02)
    assert group.get("update_clip") == changes.get("update_clip")
    assert cli.trainer.gradient_clip_val == changes.get("max_grad_norm")
    assert cli.trainer.max_steps == N_STEPS


OPTAX_STEPS = """
import json, sys
import jax.numpy as jnp
import optax

names = {}
exec(open(sys.argv[1]).read(), names)
start, gradients = json.load(open(sys.argv[2]))
params = jnp.asarray(start)
state = names["optimizer"].init(params)
for gradient in gradients:
    updates, state = names["optimizer"].update(jnp.asarray(gradient), state, params)
    params = optax.apply_updates(params, updates)
print(json.dumps([float(value) for value in params]))
"""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1])
def test_optax_takes_the_steps_of_torchs_adamw(tmp_path, schedule, warmup_ratio):
    rng = np.random.default_rng(0)
    start, gradients = [1.0, -2.0, 0.5], rng.normal(0.0, 1.0, (N_STEPS, 3)).tolist()
    settings = recommendation(schedule, warmup_ratio=warmup_ratio, max_grad_norm=1.0)
    (tmp_path / "exported.py").write_text(export(settings, "optax"))
    (tmp_path / "given.json").write_text(json.dumps([start, gradients]))
    # in a process of its own: JAX's threads and Ray's forks do not go together
    command = [sys.executable, "-c", OPTAX_STEPS, str(tmp_path / "exported.py"), str(tmp_path / "given.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = torch.nn.Parameter(torch.tensor(start))
    proved = recommendation(schedule, warmup_ratio=warmup_ratio)
    optimizer = proved.build_optimizer([ours])
    scheduler = proved.build_schedule(optimizer)
    for gradient in gradients:
        ours.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([ours], 1.0)
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(json.loads(done.stdout), ours.detach().numpy(), rtol=2e-4, atol=2e-6)
