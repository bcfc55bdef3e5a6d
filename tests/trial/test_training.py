import pytest
import torch

from stabletune import Training
from stabletune.errors import WorkloadError

MODEL = torch.nn.Linear(1, 1)
GOOD = {"model": MODEL, "loss_fn": lambda model, batch: batch, "batches": [1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "Training.model: must be a torch.nn.Module, but got int"),
        ({"loss_fn": 3}, "Training.loss_fn: must be callable"),
        ({"precision": "int8"}, "Training.precision: must be float32, bfloat16 or float16, but got 'int8'"),
        ({"accumulate": 0}, "Training.accumulate: must be a whole number of at least 1, but got 0"),
        ({"accumulate": True}, "Training.accumulate: must be a whole number of at least 1, but got True"),
        ({"loss_floor": float("nan")}, "Training.loss_floor: must be a finite number, but got nan"),
        ({"loss_floor": "0"}, "Training.loss_floor: must be a finite number, but got '0'"),
        ({"param_groups": [{"params": [], "lr": 1}]}, "Training.param_groups: each must have params"),
        ({"param_groups": [{"weight_decay": 0.1}]}, "Training.param_groups: each must have params"),
        ({"param_groups": [{"params": [], "lr_scale": -1}]}, "lr_scale >= 0 must hold, but got -1"),
        ({"batches": iter([1])}, "Training.batches: must be re-iterable"),
        ({"eval_batches": 5}, "Training.eval_batches: must be re-iterable"),
    ],
)
def test_a_training_that_breaks_a_rule_is_refused_by_name(change, message):
    with pytest.raises(WorkloadError) as caught:
        Training(**{**GOOD, **change})
    assert message in str(caught.value)


def test_a_training_that_keeps_the_rules_is_accepted():
    groups = [{"params": [MODEL.weight], "lr_scale": 0.1, "weight_decay": 0.0}]
    assert Training(**GOOD, param_groups=groups, loss_floor=-3).accumulate == 1
