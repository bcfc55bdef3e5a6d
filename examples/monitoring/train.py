"""A plain PyTorch loop that is watched: readings, alerts to the log and a file, metrics for Prometheus if asked for.

python examples/monitoring/train.py [--steps 1500] [--port 9400] [--alerts alerts.jsonl]
"""

import argparse
import logging

import torch

from stabletune import StabilityAlerts, StabilityMonitor
from stabletune.monitor.alerts.jsonl_sink import JsonlSink
from stabletune.monitor.alerts.log_sink import LogSink


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--port", type=int, help="serve Prometheus metrics there (needs the extra `monitor`)")
    parser.add_argument("--alerts", default="alerts.jsonl")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    torch.manual_seed(0)
    x = torch.linspace(-torch.pi, torch.pi, 200).unsqueeze(1)
    y = torch.sin(x) + torch.sin(4.0 * x)
    model = torch.nn.Sequential(torch.nn.Linear(1, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, betas=(0.9, 0.99))

    sinks = [LogSink(), JsonlSink(options.alerts)]
    if options.port is not None:
        from stabletune.monitor.alerts.prometheus_sink import PrometheusSink

        sinks.append(PrometheusSink(options.port, labels={"run": "tanh"}))
    monitor = StabilityMonitor(model, optimizer, overhead=0.15)
    alerts = StabilityAlerts(monitor, sinks)

    def loss_fn() -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(x), y)

    for _ in range(options.steps):
        optimizer.zero_grad()
        loss = loss_fn()
        loss.backward()
        optimizer.step()
        alerts.step(loss, monitor.step(loss, loss_fn), loss_fn)
    alerts.close()
    print(f"final loss {float(loss.detach()):.4g}, level {alerts.level}")


if __name__ == "__main__":
    main()
