"""A run that is cut off goes on from its checkpoint as if nothing had happened."""

import dataclasses

import numpy as np
import pytest
import torch

from stabletune.records import Episode
from stabletune.trial.batch_stream import BatchStream, random_state, set_random_state
from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

MINIBATCHES = """
    import pathlib, numpy, random, torch
    from stabletune import Training

    def build(seed, device, *, kind="shuffled", cut=0):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.3),
                                    torch.nn.Tanh(), torch.nn.Linear(16, 1))
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(7))
        data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
        own = torch.Generator().manual_seed(11) if kind == "own generator" else None
        batches = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=own)
        if kind == "numpy":
            class Chosen:
                def __iter__(self):
                    chosen = numpy.random.permutation(40)
                    shift = random.random()
                    return iter([(x[chosen[i:i + 8]] + shift, x[chosen[i:i + 8]].sum(1, keepdim=True))
                                 for i in range(0, 40, 8)])
            batches = Chosen()
        n_steps, calls = [0], pathlib.Path(__file__).with_name("cut")

        def loss_fn(model, batch):
            if calls.exists() and model.training and torch.is_grad_enabled():
                n_steps[0] += 1
                if n_steps[0] > int(calls.read_text()):
                    raise KeyboardInterrupt
            return ((model(batch[0]) - batch[1]) ** 2).mean()

        return Training(model=model, loss_fn=loss_fn, batches=batches, accumulate=2)
"""
SPIKING = """
    import pathlib, torch
    from stabletune import Training

    def build(seed, device):
        model = torch.nn.Linear(2, 1)
        calls = [0]
        cut = pathlib.Path(__file__).with_name("cut")

        def loss_fn(model, batch):
            loss = model(batch).square().mean() + 1.0
            calls[0] += 1
            if cut.exists() and calls[0] > 150:
                raise KeyboardInterrupt
            return loss

        x = torch.ones(1, 2)
        return Training(model=model, loss_fn=loss_fn, batches=[*([x] * 80), *([9 * x] * 5), *([x] * 400)])
"""


def long_run(folder, code, **changes):
    given = {"purpose": "baseline", "steps": 120, "full_steps": 120, "stops_on_spike": False, "predicts": False}
    spec = spec_of_file(folder, code, **{**given, **changes})
    return dataclasses.replace(spec, checkpoint=str(folder / "run.pt"), checkpoint_seconds=0.0)


def cut_off(spec, folder, *, after):
    (folder / "cut").write_text(str(after))
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec)
    (folder / "cut").unlink()


@pytest.mark.parametrize("kind", ["shuffled", "own generator", "numpy"])
@pytest.mark.parametrize("after", [3, 171])
def test_a_run_that_was_cut_off_ends_with_the_very_same_losses(tmp_path, kind, after):
    changes = {
        "workload_args": {"kind": kind},
        "schedule": "cosine",
        "params": {"warmup_ratio": 0.1, "max_grad_norm": 1.0, "update_clip": 1.0, "second_moment_reset": 8.0},
    }
    spec = long_run(tmp_path, MINIBATCHES, **changes)
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    cut_off(spec, tmp_path, after=after)
    resumed = run_trial(spec)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    np.testing.assert_array_equal(resumed.learning_rates, whole.learning_rates)
    np.testing.assert_array_equal(resumed.gradient_norms, whole.gradient_norms)
    assert resumed.objective == whole.objective
    assert "gone on from step" in resumed.reason
    assert [m.step for m in resumed.measurements] == sorted({m.step for m in resumed.measurements})


def test_a_run_that_is_cut_off_twice_goes_on_twice(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES)
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    cut_off(spec, tmp_path, after=70)
    cut_off(spec, tmp_path, after=70)
    np.testing.assert_array_equal(run_trial(spec).losses, whole.losses)


def test_a_spike_before_the_interruption_counts_once(tmp_path):
    spec = long_run(tmp_path, SPIKING, steps=300, full_steps=300, params={"lr": 1e-3})
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    cut_off(spec, tmp_path, after=0)
    resumed = run_trial(spec)
    assert whole.episodes
    assert isinstance(whole.episodes[0], Episode)
    assert resumed.episodes == whole.episodes
    assert resumed.spike_score == whole.spike_score
    assert len(resumed.diagnoses) == len(whole.diagnoses)


def test_what_measuring_has_cost_is_not_forgotten(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES, overhead=0.1, steps=400, full_steps=400)
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    cut_off(spec, tmp_path, after=700)
    # a fresh start is promised two readings, on top of what had been read before
    assert whole.overhead < run_trial(spec).overhead < 2.0 * whole.overhead


def test_nothing_is_saved_within_the_first_minute(tmp_path):
    run_trial(dataclasses.replace(long_run(tmp_path, MINIBATCHES), checkpoint_seconds=60.0))
    assert not list(tmp_path.glob("run*"))


