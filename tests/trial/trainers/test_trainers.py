"""Trials of a real Hugging Face Trainer and of a real LightningModule, from workload files as a user writes them."""

import numpy as np
import pytest

from stabletune.trial.worker import run_trial
from tests.study.running import rows_of, run
from tests.trial.specs import spec_of_file

pytestmark = pytest.mark.filterwarnings("ignore")
HUGGING_FACE = """
    import tempfile, torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from stabletune.trial.trainers.huggingface import run_trainer

    def train(trial, *, accumulate=1, smoothing=0.0):
        config = GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                            eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        ids = torch.randint(0, 40, (64, 12), generator=torch.Generator().manual_seed(0))
        data = [{"input_ids": row, "labels": row} for row in ids]
        arguments = TrainingArguments(
            tempfile.mkdtemp(), report_to=[], use_cpu=True, disable_tqdm=True, seed=trial.seed,
            gradient_accumulation_steps=accumulate, label_smoothing_factor=smoothing)
        run_trainer(trial, Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=data))
"""
LIGHTNING = """
    import torch
    from lightning.pytorch import LightningModule
    from stabletune.trial.trainers.lightning import run_module

    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

        def training_step(self, batch, batch_idx):
            loss = ((self.net(batch[0]) - batch[1]) ** 2).mean()
            self.log("loss", loss)
            return loss

    def train(trial, *, accumulate=1):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
        module = Regression()
        run_module(trial, module, torch.utils.data.DataLoader(data, batch_size=8), accumulate_grad_batches=accumulate)
        if trial.spec.source == "eval":
            with torch.no_grad():
                trial.report_eval(float(((module.net(x) - x.sum(1, keepdim=True)) ** 2).mean()))
"""
FINE_TUNED = """
    import tempfile, torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
    from stabletune.trial.trainers.huggingface import run_trainer

    def build():
        return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=1, n_head=2,
                                          bos_token_id=0, eos_token_id=0, {dropout}))

    def data():
        ids = torch.randint(0, 40, (64, 12), generator=torch.Generator().manual_seed(0))
        return [{{"input_ids": row, "labels": row}} for row in ids[:{n_rows}]]

    def train(trial):
        arguments = TrainingArguments(tempfile.mkdtemp(), report_to=[], use_cpu=True, disable_tqdm=True)
        {given}
        run_trainer(trial, Trainer({named}, args=arguments, train_dataset=data()))
"""
NO_DROPOUT = "resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0"
SAME_WEIGHTS = {"named": "model=model", "given": "set_seed(0); model = build()"}
SEEDED = {
    "data order": FINE_TUNED.format(dropout=NO_DROPOUT, n_rows=64, **SAME_WEIGHTS),
    "dropout": FINE_TUNED.format(dropout="", n_rows=8, **SAME_WEIGHTS),
    "model_init": FINE_TUNED.format(dropout=NO_DROPOUT, n_rows=8, named="model_init=build", given=""),
}
LIGHTNING_SEEDED = """
    import torch
    from lightning import seed_everything
    from lightning.pytorch import LightningModule
    from stabletune.trial.trainers.lightning import run_module

    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout({dropout}), torch.nn.Linear(16, 1))

        def training_step(self, batch, batch_idx):
            return ((self.net(batch[0]) - batch[1]) ** 2).mean()

    def train(trial):
        seed_everything(42)
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
        run_module(trial, Regression(), torch.utils.data.DataLoader(data, batch_size=8, shuffle={shuffle}))
"""
SEEDED |= {
    "lightning's data order": LIGHTNING_SEEDED.format(dropout=0.0, shuffle=True),
    "lightning's dropout": LIGHTNING_SEEDED.format(dropout=0.5, shuffle=False),
}
LOOPS = {"hugging face": HUGGING_FACE, "lightning": LIGHTNING}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trial_runs_its_steps_is_measured_and_follows_its_own_schedule(tmp_path, name, accumulate):
    changes = {"steps": 30, "full_steps": 60, "schedule": "linear", "every": 10, "params": {"lr": 2e-3}}
    spec = spec_of_file(tmp_path, LOOPS[name], "train", workload_args={"accumulate": accumulate}, **changes)
    result = run_trial(spec)
    assert (result.status, result.steps) == ("completed", 30), result.reason
    assert [m.step for m in result.measurements if m.sharpness_ratio is not None] == [10, 20, 30]
    expected = 2e-3 * (1.0 - np.arange(30) / 60)
    assert result.learning_rates == pytest.approx(expected, abs=2e-3 / 60 * 1.01)  # before or after the schedule's step
    assert result.objective < np.median(result.losses[:5])


