"""The demo five times with different seeds, and what its recommendations are worth to somebody else.

Each recommendation is trained with plain torch.optim.AdamW on ten further seeds; spikes are counted here by code of its
own. Limits: 150 s each, and at most three spiky runs in the fifty.
"""

import itertools
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import figure

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "diabetes"
N_DEMOS, N_SEEDS = 5, 10


def recommend(seed: int, output: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "stabletune.cli", "search", str(EXAMPLE / "config.yaml"), "--quiet"]
    subprocess.run([*command, "--set", f"seed={seed}", "--output", str(output)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def train(settings: dict, seed: int, width: int, n_steps: int) -> list[float]:
    sys.path.insert(0, str(EXAMPLE))
    from workload import build

    torch.manual_seed(seed)
    training = build(seed, torch.device("cpu"), width=width)
    betas = (settings["beta1"], settings["beta2"])
    optimizer = torch.optim.AdamW(
        training.model.parameters(), lr=settings["lr"], betas=betas, eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    (batch,) = training.batches
    losses = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = training.loss_fn(training.model, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def is_spiky(losses: list[float]) -> bool:
    floor = 1e-4 * statistics.median(losses[:10])
    logs = [math.log(max(loss, floor)) for loss in losses]
    changes = [abs(b - a) for a, b in itertools.pairwise(logs)]
    for t in range(10, len(losses)):
        if not math.isfinite(losses[t]):
            return True
        d = math.log(losses[t] / max(statistics.median(losses[max(0, t - 100) : t]), floor))
        if d > math.log(1.25):
            sigma = 1.4826 * statistics.median(changes[max(0, t - 101) : t - 1])
            if d > 8 * sigma or (d > math.log(3) and d > 3 * sigma):
                return True
    return False


def main() -> None:
    from stabletune import Recommendation
    from stabletune.config import load_config

    torch.set_num_threads(1)
    config = load_config(EXAMPLE / "config.yaml")
    width, n_steps = config.workload_args["width"], config.budget.full_steps
    folder, walls, ratios, n_spiky = Path(tempfile.mkdtemp(prefix="stabletune-bench-")), [], [], 0
    for demo in range(N_DEMOS):
        output = folder / str(demo)
        walls.append(recommend(1000 * demo, output))
        recommendation = Recommendation.load(output / "recommended.yaml")
        runs = [train(dict(recommendation.settings), 500_000 + n, width, n_steps) for n in range(N_SEEDS)]
        spiky = sum(map(is_spiky, runs))
        n_spiky += spiky
        ratios.append(recommendation.evidence["objective"]["ratio"])
        figure(f"demo {demo}: spiky of {N_SEEDS} further seeds", spiky, "runs")
        figure(f"demo {demo}: objective against the baseline", ratios[-1], "ratio")
    figure("demo, median wall time", statistics.median(walls), "s", "< 150")
    figure("demo, largest wall time", max(walls), "s", "< 150")
    figure("objective against the baseline, median", statistics.median(ratios), "ratio", "< 1")
    figure("spiky runs in the 50", n_spiky, "runs", "<= 3")


if __name__ == "__main__":
    main()