def test_a_checkpoint_cut_in_the_middle_starts_the_run_anew_and_says_so(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES)
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    cut_off(spec, tmp_path, after=100)
    content = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(content[: len(content) // 2])
    resumed = run_trial(spec)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert "started anew, because the checkpoint" in resumed.reason


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    spec = long_run(tmp_path, MINIBATCHES)
    torch.save({"version": 1, "spec": Trap()}, tmp_path / "run.pt")
    resumed = run_trial(spec)
    assert resumed.status == "completed"
    assert not (tmp_path / "trapped").exists()


def test_a_checkpoint_of_another_seed_is_not_used(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES)
    cut_off(spec, tmp_path, after=100)
    other = run_trial(dataclasses.replace(spec, seed=5))
    assert "cannot be used: it is of another run" in other.reason
    assert other.losses.size == spec.steps


def test_a_run_that_cannot_be_saved_goes_on_and_says_so(tmp_path):
    spec = dataclasses.replace(long_run(tmp_path, MINIBATCHES), checkpoint=str(tmp_path / "gone" / "run.pt"))
    result = run_trial(spec)
    assert result.status == "completed"
    assert result.reason.count("not saved at step") == 1


ODD = """
    import pathlib, torch
    from stabletune import Training

    class Odd(torch.nn.Linear):
        def get_extra_state(self):
            return (lambda: 0) if pathlib.Path(__file__).with_name("unpicklable").exists() else torch.zeros(1)

        def set_extra_state(self, state):
            pass

    def build(seed, device):
        width = 3 if pathlib.Path(__file__).with_name("wider").exists() else 2
        model, n_calls, cut = Odd(width, 1), [0], pathlib.Path(__file__).with_name("cut")

        def loss_fn(model, batch):
            n_calls[0] += 1
            if cut.exists() and n_calls[0] > 60:
                raise KeyboardInterrupt
            return model(batch[:, :width]).square().mean() + 1.0

        n_batches = 3 if pathlib.Path(__file__).with_name("fewer").exists() else 40
        return Training(model=model, loss_fn=loss_fn, batches=[torch.ones(1, 3)] * n_batches)
"""


def test_a_model_that_cannot_be_saved_trains_all_the_same(tmp_path):
    (tmp_path / "unpicklable").touch()
    result = run_trial(long_run(tmp_path, ODD))
    assert result.status == "completed"
    assert result.reason.count("not saved at step 1") == 1


@pytest.mark.parametrize("change", ["wider", "fewer"])
def test_a_run_whose_model_or_data_changed_meanwhile_starts_anew(tmp_path, change):
    spec = long_run(tmp_path, ODD)
    cut_off(spec, tmp_path, after=0)
    (tmp_path / change).touch()
    resumed = run_trial(spec)
    whole = run_trial(dataclasses.replace(spec, checkpoint=None))
    assert "started anew, because the checkpoint" in resumed.reason
    np.testing.assert_array_equal(resumed.losses, whole.losses)


@pytest.mark.parametrize("content", [b"", b"hello", {"a": 1}, [1]])
def test_a_file_that_is_no_checkpoint_starts_the_run_anew(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "run.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "run.pt")
    assert "cannot be used" in run_trial(long_run(tmp_path, ODD)).reason


def test_settings_that_are_not_a_number_or_numpys_do_not_hinder(tmp_path):
    groups = "param_groups=[{'params': list(model.parameters()), 'lr_scale': numpy.float64(0.5)}]"
    code = MINIBATCHES.replace("accumulate=2)", f"accumulate=2, {groups})")
    code = code.replace('kind="shuffled"', 'kind="shuffled", odd=0.0')
    spec = long_run(tmp_path, code, workload_args={"odd": float("nan")})
    cut_off(spec, tmp_path, after=100)
    assert "gone on from step" in run_trial(spec).reason


def test_shadow_values_after_an_interruption_are_marked(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES, shadow_beta2=(0.9,))
    cut_off(spec, tmp_path, after=100)
    assert "shadow values begin anew there" in run_trial(spec).reason


def test_notes_of_the_first_part_are_kept(tmp_path):
    spec = long_run(tmp_path, MINIBATCHES)
    cut_off(spec, tmp_path, after=70)
    cut_off(spec, tmp_path, after=70)
    assert run_trial(spec).reason.count("gone on from step") == 2


def test_skipping_to_a_position_gives_the_batches_that_would_have_come():
    def stream():
        torch.manual_seed(3)
        data = torch.utils.data.TensorDataset(torch.arange(10))
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
        return BatchStream(loader, keeps_random_state=True)

    for n_drawn in range(1, 12):
        first = stream()
        for _ in range(n_drawn):
            next(first)
            torch.rand(5)  # what dropout would draw
        position, state = first.position, random_state()
        expected = [next(first)[0].tolist() for _ in range(5)]
        second = stream()
        second.skip_to(position)
        set_random_state(state)
        assert [next(second)[0].tolist() for _ in range(5)] == expected