@pytest.mark.parametrize("name", LOOPS)
def test_a_trial_that_diverges_is_stopped(tmp_path, name):
    spec = spec_of_file(tmp_path, LOOPS[name], "train", steps=400, full_steps=400, params={"lr": 1e30})
    result = run_trial(spec)
    assert result.status in ("diverged", "stopped")
    assert result.steps < 400


@pytest.mark.parametrize("name", LOOPS)
def test_the_trials_clipping_is_in_force_and_no_other(tmp_path, name):
    def norms(clip):
        params = {"max_grad_norm": clip, "lr": 1e-3}
        return run_trial(spec_of_file(tmp_path, LOOPS[name], "train", steps=12, full_steps=12, params=params))

    free, clipped = norms(None), norms(1e-3)
    assert free.gradient_norms[0] == pytest.approx(clipped.gradient_norms[0], rel=1e-4)
    assert not np.array_equal(free.losses, clipped.losses)


@pytest.mark.parametrize("name", SEEDED)
def test_a_trials_seed_decides_where_the_user_gave_none_or_another(tmp_path, name):
    def losses(seed):
        result = run_trial(spec_of_file(tmp_path, SEEDED[name], "train", seed=seed, steps=8, full_steps=8))
        assert result.status == "completed", result.reason
        return result.losses

    first = losses(3)
    assert np.array_equal(first, losses(3))
    assert np.all(first != losses(4))


def test_the_trials_optimizer_trains_the_model_that_a_model_init_makes(tmp_path):
    params = {"lr": 0.03}
    code = SEEDED["model_init"]
    result = run_trial(spec_of_file(tmp_path, code, "train", steps=40, full_steps=40, params=params, every=10))
    assert result.status == "completed", result.reason
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert np.array_equal(result.learning_rates, np.full(40, 0.03))


def test_a_trainer_that_sees_several_gpus_is_a_clear_failure(tmp_path):
    code = (
        HUGGING_FACE.replace("arguments = TrainingArguments(", "arguments = OfTwoGpus(")
        + """
    class OfTwoGpus(TrainingArguments):
        n_gpu = 2
"""
    )
    result = run_trial(spec_of_file(tmp_path, code, "train", steps=5, full_steps=5))
    assert result.status == "failed"
    assert "must see one GPU at most, but sees 2" in result.reason


def test_a_trainer_whose_loss_is_not_the_models_is_a_clear_failure(tmp_path):
    spec = spec_of_file(tmp_path, HUGGING_FACE, "train", steps=5, full_steps=5, workload_args={"smoothing": 0.1})
    result = run_trial(spec)
    assert result.status == "failed"
    assert "the model's outputs must have a loss" in result.reason


def test_a_lightning_module_is_searched_by_its_eval_value(write_config, tmp_path):
    spec_of_file(tmp_path, LIGHTNING, "train")
    config = write_config(
        ("workload: quadratic", "workload: workload.py:train"),
        ("workload_args: {jitter: 0.1, curvatures: [1.0, 30.0]}", "objective: {source: eval}"),
        ("trials: 6, trial_steps: 60, full_steps: 150", "trials: 3, trial_steps: 20, full_steps: 30"),
    )
    outcome = run(config, tmp_path / "out")
    assert outcome.ending == "recommended"
    assert len(rows_of(tmp_path / "out" / "trials.csv")) == 3


def test_clipping_by_lightning_beside_the_trial_is_refused(tmp_path):
    text = LIGHTNING.replace("accumulate_grad_batches=accumulate)", "gradient_clip_val=1e-3)")
    result = run_trial(spec_of_file(tmp_path, text, function="train", overhead=None, every=20))
    assert result.status == "failed"
    assert "run_module: gradient_clip_val must be left out, but got 0.001. Search max_grad_norm" in result.reason
