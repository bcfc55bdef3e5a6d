"""Fixed bugs of the standard loop: checkpoints with a scheduler, and batches that are no plain containers."""

import collections
import dataclasses
import types

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from stabletune.trial.standard_loop import move
from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

META = torch.device("meta")  # the one other device that every build of torch has

CHECKPOINT = """
    import torch
    from stabletune import Training

    def build(seed, device):
        model = torch.nn.Linear(4, 1)
        old = torch.optim.AdamW(model.parameters(), lr=7.0)
        torch.optim.lr_scheduler.LambdaLR(old, lambda step: 0.5)
        loss_fn = lambda m, b: (m(b) ** 2).mean()
        batch = torch.randn(8, 4)
        loss_fn(model, batch).backward()
        old.step()
        return Training(model=model, loss_fn=loss_fn, batches=[batch], optimizer_state=old.state_dict())
"""


def test_a_checkpoint_saved_with_a_scheduler_trains_at_the_trials_lr(tmp_path):
    result = run_trial(spec_of_file(tmp_path, CHECKPOINT, overhead=None, every=1, steps=3))
    assert [m.lr for m in result.measurements] == [1e-3] * 3


class Encoding(collections.UserDict):
    """As transformers' BatchEncoding: a mapping that moves itself."""

    def to(self, device):
        self.data = {name: value.to(device) for name, value in self.data.items()}
        return self


class Graph:
    """As torch_geometric's Data: no container, but it moves itself."""

    def __init__(self, nodes):
        self.nodes = nodes

    def to(self, device):
        return Graph(self.nodes.to(device))


Pair = collections.namedtuple("Pair", "x y")


@dataclasses.dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    n: int = dataclasses.field(init=False, default=3)


def test_mappings_keep_their_type_and_their_order():
    x = torch.zeros(2)
    default = collections.defaultdict(list, x=x)
    for batch in ({"x": x}, collections.OrderedDict(x=x), default, collections.UserDict(x=x), Encoding(x=x)):
        moved = move(batch, META)
        assert type(moved) is type(batch)
        assert moved["x"].device == META
    assert move(default, META).default_factory is list
    frozen = move(types.MappingProxyType({"x": x, "name": "a"}), META)
    assert (type(frozen), frozen["x"].device, frozen["name"]) == (types.MappingProxyType, META, "a")


def test_moving_a_mapping_leaves_the_users_own_as_it_was():
    batch = collections.OrderedDict(x=torch.zeros(2))
    move(batch, META)
    assert batch["x"].device.type == "cpu"


def test_what_can_move_itself_is_asked_to():
    assert move([Graph(torch.zeros(2))], META)[0].nodes.device == META
    packed = move(pack_sequence([torch.zeros(3), torch.zeros(2)]), META)
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == META
    assert packed.batch_sizes.device.type == "cpu"  # as torch demands


def test_named_tuples_and_dataclasses_keep_their_type():
    pair = move(Pair(torch.zeros(2), ["text", torch.zeros(1)]), META)
    assert isinstance(pair, Pair)
    assert (pair.x.device, pair.y[0], pair.y[1].device) == (META, "text", META)
    sample = move(Sample(torch.zeros(2)), META)
    assert (type(sample), sample.x.device, sample.n) == (Sample, META, 3)


@pytest.mark.parametrize("batch", [3, "text", None, torch.Tensor, Sample, (), [], torch.Size([2])], ids=repr)
def test_what_holds_no_tensor_stays_what_it_is(batch):
    assert move(batch, META) == batch
    assert type(move(batch, META)) is type(batch)


def test_batches_that_come_only_once_are_said_to_rather_than_called_empty(tmp_path):
    source = """
    import torch
    from stabletune import Training

    class Once:
        def __init__(self):
            self.left = iter([torch.ones(1), torch.ones(1)])

        def __iter__(self):
            return self.left

    def build(seed, device):
        return Training(model=torch.nn.Linear(1, 1), loss_fn=lambda m, b: m(b).square().mean(), batches=Once())
    """
    result = run_trial(spec_of_file(tmp_path, source))
    assert result.status == "failed"
    assert "step 3: Training.batches: must yield its batches each time, but got none at pass 2." in result.reason
