"""What share each micro-batch has in loss and S, in real Trainers of one and of two processes, beside plain loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.monitor.integrations.ragged_runs import (
    ACROSS,
    CASES,
    CLIPPED,
    GPT2,
    LIMIT,
    Records,
    RecordsScaled,
    replay,
    run,
)

ROOT = Path(__file__).parents[3]


def assert_read_as_replayed(case, first, *others):
    """S of a GPT-2 is compared with another iteration of the same kind, which may end elsewhere in its tolerance."""
    readings, weights = replay(case, [first, *others])
    assert torch.allclose(first["weights"], weights, atol=1e-5)
    (losses, ratios), (found_losses, found_ratios) = zip(*readings, strict=True), zip(*first["readings"], strict=True)
    assert found_losses == pytest.approx(losses, rel=1e-6)
    assert found_ratios == pytest.approx(ratios, rel=5e-3 if case == GPT2 else 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_on_the_full_batch_loss_and_s_are_those_of_the_dense_reference(tmp_path, case):
    options = {"per_device_train_batch_size": 20, "gradient_accumulation_steps": 1, "num_train_epochs": 4}
    assert_read_as_replayed(case, run(case, tmp_path, **options))


@pytest.mark.parametrize("case", CASES)
def test_ragged_micro_batches_enter_loss_and_s_with_the_share_that_is_trained_on(tmp_path, case):
    result = run(case, tmp_path, gradient_accumulation_steps=3)
    assert [len(batches) for batches in result["seen"].values()] == [3, 3, 3, 1] * 2
    assert_read_as_replayed(case, result)


def test_the_factor_of_a_gradscaler_enters_neither_loss_nor_s(tmp_path):
    assert_read_as_replayed(ACROSS, run(ACROSS, tmp_path, kind=RecordsScaled))


@pytest.mark.parametrize("kind", [Records, RecordsScaled])
def test_where_a_trainer_clips_the_gradient_is_taken_as_it_was_before(tmp_path, kind):
    result = run(ACROSS, tmp_path, kind=kind, max_grad_norm=LIMIT)
    scale = 1.0 if kind is Records else 1024.0
    assert min(result["noted"]) > 10 * LIMIT
    assert result["noted"][:2] == pytest.approx([norm / scale for norm in result["norms"][:2]], rel=1e-5)
    assert len(result["noted"]) == len(result["norms"])


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, "-m", "tests.monitor.integrations.ragged_runs", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{n}.pt") for n in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_of_two_processes_the_first_reads_loss_and_s_of_its_share_of_what_both_train_on(two_processes, case):
    first, second = (rank[case] for rank in two_processes)
    assert not torch.equal(first["seen"][0][0]["input_ids"], second["seen"][0][0]["input_ids"])
    assert second["readings"] == []
    assert_read_as_replayed(case, first, second)


@pytest.mark.slow
def test_of_two_processes_that_clip_the_first_takes_the_gradient_averaged_over_both(two_processes):
    first, second = (rank[CLIPPED] for rank in two_processes)
    assert first["norms"] == pytest.approx(second["norms"], rel=1e-6)
    assert min(first["noted"]) > 10 * LIMIT
    assert first["noted"] == pytest.approx(first["norms"], rel=1e-5)
