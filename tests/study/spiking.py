"""A workload file whose loss spikes at chosen calls for chosen seeds, whatever the optimizer does."""

SOURCE = """
import torch
from stabletune import Training

def build(seed, device):
    model, calls = torch.nn.Linear(1, 1), [0]

    def loss_fn(m, batch):
        calls[0] += 1
        return (m.weight**2).sum() * 0.0 + (9.0 if SPIKES else 1.0 + 0.01 * (calls[0] % 2))

    return Training(model=model, loss_fn=loss_fn, batches=[0])
"""


def write_spiking_workload(folder, condition):
    """Write ``spiking.py``; ``condition`` is an expression in ``seed`` and ``calls[0]``.

    A reading calls the loss up to twice: what is to reach a training step must hold for three calls in a row.
    """
    (folder / "spiking.py").write_text(SOURCE.replace("SPIKES", condition))
    return ("workload: quadratic", "workload: spiking.py:build"), ("workload_args:", "# workload_args:")
