"""Worker efficiency on a reference search: useful step time over what two workers' wall time could have held.

20 trials of 1,000 steps of about 3 ms, none stopped, signals at their default. Efficiency is the time that a plain
AdamW loop takes for the same steps, over slots x the wall time from the first trial's start to the last one's end.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from timing import figure

N_TRIALS, N_STEPS = 20, 1000
WORKLOAD = """
import torch
from stabletune import Training

def build(seed, device, *, width=WIDTH):
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.Tanh(), torch.nn.Linear(width, width),
                                torch.nn.Tanh(), torch.nn.Linear(width, 1))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(512, 64, generator=generator), torch.randn(512, 1, generator=generator)
    return Training(model=model, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean(), batches=[(x, y)],
                    eval_fn=lambda m: float((m(x) - y).detach().square().mean()))
"""


def plain_step_seconds(folder: Path) -> float:
    torch.set_num_threads(1)
    space: dict = {}
    exec((folder / "workload.py").read_text(), space)
    training = space["build"](0, torch.device("cpu"))
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-4)
    (batch,) = training.batches

    def run(n_steps):
        started = time.perf_counter()
        for _ in range(n_steps):
            optimizer.zero_grad()
            training.loss_fn(training.model, batch).backward()
            optimizer.step()
        return (time.perf_counter() - started) / n_steps

    run(100)
    return statistics.median(run(300) for _ in range(5))


def main() -> None:
    from stabletune import search
    from stabletune.study.listener import Listener

    class Clock(Listener):
        first = last = 0.0
        n_done = 0

        def on_start(self, spec):
            self.first = self.first or time.perf_counter()

        def on_result(self, result):
            if result.spec.purpose == "search":
                assert result.steps == N_STEPS, result.reason
                self.last = time.perf_counter()

    folder = Path(tempfile.mkdtemp(prefix="stabletune-bench-"))
    (folder / "workload.py").write_text(WORKLOAD.replace("WIDTH", sys.argv[1] if len(sys.argv) > 1 else "192"))
    config = {
        "version": 1,
        "name": "reference",
        "workload": "workload.py:build",
        "search_space": {"lr": {"low": 1e-6, "high": 1e-5, "scale": "log"}},
        "baseline": {"lr": 1e-6},
        "sampler": "random",
        "objective": {"source": "eval"},  # by which no trial is pruned as slow
        "budget": {"trials": N_TRIALS, "trial_steps": N_STEPS, "full_steps": N_STEPS, "confirm_seeds": 1},
        "output": str(folder / "run"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = plain_step_seconds(folder)
    clock = Clock()
    search(folder / "config.yaml", listener=clock)
    step = statistics.mean((before, plain_step_seconds(folder)))
    slots, wall = os.cpu_count() or 1, clock.last - clock.first
    figure("plain AdamW step", 1000 * step, "ms")
    figure("wall time of 20 trials", wall, "s")
    figure("worker efficiency", N_TRIALS * N_STEPS * step / (slots * wall), "", ">= 0.8")


if __name__ == "__main__":
    main()
