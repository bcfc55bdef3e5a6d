"""Trainer runs with ragged batches in one or two processes, each micro-batch recorded, and the same steps by hand.

``python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.monitor.integrations.ragged_runs FOLDER``
"""

import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from stabletune import StabilityMonitor
from stabletune.monitor.integrations.huggingface import StabilityCallback
from tests.reference.dense_sharpness import dense_sharpness

LR = 3e-3
GPT2 = "a GPT-2, by the tokens of all processes"
ACROSS = "by the tokens of all processes"
OWN = "by the tokens of each process"
MEANS = "by the means of micro-batches"
CASES = (GPT2, ACROSS, OWN, MEANS)
CLIPPED, LIMIT = "clipped", 1e-3


class Ragged(torch.utils.data.Dataset):
    """Rows of which ever more tokens have no label, so that no two batches count alike."""

    def __init__(self, n_words):
        self.ids = torch.randint(0, n_words, (20, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, n):
        labels = self.ids[n].clone()
        labels[: n % 9] = -100
        return {"input_ids": self.ids[n], "labels": labels}


class Successors(torch.nn.Module):
    """Three words and what follows them: nine parameters, of which a dense Hessian is soon made."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    def forward(self, input_ids, labels):
        summed, n = self._summed(input_ids, labels)
        return {"loss": summed / n}

    def _summed(self, input_ids, labels):
        logits, following = self.table[input_ids[:, :-1]].flatten(0, 1), labels[:, 1:].flatten()
        return cross_entropy(logits, following, reduction="sum"), (following != -100).sum()


class CountedSuccessors(Successors):
    """Divides by the tokens of the whole step where it is told their number."""

    def forward(self, input_ids, labels, num_items_in_batch=None, **others):
        summed, n = self._summed(input_ids, labels)
        return {"loss": summed / (n if num_items_in_batch is None else num_items_in_batch)}


def model_of(case):
    torch.manual_seed(0)
    if case != GPT2:
        return Successors() if case == MEANS else CountedSuccessors()
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, **off)
    )


class Norms:
    """A sink that takes down, at each step, the gradient norm that the alerts go by."""

    def __init__(self):
        self.norms = []

    def __call__(self, alert):
        pass

    def observe(self, step, loss, reading):
        self.norms.append(self.watch.monitor.notes.gradient_norm())


class Records(Trainer):
    """Keeps what each micro-batch of each step was, and by how many tokens its losses were divided."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen.setdefault(self.state.global_step, []).append({name: x.clone() for name, x in inputs.items()})
        self.n_items[self.state.global_step] = num_items_in_batch
        loss = super().training_step(model, inputs, num_items_in_batch)
        held = [p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]
        self.norms[self.state.global_step] = float(torch.cat(held).norm())  # of the last micro-batch of a step: of all
        return loss


class RecordsScaled(Records):
    """Trains with a GradScaler, as with float16 on a GPU."""

    def __init__(self, **given):
        super().__init__(**given)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)


def run(case, folder, kind=Records, **options):
    """Train; what this process has seen, read and ended with."""
    seen = Norms()
    callback = StabilityCallback(every=1, sinks=[seen])
    seen.watch = callback.watch
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    plain = {"learning_rate": LR, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "weight_decay": 0.0}
    plain["average_tokens_across_devices"] = case != OWN
    arguments = TrainingArguments(str(folder), **quiet | plain | given | options)
    data = Ragged(40 if case == GPT2 else 3)
    trainer = kind(model=model_of(case), args=arguments, train_dataset=data, callbacks=[callback])
    trainer.seen, trainer.n_items, trainer.norms = {}, {}, {}
    trainer.train()
    weights = torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])
    readings = [(reading.loss, reading.sharpness_ratio) for reading in callback.watch.readings]
    raw = {"norms": list(trainer.norms.values()), "noted": seen.norms}
    return {"seen": trainer.seen, "n_items": trainer.n_items, "readings": readings, "weights": weights} | raw


def replay(case, ranks):
    """The same steps in a plain loop: what the first rank's readings ought to be, and the weights in the end.

    All train on the mean over the ranks of their totals: of the means of their micro-batches, or of the sums over
    their tokens divided by their own number, or by its mean over the ranks. S is the dense one of the first rank's
    total; of a GPT-2, whose Hessian is too large, what a monitor of this loop reads.
    """
    model = model_of(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    monitor, readings = StabilityMonitor(model, optimizer, every=1), []
    for step in range(len(ranks[0]["seen"])):

        def total(rank, step=step):
            batches = rank["seen"][step]
            if case == MEANS:
                return torch.stack([model(**batch)["loss"] for batch in batches]).mean()
            n_tokens = rank["n_items"][step] / (1 if case == OWN else len(ranks))
            return torch.stack([_sum_over_tokens(model, case, **batch) for batch in batches]).sum() / n_tokens

        def first(total=total):
            return total(ranks[0])

        optimizer.zero_grad()
        torch.stack([total(rank) for rank in ranks]).mean().backward()
        loss = float(first().detach())
        optimizer.step()
        ratio = monitor.step(loss, first).sharpness_ratio if case == GPT2 else dense_sharpness(optimizer, first)
        readings.append((loss, ratio))
    return readings, torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def _sum_over_tokens(model, case, input_ids, labels):
    logits = model(input_ids).logits[:, :-1] if case == GPT2 else model.table[input_ids[:, :-1]]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    found = {each: run(each, target / "out") for each in CASES}
    found[CLIPPED] = run(ACROSS, target / "out", max_grad_norm=LIMIT)
    torch.save(found, target / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
