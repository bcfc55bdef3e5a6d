"""Two gloo processes train with DistributedDataParallel; one of them measures, and nobody waits for ever."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from stabletune import StabilityMonitor

N_STEPS = 12


def train(rank, n_processes, measures, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{measures}", rank=rank, world_size=n_processes)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-2)
    monitor = StabilityMonitor(model, optimizer, every=3) if measures and rank == 0 else None
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(rank))
    readings = []
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        loss = ((parallel(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        optimizer.step()
        if monitor is not None:
            reading = monitor.step(loss, lambda: ((model(x) - x.sum(1, keepdim=True)) ** 2).mean())
            readings += [] if reading is None else [reading.sharpness_ratio]
    torch.save({"weights": model.state_dict(), "readings": readings}, f"{folder}/{measures}-{rank}.pt")
    dist.destroy_process_group()


def test_one_of_two_processes_measures_and_both_train_as_without(tmp_path):
    for measures in (True, False):
        mp.spawn(train, args=(2, measures, str(tmp_path)), nprocs=2)
    found = {name: torch.load(tmp_path / f"{name}.pt") for name in ("True-0", "True-1", "False-0")}
    assert len(found["True-0"]["readings"]) == N_STEPS // 3
    assert all(0.0 < ratio < 1e3 for ratio in found["True-0"]["readings"])
    for name, weights in found["False-0"]["weights"].items():
        assert torch.equal(found["True-0"]["weights"][name], weights)
        assert torch.equal(found["True-1"]["weights"][name], weights)
