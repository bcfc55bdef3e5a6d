"""The batches of a ``Training``, over and over, and where in them a run is, for one that goes on after a crash."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from stabletune.errors import WorkloadError

RandomState = dict[str, Any]


class BatchStream:
    """An iterator that starts its batches anew whenever they are exhausted.

    Args:
        batches: any re-iterable.
        keeps_random_state: note the random state at the start of each epoch; ``position`` needs it.
    """

    def __init__(self, batches: Iterable[Any], *, keeps_random_state: bool = False) -> None:
        self._batches = batches
        self._keeps_random_state = keeps_random_state
        self._epoch: Iterator[Any] | None = None
        self._began: RandomState = {}
        self._n_epochs = 0
        self._n_in_epoch = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            WorkloadError: an epoch has none.
        """
        if self._epoch is None:
            self._begin_epoch()
        assert self._epoch is not None
        for batch in self._epoch:
            self._n_in_epoch += 1
            return batch
        if not self._n_in_epoch and self._n_epochs > 1:
            raise WorkloadError(
                f"Training.batches: must yield its batches each time, but got none at pass {self._n_epochs}. "
                "Give back a new iterator from each __iter__."
            )
        if not self._n_in_epoch:
            raise WorkloadError(
                "Training.batches: must yield at least one batch, but got none. "
                "Check the data set, its path and drop_last."
            )
        self._epoch = None
        return next(self)

    @property
    def position(self) -> dict[str, Any]:
        """How many epochs have begun, how many batches of the last were drawn, the random state it began with."""
        return {"n_epochs": self._n_epochs, "n_in_epoch": self._n_in_epoch, "began": self._began}

    def skip_to(self, position: dict[str, Any]) -> None:
        """Draw and drop batches up to a ``position``; the random state is left as drawing leaves it.

        Batches that depend on a generator of their own come as they did, since that is drawn from as often; so do those
        that depend on the global one at the start of an epoch, as a shuffling ``DataLoader``'s, since that is set.

        Raises:
            ValueError: there are fewer batches than there were.
        """
        while self._n_epochs < position["n_epochs"]:
            if self._n_epochs + 1 == position["n_epochs"]:
                for _ in self._epoch or ():
                    pass
                set_random_state(position["began"])
                self._begin_epoch()
            else:
                next(self)
        while self._n_in_epoch < position["n_in_epoch"]:
            next(self)
            if self._n_epochs > position["n_epochs"]:
                raise ValueError("an epoch has fewer batches than it had")

    def _begin_epoch(self) -> None:
        if self._keeps_random_state:
            self._began = random_state()
        self._epoch = iter(self._batches)
        self._n_epochs += 1
        self._n_in_epoch = 0


def random_state() -> RandomState:
    """The global random state of torch (all devices), numpy and random, as tensors and plain data."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": on_devices,
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "random": random.getstate(),
    }


def set_random_state(state: RandomState) -> None:
    """Undo everything drawn since ``random_state`` gave ``state``."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    random.setstate(state["random"])
